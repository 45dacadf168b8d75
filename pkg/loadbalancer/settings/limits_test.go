package settings

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
)

// The admission policy refuses at apply what it can tell without reading YAML or JSON, and nothing that looks like it.
func TestAdmissionPolicyRefusesWhatIsTooLarge(t *testing.T) {
	admit := newAdmit(t)
	for want, s := range example.TooLarge() {
		s.Spec.Type = v1.ServiceTypeLoadBalancer
		unseen := strings.Contains(want, "too many values: 1001") || strings.Contains(want, "nested too deeply") || strings.Contains(want, "config: ") ||
			strings.Contains(want, "ask for") || strings.Contains(want, "anchor &l") || strings.Contains(want, "anchor &h")
		if refused := admit(nil, s); (len(refused) == 0) != unseen {
			t.Errorf("%s: refused %q", want, refused)
		}
	}
	for _, routes := range []string{`[{host: "*.a.example", path: /a&b}]`, `[{path: "/a,&b"}]`, `[{path: "/*"}]`} {
		s := example.Annotated(example.Service("http 80 30080"), SharedName, "create/web", RoutesName, routes)
		_, problems := Parse(s)
		if refused := admit(nil, s); len(refused)+len(problems) > 0 {
			t.Errorf("%s: refused %q %v", routes, refused, problems)
		}
	}
	largest := example.Annotated(example.Service("http 80 30080"), SharedName, "create/web", RoutesName, "[{path: /}] #"+strings.Repeat(" x", (64<<10-13)/2))
	if refused := admit(nil, largest); len(refused) > 0 {
		t.Errorf("the largest value that is allowed: %q", refused)
	}
}
