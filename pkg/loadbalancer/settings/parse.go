package settings

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// AnnotationPrefix begins every annotation of ours on a Service; that of UpCloud's own CCM.
const AnnotationPrefix = "service.beta.kubernetes.io/upcloud-load-balancer-"

// Annotations on a Service that are not settings, as UpCloud's own CCM has them. Settings are in Table.
const (
	// AnnotationID is written when a load balancer was made: its UUID. It saves the search, and is believed only when the
	// labels of that load balancer prove it to be the Service's: an annotation is easily copied or restored with a Service.
	AnnotationID = AnnotationPrefix + "id"
	// AnnotationName is written when a load balancer was made, or a Service joined one: its name. It is read only to know the former name
	// of a shared load balancer that was renamed.
	AnnotationName = AnnotationPrefix + "name"
	// AnnotationConfig holds a load balancer's configuration as JSON: what the API takes to make one. It wins over the
	// annotations in Table, field by field.
	AnnotationConfig = AnnotationPrefix + "config"
	// AnnotationNodeSelector selects the nodes that become members: one of those in Table.
	AnnotationNodeSelector = AnnotationPrefix + NodeSelectorName
)

// Labels on a load balancer.
const (
	// LabelClusterID is the cluster's ID, if it has one.
	LabelClusterID = "ccm_cluster_id"
	// LabelClusterName is the cluster's name.
	LabelClusterName = "ccm_cluster_name"
	// LabelClusterUID is the UID of the cluster's namespace kube-system: which cluster made it, also where several have one name or
	// one ID. Nothing is looked up by it.
	LabelClusterUID = "ccm_cluster_uid"
	// LabelNamespace is on what is made for a Service of a cluster with tenants: the Service's namespace. It stays on what outlives the
	// Service, so that what a namespace has in the account can be counted, whatever Kubernetes shows of it.
	LabelNamespace = "ccm_namespace"
	// LabelGeneratedName is the name that follows from the Service, whatever the load balancer is called now.
	LabelGeneratedName = "ccm_generated_name"
	// LabelTrafficPolicy is the Service's externalTrafficPolicy.
	LabelTrafficPolicy = "ccm_external_traffic_policy"
	// LabelServiceUID is the Service's UID: the proof that a load balancer is this Service's, and the way to find it.
	// UpCloud's own CCM does not set it; it is added to the load balancers taken over.
	LabelServiceUID = "ccm_service_uid"
	// LabelRetainedFor is on a load balancer that the annotation retain left in the account: namespace and name of its Service. Services of
	// that namespace may take it as their own.
	LabelRetainedFor = "ccm_retained_for"
	// LabelComponents holds the notes: digests of the names of the components, and of the settings, that were made for the
	// Service, so that what is no longer wanted can be told from what somebody else added.
	LabelComponents = "ccm_components"
)

// Problem is why a Service cannot have a load balancer as it is.
type Problem struct {
	Reason  string // of the event
	Message string // names the field, its value and the remedy
}

// Parse reads the annotations of a Service. Problems are mistakes in them; nothing must be done for a Service that
// has any.
func Parse(service *v1.Service) (*Settings, []Problem) {
	all := &Settings{}
	for _, port := range service.Spec.Ports {
		all.Ports = append(all.Ports, newPort(port))
	}
	if problem := tooManyPorts(service); problem != nil {
		return all, []Problem{*problem}
	}
	problems := unknownAnnotations(service)
	for _, setting := range Table {
		value, given := service.Annotations[AnnotationPrefix+setting.Name]
		if !given {
			continue
		}
		err := setting.checkSize(value)
		if err == nil {
			err = setting.apply(strings.TrimSpace(value), service, all)
		}
		if err != nil {
			problems = append(problems, InvalidAnnotation(setting.Name, value, err.Error()))
		}
	}
	for i := range all.Ports {
		problems = append(problems, all.Ports[i].combine()...)
	}
	if text, given := service.Annotations[AnnotationConfig]; given {
		config, err := parseOverlay(text)
		if err == nil {
			err = config.applyTo(all)
		}
		if err != nil {
			problems = append(problems, Problem{"InvalidAnnotation", fmt.Sprintf("annotation %s: %s", AnnotationConfig, err)})
		}
	}
	if len(problems) == 0 {
		problems = all.check(service)
	}
	return all, fewProblems(problems)
}

// checkSize refuses a value that is too large to be read. Documents have limits of their own.
func (s Setting) checkSize(value string) error {
	if s.document != nil {
		return bounded.Text(value, s.document.Bytes)
	}
	return bounded.Text(value, maxAnnotation)
}

// newPort is a port for which nothing is asked for.
func newPort(port v1.ServicePort) PortSettings {
	return PortSettings{
		Name: PortName(port), FrontendName: PortName(port), servicePort: int(port.Port), unserved: !IsTCP(port),
		Frontend: cloud.Properties{}, Backend: cloud.Properties{},
	}
}

// isAnnotation says whether there is an annotation of that name, which has no prefix.
func isAnnotation(name string) bool {
	key := AnnotationPrefix + name
	return key == AnnotationID || key == AnnotationName || key == AnnotationConfig ||
		slices.ContainsFunc(Table, func(s Setting) bool { return s.Name == name })
}

// InvalidAnnotation is the problem of an annotation whose value cannot be used. name has no prefix; why says what is wanted instead.
func InvalidAnnotation(name, value, why string) Problem {
	return Problem{"InvalidAnnotation", fmt.Sprintf("annotation %s%s=%s: %s", AnnotationPrefix, name, Abbreviated(value), why)}
}

// unknownAnnotations are those with our prefix that there are not: a slip of the pen in visibility must not publish what was
// to be private.
func unknownAnnotations(service *v1.Service) []Problem {
	var problems []Problem
	for _, key := range slices.Sorted(maps.Keys(service.Annotations)) {
		name, ours := strings.CutPrefix(key, AnnotationPrefix)
		if len(problems) > maxProblems {
			break // enough to say that there are more
		}
		if ours && !isAnnotation(name) {
			problems = append(problems, Problem{"InvalidAnnotation", fmt.Sprintf("annotation %s does not exist: remove it, or "+
				"correct its name (the nearest is %s%s)", Abbreviated(key), AnnotationPrefix, nearest(name))})
		}
	}
	return problems
}

// nearest is the name in the table that takes the fewest changes of a letter.
func nearest(name string) string {
	name = Cut(name, MaxName)
	best, least := "", 0
	for _, setting := range Table {
		if d := distance(name, setting.Name); best == "" || d < least {
			best, least = setting.Name, d
		}
	}
	return best
}

// distance is the edit distance of two texts.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := before
			if a[i] != b[j] {
				replaced++
			}
			before, row[j+1] = row[j+1], min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// apply reads the annotation's value and sets what it says.
func (s Setting) apply(value string, service *v1.Service, all *Settings) error {
	if !s.PerPort {
		set, err := s.read(value)
		if err != nil {
			return s.refused(err)
		}
		set(all, nil)
		return nil
	}
	values, err := perPort(value, service)
	if err != nil {
		return err
	}
	for _, one := range values {
		set, err := s.read(one.value)
		if err != nil {
			return s.refused(err)
		}
		for _, i := range one.ports {
			set(all, &all.Ports[i])
		}
	}
	return nil
}

func (s Setting) refused(err error) error {
	detail := ""
	if text := strings.TrimSuffix(strings.TrimSuffix(err.Error(), errNotAllowed.Error()), ": "); text != "" {
		detail = abbreviatedTo(mostDetail, text) + ": "
	}
	example := ""
	if s.PerPort {
		example = " (for single ports: PORT=VALUE; PORT=VALUE)"
	}
	return fmt.Errorf("%swant %s%s", detail, s.allowed, example)
}

// portValue is a value for some of the ports, told by their indexes.
type portValue struct {
	ports []int
	value string
}

// perPort takes a value apart: one for all ports, or PORT=VALUE with semicolons between, where PORT is a port's name or
// number, or * for all that are not named.
func perPort(text string, service *v1.Service) ([]portValue, error) {
	byName := map[string]int{}
	for i, port := range service.Spec.Ports {
		if _, known := byName[strconv.Itoa(int(port.Port))]; !known || IsTCP(port) {
			byName[strconv.Itoa(int(port.Port))] = i
		}
		byName[PortName(port)] = i
	}
	var every []int
	for i := range service.Spec.Ports {
		every = append(every, i)
	}
	parts := strings.Split(text, ";")
	known := func(part string) (port, value string, ok bool) {
		port, value, ok = strings.Cut(part, "=")
		port = strings.TrimSpace(port)
		if _, exists := byName[port]; !exists && port != "*" {
			ok = false
		}
		return port, strings.TrimSpace(value), ok
	}
	if !slices.ContainsFunc(parts, func(part string) bool { _, _, ok := known(part); return ok }) {
		return []portValue{{every, text}}, nil
	}
	var named, rest []portValue
	seen := map[int]bool{}
	for _, part := range parts {
		port, value, ok := known(part)
		if !ok {
			return nil, fmt.Errorf("%q names no port: want PORT=VALUE, with PORT one of %s or *", Abbreviated(strings.TrimSpace(part)),
				strings.Join(slices.Sorted(maps.Keys(byName)), ", "))
		}
		if port == "*" {
			rest = append(rest, portValue{every, value})
			continue
		}
		if i := byName[port]; seen[i] {
			return nil, fmt.Errorf("port %s has two values: leave out one", port)
		}
		seen[byName[port]] = true
		named = append(named, portValue{[]int{byName[port]}, value})
	}
	if len(rest) > 1 {
		return nil, fmt.Errorf("* has two values: leave out one")
	}
	return append(rest, named...), nil
}

// combine makes what several annotations say together.
func (p *PortSettings) combine() []Problem {
	for _, id := range p.tls.bundles {
		p.Certificates = append(p.Certificates, Certificate{Bundle: &cloud.TLSConfig{Name: "bundle-" + id, BundleID: id}})
	}
	for _, name := range p.tls.secrets {
		p.Certificates = append(p.Certificates, Certificate{Secret: name})
	}
	if len(p.tls.hostnames) > 0 {
		names := slices.Sorted(slices.Values(p.tls.hostnames))
		p.Certificates = append(p.Certificates, Certificate{Hostnames: names, KeyType: cmp.Or(p.tls.keyType, "ecdsa")})
	}
	for _, id := range p.tls.backend {
		p.BackendTLS = append(p.BackendTLS, cloud.TLSConfig{Name: "bundle-" + id, BundleID: id})
	}
	check := p.healthCheck
	if check == (healthCheckAnnotations{}) {
		return nil
	}
	url := cmp.Or(check.path, "/")
	if check.port != 0 {
		url = fmt.Sprintf("%s%d%s", LocalHealthCheckPrefix, check.port, check.path)
	}
	if p.Backend["health_check_type"] == "tcp" {
		return []Problem{{"InvalidAnnotation", fmt.Sprintf("annotation %shealth-check-type=tcp: port %s has a path or port to ask at, for "+
			"which the type must be http: remove one of them", AnnotationPrefix, p.Name)}}
	}
	p.Backend["health_check_type"], p.Backend["health_check_url"] = "http", url
	return nil
}
