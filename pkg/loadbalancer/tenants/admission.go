package tenants

import (
	"fmt"
	"slices"
	"strings"

	admission "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PolicyName is the name of the admission policy and of its binding.
const PolicyName = "tenants.load-balancers.upcloud.com"

// Grant says that the Services of some namespaces may use a shared load balancer.
type Grant struct {
	LoadBalancer string // a UUID, a name or create/NAME
	Namespaces   []string
}

// AdmissionPolicy returns the policy that refuses at kubectl apply what the configuration does not allow, as far as CEL can tell, and its
// binding. prefix begins the names of annotations, and defaultPlan is always allowed.
func AdmissionPolicy(c *Config, defaultPlan, prefix string, grants []Grant) (admission.ValidatingAdmissionPolicy, admission.ValidatingAdmissionPolicyBinding) {
	g := generator{config: c, prefix: prefix, grants: grants}
	g.variable("annotations", "object.metadata.?annotations.orValue({})")
	g.entries()
	g.lists(defaultPlan)
	g.groups()
	g.switches()
	fail := admission.Fail
	meta := metav1.ObjectMeta{Name: PolicyName}
	return admission.ValidatingAdmissionPolicy{
			TypeMeta: metav1.TypeMeta{APIVersion: admission.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicy"}, ObjectMeta: meta,
			Spec: admission.ValidatingAdmissionPolicySpec{
				FailurePolicy: &fail, MatchConstraints: services(), MatchConditions: conditions, Variables: g.variables, Validations: g.validations,
			},
		}, admission.ValidatingAdmissionPolicyBinding{
			TypeMeta: metav1.TypeMeta{APIVersion: admission.SchemeGroupVersion.String(), Kind: "ValidatingAdmissionPolicyBinding"}, ObjectMeta: meta,
			Spec: admission.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: PolicyName, ValidationActions: []admission.ValidationAction{admission.Deny},
			},
		}
}

func services() *admission.MatchResources {
	return &admission.MatchResources{ResourceRules: []admission.NamedRuleWithOperations{{RuleWithOperations: admission.RuleWithOperations{
		Operations: []admission.OperationType{admission.Create, admission.Update},
		Rule:       admission.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"services"}},
	}}}}
}

// conditions leave out what is no load balancer's, and what controllers write to a Service that was there before the policy.
var conditions = []admission.MatchCondition{
	{Name: "load-balancer", Expression: "object.spec.?type.orValue('') == 'LoadBalancer' && !has(object.metadata.deletionTimestamp)"},
	{Name: "changed", Expression: "oldObject == null || object.metadata.?annotations.orValue({}) != oldObject.metadata.?annotations.orValue({}) " +
		"|| object.spec != oldObject.spec"},
}

type generator struct {
	config      *Config
	prefix      string
	grants      []Grant
	limits      []Limits // of each entry, and last the default
	variables   []admission.Variable
	validations []admission.Validation
}

func (g *generator) variable(name, expression string) {
	g.variables = append(g.variables, admission.Variable{Name: name, Expression: expression})
}

// validate refuses what the expression is false of. what and allowed are expressions too.
func (g *generator) validate(expression, what, allowed string) {
	g.validations = append(g.validations, admission.Validation{
		Expression: expression,
		Message:    "the policy for tenants does not allow it: see data.tenants in the CCM's configuration",
		MessageExpression: "'namespace ' + request.namespace + ' asks for ' + " + what + " + ', allowed is ' + " + allowed +
			" + '; the cluster\\'s operator can change data.tenants in the CCM\\'s configuration'",
	})
}

// entries makes the variable entry: the number of the entry that is about the namespace.
func (g *generator) entries() {
	if g.config.NeedsLabels() {
		g.variable("labels", "namespaceObject.metadata.?labels.orValue({})")
	}
	index := ""
	for i, entry := range g.config.Namespaces {
		index += fmt.Sprintf("%s ? %d : ", entry.expression(), i)
		g.limits = append(g.limits, entry.or(g.config.Default).or(Safe()))
	}
	g.limits = append(g.limits, g.config.Default.or(Safe()))
	g.variable("entry", index+fmt.Sprint(len(g.config.Namespaces)))
}

// expression is true of the namespaces that the entry is about.
func (e Entry) expression() string {
	var any []string
	if len(e.Names) > 0 {
		any = append(any, "request.namespace in "+literal(e.Names))
	}
	if e.Selector != nil {
		var all []string
		for _, key := range sortedKeys(e.Selector.MatchLabels) {
			all = append(all, fmt.Sprintf("variables.labels[?%q].orValue('') == %q && %[1]q in variables.labels", key, e.Selector.MatchLabels[key]))
		}
		for _, one := range e.Selector.MatchExpressions {
			has, in := fmt.Sprintf("%q in variables.labels", one.Key), fmt.Sprintf("variables.labels[?%q].orValue('') in %s", one.Key, literal(one.Values))
			all = append(all, map[metav1.LabelSelectorOperator]string{
				metav1.LabelSelectorOpIn: "(" + has + " && " + in + ")", metav1.LabelSelectorOpNotIn: "!(" + has + " && " + in + ")",
				metav1.LabelSelectorOpExists: has, metav1.LabelSelectorOpDoesNotExist: "!(" + has + ")",
			}[one.Operator])
		}
		any = append(any, "("+strings.Join(all, " && ")+")")
	}
	return "(" + strings.Join(any, " || ") + ")"
}

// of is a value that depends on the entry.
func of[T any](g *generator, value func(Limits) T, write func(T) string) string {
	var all []string
	for _, limits := range g.limits {
		all = append(all, write(value(limits)))
	}
	return "[" + strings.Join(all, ", ") + "][variables.entry]"
}

// value is an annotation's, or empty.
func (g *generator) value(name string) string {
	return fmt.Sprintf("variables.annotations[?'%s%s'].orValue('').trim()", g.prefix, name)
}

const uuidExpression = `[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`

// lists refuses values of annotations that are not among those allowed.
func (g *generator) lists(defaultPlan string) {
	const plain = "'*' in variables.%[1]s || v in variables.%[1]s"
	split := func(name string) string { return g.value(name) + ".split(',').map(v, v.trim()).filter(v, v != '')" }
	hosts := g.value("tls-hostnames") + ".split(';').map(p, p.contains('=') ? p.substring(p.indexOf('=') + 1) : p).map(p, p.split(','))"
	for _, list := range []struct {
		name, what string
		allowed    func(Limits) []string
		asked      string
		covers     string
	}{
		{"plans", "plan", func(l Limits) []string { return append([]string{defaultPlan}, l.Plans...) }, split("plan"), plain},
		{"zones", "zone", func(l Limits) []string { return l.Zones }, split("zone"), plain},
		{"networks", "private network", func(l Limits) []string { return l.Networks }, split("private-networks") + ".map(v, v.lowerAscii())", plain},
		{"floatingIPs", "floating IP address", func(l Limits) []string { return l.FloatingIPs },
			split("floating-ips") + " + [object.spec.?loadBalancerIP.orValue('')].filter(v, v != '')", plain},
		{"certificateBundles", "certificate bundle", func(l Limits) []string { return l.CertificateBundles },
			fmt.Sprintf("(%s + ' ' + %s).findAll('%s').map(v, v.lowerAscii())", g.value("tls-bundle"), g.value("backend-tls-bundle"), uuidExpression), plain},
	} {
		g.variable(list.name, of(g, list.allowed, literal))
		g.variable(list.name+"Asked", list.asked)
		g.beyond(list.name, "variables."+list.name+"Asked", fmt.Sprintf(list.covers, list.name), list.what)
	}
	g.variable("hosts", of(g, func(l Limits) []string { return l.Hosts }, literal))
	g.variable("hostsAsked", fmt.Sprintf("'%sroutes' in variables.annotations ? [] : %s", g.prefix, hosts))
	g.validations = append(g.validations, admission.Validation{
		Expression: "variables.hostsAsked.all(list, list.all(v, v.trim() == '' || variables.hosts.exists(h, h == '*' || h == v.trim() || " +
			"h.startsWith('*') && v.trim().endsWith(h.substring(1)) && v.trim() != h.substring(1))))",
		Message: "the policy for tenants does not allow it: see data.tenants in the CCM's configuration",
		MessageExpression: "'namespace ' + request.namespace + ' asks for certificates for hosts ' + " + g.value("tls-hostnames") +
			" + ', allowed is ' + (variables.hosts.size() == 0 ? 'none' : variables.hosts.join(', ')) + " +
			"'; the cluster\\'s operator can change data.tenants in the CCM\\'s configuration'",
	})
}

// beyond refuses the values of a list that are not covered.
func (g *generator) beyond(name, asked, covered, what string) {
	shown := fmt.Sprintf("(variables.%[1]s.size() == 0 ? 'none' : variables.%[1]s.join(', '))", name)
	g.validate(fmt.Sprintf("%s.all(v, %s)", asked, covered), fmt.Sprintf("'%s ' + %s.filter(v, !(%s)).join(', ')", what, asked, covered), shown)
}

// groups refuses shared load balancers that the namespace may not use. By which name or UUID one is meant, only the controller knows.
func (g *generator) groups() {
	g.variable("shared", g.value("shared"))
	g.variable("sharedAllowed", of(g, func(l Limits) []string { return l.SharedLoadBalancers }, literal))
	any := []string{
		"variables.shared == ''",
		"variables.sharedAllowed.exists(a, a == '*' || a == variables.shared)",
		"variables.shared.startsWith('create/') && variables.sharedAllowed.exists(a, a.endsWith('*') && variables.shared.startsWith(a.substring(0, a.size() - 1)))",
		"!variables.shared.startsWith('create/') && variables.sharedAllowed.exists(a, !a.startsWith('create/'))",
	}
	for _, grant := range g.grants {
		if len(grant.Namespaces) == 0 {
			continue
		}
		meant := "!variables.shared.startsWith('create/')"
		if strings.HasPrefix(grant.LoadBalancer, "create/") {
			meant = fmt.Sprintf("variables.shared == %q", grant.LoadBalancer)
		}
		any = append(any, fmt.Sprintf("%s && request.namespace in %s", meant, literal(grant.Namespaces)))
	}
	g.validate(strings.Join(any, " || "), "'shared load balancer ' + variables.shared",
		"(variables.sharedAllowed.size() == 0 ? 'none' : variables.sharedAllowed.join(', '))")
}

// switches refuses what may be had or not, and numbers.
func (g *generator) switches() {
	for name, value := range map[string]func(Limits) bool{
		"retain": func(l Limits) bool { return *l.Retain }, "deletion-protection": func(l Limits) bool { return *l.DeletionProtection },
	} {
		g.validate(of(g, value, func(b bool) string { return fmt.Sprint(b) })+" || !("+g.value(name)+" in ['true'])",
			"'annotation "+name+" true'", "'false'")
	}
	g.validate(of(g, func(l Limits) bool { return *l.Adopt }, func(b bool) string { return fmt.Sprint(b) })+" || "+g.value("adopt")+" == ''",
		"'load balancer ' + "+g.value("adopt")+" + ' as its own (annotation adopt)'", "'none'")
	slices.SortFunc(g.validations, func(a, b admission.Validation) int { return strings.Compare(a.MessageExpression, b.MessageExpression) })
	most := of(g, func(l Limits) int { return *l.MaxFrontends }, func(n int) string { return fmt.Sprint(n) })
	ports := "object.spec.?ports.orValue([]).size()"
	g.validate(ports+" <= "+most, "string("+ports+") + ' ports'", "string("+most+") + ' for each Service'")
}

// literal is a list of texts in CEL.
func literal(values []string) string {
	var all []string
	for _, value := range values {
		all = append(all, fmt.Sprintf("%q", value))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
