package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded/boundedtest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// costOfSettings is what a Service may cost to read: a matcher of a rule takes ten times its text, as values and again as the
// API's form of them.
var costOfSettings = boundedtest.Cost{Bytes: 4 << 20, BytesPerByte: 1000, CPU: 2 * time.Second, CPUPerByte: 50 * time.Microsecond}

// readAsService does what each reconcile does before the first call of the API.
func readAsService(s *v1.Service) {
	parsed, _ := settings.Parse(s)
	settings.Problems(s)
	settings.Remarks(s, parsed)
	DesiredState(Input{Identity: NewIdentity("", "prod", s), Service: s, Settings: parsed, Targets: targets("a"), MaxMembers: 1,
		Networks: networksOfTests})
}

// size is how many bytes a Service has in what its user writes.
func size(s *v1.Service) int {
	n := 0
	for name, value := range s.Annotations {
		n += len(name) + len(value)
	}
	for _, one := range s.Spec.LoadBalancerSourceRanges {
		n += len(one)
	}
	return n + 100*len(s.Spec.Ports)
}

// Services of a size that Kubernetes stores cost memory and time in proportion to it.
func TestServiceOfLegalSizeCostsInProportion(t *testing.T) {
	level := "&l0 [" + example.Repeated(40, "x", ", ") + "]"
	for i := range 4 {
		level = fmt.Sprintf("&l%d [%s, %s]", i+1, level, example.Repeated(30, fmt.Sprintf("*l%d", i), ", "))
	}
	long := `[&a {host: a.example, path: "/` + strings.Repeat("x", 30000) + `"}` + strings.Repeat(", *a", 5000) + "]"
	missing := example.Repeated(99, `{"name":"r%d","actions":[{"type":"use_backend","action_use_backend":{"backend":"x"}}]}`, ",")
	backends := example.Repeated(100, `{"name":"`+strings.Repeat("b", 60)+`%d"}`, ",")
	manyRanges := example.Service(strings.Split(example.Repeated(90, "p%d 1%d 3%d", ","), ",")...)
	for i := range 4000 {
		manyRanges.Spec.LoadBalancerSourceRanges = append(manyRanges.Spec.LoadBalancerSourceRanges, fmt.Sprintf("10.%d.%d.0/25", i/250, i%250))
	}
	all := map[string]*v1.Service{
		"references within references": example.Annotated(example.Service("http 80 30080"), settings.SharedName, "create/web", settings.RoutesName, level),
		"references to a long text":    example.Annotated(example.Service("http 80 30080"), settings.SharedName, "create/web", settings.RoutesName, long),
		"a long list":                  example.Annotated(example.Service("http 80 30080"), "tls-hostnames", example.Repeated(40000, "a%d.b", ",")),
		"many wrong names":             example.Annotated(example.Service("http 80 30080"), strings.Split(example.Repeated(3000, "no-such-annotation-%d|", "|"), "|")...),
		"many mistakes": example.Annotated(example.Service("http 80 30080"), "config", `{"backends":[`+backends+`],"frontends":[`+
			example.Repeated(10, `{"name":"f%d","port":1%d,"default_backend":"http","rules":[`+missing+`]}`, ",")+`]}`),
		"many ranges": manyRanges,
	}
	for name, s := range example.TooLarge() {
		all[name] = s
	}
	for name, s := range all {
		t.Run(name, func(t *testing.T) { costOfSettings.Within(t, size(s), func() { readAsService(s) }) })
	}
}
