package settings

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	"github.com/google/go-cmp/cmp"
	admissionregistration "k8s.io/api/admissionregistration/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugin "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
)

// policyPaths are the chart's file, and the manifest that is made from it.
var policyPaths = []string{
	"../../../deploy/helm/cloud-provider-upcloud/files/load-balancer-policy.yaml",
	"../../../deploy/kubernetes/admission/policy.yaml",
}

const (
	policyHeader = "# Refuses Services with annotations that the controller would refuse. Made from the table of annotations:\n" +
		"# go test ./pkg/loadbalancer/settings -run AdmissionPolicy -update\n"
)

// policy is the admission policy that says the same as the table.
func policy() admissionregistration.ValidatingAdmissionPolicy {
	names := []string{"'id'", "'name'", "'config'"}
	for _, setting := range Table {
		names = append(names, "'"+setting.Name+"'")
	}
	p := admissionregistration.ValidatingAdmissionPolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingAdmissionPolicy"},
		ObjectMeta: metav1.ObjectMeta{Name: "load-balancers.upcloud.com"},
		Spec: admissionregistration.ValidatingAdmissionPolicySpec{
			FailurePolicy: new(admissionregistration.Fail),
			MatchConstraints: &admissionregistration.MatchResources{ResourceRules: []admissionregistration.NamedRuleWithOperations{{
				RuleWithOperations: admissionregistration.RuleWithOperations{
					Operations: []admissionregistration.OperationType{admissionregistration.Create, admissionregistration.Update},
					Rule:       admissionregistration.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"services"}},
				}}}},
			MatchConditions: []admissionregistration.MatchCondition{
				{Name: "load-balancer", Expression: "object.spec.?type.orValue('') == 'LoadBalancer' && !has(object.metadata.deletionTimestamp)"},
				// What was there before the policy must not keep controllers from writing to the Service.
				{Name: "changed", Expression: "oldObject == null || object.metadata.?annotations.orValue({}) != oldObject.metadata.?annotations.orValue({}) " +
					"|| object.spec != oldObject.spec"},
			},
			Variables: []admissionregistration.Variable{
				{Name: "annotations", Expression: "object.metadata.?annotations.orValue({})"},
				{Name: "ports", Expression: "object.spec.?ports.orValue([]).map(p, p.?name.orValue('') == '' ? 'config_' + string(p.port) : p.name) + " +
					"object.spec.?ports.orValue([]).map(p, string(p.port)) + ['*']"},
			},
			Validations: []admissionregistration.Validation{{
				Expression: fmt.Sprintf("variables.annotations.all(k, !k.startsWith('%s') || k.substring(%d) in [%s])", AnnotationPrefix,
					len(AnnotationPrefix), strings.Join(names, ", ")),
				Message: "there is no such annotation: see docs/load-balancers.md for those that begin with " + AnnotationPrefix,
			}, {
				Expression: fmt.Sprintf("variables.annotations.all(k, !k.startsWith('%s') || k == '%s' || size(variables.annotations[k]) <= %d)",
					AnnotationPrefix, AnnotationConfig, maxAnnotation),
				Message: fmt.Sprintf("an annotation that begins with %s is too large: at most %d characters are allowed", AnnotationPrefix, maxAnnotation),
			}, {
				Expression: fmt.Sprintf("size(object.spec.?ports.orValue([])) <= %d", maxPorts),
				Message:    fmt.Sprintf("spec.ports: too many ports, at most %d are allowed; use several Services", maxPorts),
			}, {
				Expression: fmt.Sprintf("size(object.spec.?loadBalancerSourceRanges.orValue([])) <= %d && "+
					"size(variables.annotations[?'%s'].orValue('').split(',')) <= %[1]d", maxSourceRanges, v1.AnnotationLoadBalancerSourceRangesKey),
				Message: fmt.Sprintf("too many source ranges, at most %d are allowed; use fewer, larger ones", maxSourceRanges),
			}},
		},
	}
	for _, setting := range Table {
		if setting.pattern != "" || setting.document != nil {
			p.Spec.Validations = append(p.Spec.Validations, admissionregistration.Validation{
				Expression: setting.expression(), Message: fmt.Sprintf("annotation %s%s: want %s", AnnotationPrefix, setting.Name, setting.allowed),
			})
		}
	}
	return p
}

// yamlAnchor and yamlAlias match what makes one value of YAML stand for another, and no path, host or label of a legal value.
const (
	yamlAnchor = `(?:^|[\s\[{,:-])&[0-9A-Za-z_-]`
	yamlAlias  = `(?:^|[\s\[{,:-])[*][0-9A-Za-z_-]`
)

// expression is true of a Service whose annotation is as allowed, or not there.
func (s Setting) expression() string {
	check := fmt.Sprintf("v.matches(r'^(?:%s)$')", s.pattern)
	if s.list > 0 {
		item := fmt.Sprintf("i.trim().matches(r'^(?:%s)$')", s.pattern)
		if s.longest > 0 {
			item = fmt.Sprintf("size(i.trim()) <= %d && %s", s.longest, item)
		}
		check = fmt.Sprintf("v.split(',').size() <= %d && v.split(',').all(i, %s)", s.list, item)
	}
	if s.document != nil {
		check = fmt.Sprintf("size(v) <= %d && !(v.matches(r'%s') && v.matches(r'%s'))", s.document.Bytes, yamlAnchor, yamlAlias)
	}
	if s.bounds != [2]int{} {
		check = fmt.Sprintf("v.matches(r'^[0-9]{1,8}$') && int(v) >= %d && int(v) <= %d", s.bounds[0], s.bounds[1])
	}
	if s.timed {
		check = fmt.Sprintf("(v.matches(r'^[0-9]{1,8}$') ? int(v) >= %d && int(v) <= %d : v != '' && v.matches(r'%s') && "+
			"duration(v) >= duration('%[1]ds') && duration(v) <= duration('%[2]ds'))", s.bounds[0], s.bounds[1], wholeDuration)
	}
	whole := fmt.Sprintf("variables.annotations['%s%s']", AnnotationPrefix, s.Name)
	result := fmt.Sprintf("[%s.trim()].all(v, %s)", whole, check)
	if s.PerPort {
		known := "p.contains('=') && p.split('=')[0].trim() in variables.ports"
		result = fmt.Sprintf("(%s.split(';').exists(p, %s) ? %[1]s.split(';').all(p, %[2]s && [p.substring(p.indexOf('=') + 1).trim()].all(v, %s)) : %s)",
			whole, known, check, result)
	}
	return fmt.Sprintf("!('%s%s' in variables.annotations) || %s", AnnotationPrefix, s.Name, result)
}

func TestAdmissionPolicyIsCurrent(t *testing.T) {
	binding := admissionregistration.ValidatingAdmissionPolicyBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingAdmissionPolicyBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: "load-balancers.upcloud.com"},
		Spec: admissionregistration.ValidatingAdmissionPolicyBindingSpec{PolicyName: "load-balancers.upcloud.com",
			ValidationActions: []admissionregistration.ValidationAction{admissionregistration.Deny}},
	}
	want := policyHeader
	for i, object := range []any{policy(), binding} {
		fields := fieldsOf(t, object)
		delete(fields, "status")
		text, err := yaml.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			want += "---\n"
		}
		want += string(text)
	}
	for _, path := range policyPaths {
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s is not current: %s", path, diff)
		}
	}
}

// expression is one of the policy's, for the API server's own compiler.
type expression struct {
	name, text string
	types      []*cel.Type
}

func (e expression) GetExpression() string    { return e.text }
func (e expression) ReturnTypes() []*cel.Type { return e.types }
func (e expression) GetName() string          { return e.name }

// admit evaluates the policy as the API server does, and returns why it refuses.
type admit func(old, object *v1.Service) []string

func newAdmit(t *testing.T) admit {
	t.Helper()
	return admitBy(t, policy(), nil)
}

// admitBy is newAdmit for some policy and for Services of a namespace.
func admitBy(t *testing.T, p admissionregistration.ValidatingAdmissionPolicy, namespace *v1.Namespace) admit {
	t.Helper()
	in := "default"
	if namespace != nil {
		in = namespace.Name
	}
	compiler, err := plugin.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		t.Fatal(err)
	}
	none := plugin.OptionalVariableDeclarations{}
	var variables []plugin.NamedExpressionAccessor
	for _, variable := range p.Spec.Variables {
		variables = append(variables, expression{variable.Name, variable.Expression, []*cel.Type{cel.AnyType, cel.DynType}})
	}
	compiler.CompileAndStoreVariables(variables, none, environment.StoredExpressions)
	var conditions, validations, messages []plugin.ExpressionAccessor
	for _, condition := range p.Spec.MatchConditions {
		conditions = append(conditions, expression{condition.Name, condition.Expression, []*cel.Type{cel.BoolType}})
	}
	for _, validation := range p.Spec.Validations {
		validations = append(validations, expression{"", validation.Expression, []*cel.Type{cel.BoolType}})
		if validation.MessageExpression == "" {
			validation.MessageExpression = fmt.Sprintf("r%q", validation.Message)
		}
		messages = append(messages, expression{"", validation.MessageExpression, []*cel.Type{cel.StringType}})
	}
	matches := compiler.CompileCondition(conditions, none, environment.StoredExpressions)
	checks := compiler.CompileCondition(validations, none, environment.StoredExpressions)
	texts := compiler.CompileCondition(messages, none, environment.StoredExpressions)
	for _, err := range slices.Concat(matches.CompilationErrors(), checks.CompilationErrors(), texts.CompilationErrors()) {
		t.Fatal(err)
	}
	kind, resource := schema.GroupVersionKind{Version: "v1", Kind: "Service"}, schema.GroupVersionResource{Version: "v1", Resource: "services"}
	return func(old, object *v1.Service) (refused []string) {
		t.Helper()
		operation := admission.Create
		versioned := &admission.VersionedAttributes{VersionedObject: object, VersionedKind: kind}
		if old != nil {
			operation, versioned.VersionedOldObject = admission.Update, old
		}
		versioned.Attributes = admission.NewAttributesRecord(object, nil, kind, in, "web", resource, "", operation, nil, false, nil)
		request := plugin.CreateAdmissionRequest(versioned.Attributes, metav1.GroupVersionResource(resource), metav1.GroupVersionKind(kind))
		evaluate := func(all plugin.ConditionEvaluator) []plugin.EvaluationResult {
			results, _, err := all.ForInput(compiler.CreateContext(context.Background()), versioned, request, plugin.OptionalVariableBindings{}, namespace,
				celconfig.RuntimeCELCostBudget)
			if err != nil {
				t.Fatal(err)
			}
			return results
		}
		for _, result := range evaluate(matches) {
			if result.Error != nil {
				t.Fatal(result.Error)
			}
			if result.EvalResult.Value() != true {
				return nil
			}
		}
		for i, result := range evaluate(checks) {
			if result.Error != nil {
				refused = append(refused, result.Error.Error())
			} else if result.EvalResult.Value() != true {
				refused = append(refused, evaluate(texts)[i].EvalResult.Value().(string))
			}
		}
		return refused
	}
}

// The policy refuses what the controller refuses, but for what only the controller understands, and nothing else.
func TestAdmissionPolicy(t *testing.T) {
	admit := newAdmit(t)
	files, err := filepath.Glob("../testdata/features/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s := &v1.Service{}
		if err := yaml.UnmarshalStrict(text, s); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		wrong := name == "wrong-values" || name == "wrong-names"
		if refused := admit(nil, s); (len(refused) > 0) != wrong {
			t.Errorf("%s: refused %v, want %v: %s", name, !wrong, wrong, strings.Join(refused, "; "))
		}
	}
	for _, setting := range Table {
		s := example.Annotated(example.Service("http 80 30080", "https 443 30443", "ssh 22 30022"), setting.Name, setting.Example)
		s.Spec.Type = v1.ServiceTypeLoadBalancer
		if refused := admit(nil, s); len(refused) > 0 {
			t.Errorf("the example of %s: %q", setting.Name, refused)
		}
		values := []string{"no such thing: ;", "http=no such thing;", "-1", "99999999", "nobody=tcp; http=tcp", "", "256.0.0.1", "94.237.0.01",
			"10.0.0.255", "ccm_id=x", "_id=x", "c=x", "cc=x", "ccm=x", "ccmx=x", "ccx_=x", "cx=", "xc=x"}
		for _, value := range values {
			example.Annotated(s, setting.Name, value)
			err := setting.apply(value, s, &Settings{Ports: emptyPorts(3)})
			if refused := admit(nil, s); setting.pattern != "" && (len(refused) > 0) != (err != nil) {
				t.Errorf("%s=%q: the policy says %q, the controller %v", setting.Name, value, refused, err)
			}
		}
	}
}

func TestAdmissionPolicyLeavesOthersAlone(t *testing.T) {
	admit := newAdmit(t)
	wrong := example.Annotated(example.Service("http 80 30080"), "mode", "udp")
	if refused := admit(nil, wrong); len(refused) != 1 || !strings.Contains(refused[0], "mode: want tcp or http") {
		t.Errorf("refused: %q", refused)
	}
	other := wrong.DeepCopy()
	other.Spec.Type = v1.ServiceTypeClusterIP
	if refused := admit(nil, other); len(refused) > 0 {
		t.Errorf("a Service of another type: %q", refused)
	}
	touched := wrong.DeepCopy()
	touched.Finalizers = []string{"x"}
	if refused := admit(wrong, touched); len(refused) > 0 {
		t.Errorf("a controller that writes a finalizer: %q", refused)
	}
	touched.Spec.Ports[0].Port = 81
	if refused := admit(wrong, touched); len(refused) != 1 {
		t.Errorf("a user who changes it: %q", refused)
	}
	going := wrong.DeepCopy()
	going.DeletionTimestamp = &metav1.Time{}
	touched = going.DeepCopy()
	touched.Annotations = map[string]string{AnnotationPrefix + "x": ""}
	if refused := admit(going, touched); len(refused) > 0 {
		t.Errorf("a Service that goes: %q", refused)
	}
}

// fieldsOf are the fields of an object as they are in JSON.
func fieldsOf(t *testing.T, object any) map[string]any {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}
