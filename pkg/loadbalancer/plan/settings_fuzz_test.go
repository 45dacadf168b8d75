package plan

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// FuzzSettings: no annotation makes the program panic, and each is either understood or refused in words that fit an event, at a cost in
// proportion to its size.
func FuzzSettings(f *testing.F) {
	for i, setting := range settings.Table {
		f.Add(i, setting.Example, "{}", uint16(1))
		f.Add(i, setting.Example+",", "{}", uint16(500))
	}
	for _, text := range []string{"null", "", "[", "\x00", `{"frontends":[null]}`, `{"backends":[{},{"tls_configs":[{}]}]}`, "{matchLabels: {a: b}}",
		strings.Repeat("[", 5000), `{"frontends":[{"rules":[{"name":"r","actions":[{"type":1}]}]}]}`, "http=1;https", "*=;*=", "1e9", "-1", "99999999999999999999"} {
		f.Add(0, text, text, uint16(1))
		f.Add(12, text, text, uint16(700))
	}
	f.Fuzz(func(t *testing.T, which int, value, config string, times uint16) {
		if len(value)*int(times)+len(config) > 256<<10 {
			return
		}
		value = strings.Repeat(value, int(times))
		s := example.Service("http 80 30080", "https 443 30443")
		setting := settings.Table[(which%len(settings.Table)+len(settings.Table))%len(settings.Table)]
		s.Annotations = map[string]string{settings.AnnotationPrefix + setting.Name: value}
		if which%2 == 0 {
			s.Annotations[settings.AnnotationConfig] = config
		}
		s.Annotations[v1.AnnotationLoadBalancerSourceRangesKey] = value
		costOfSettings.Within(t, size(s), func() { readAsService(s) })
		delete(s.Annotations, v1.AnnotationLoadBalancerSourceRangesKey)
		asked, problems := settings.Parse(s)
		for _, problem := range problems {
			if len(problem.Message) > 1500 || !strings.Contains(problem.Message, "annotation") && !strings.Contains(problem.Message, "port") {
				t.Errorf("%d characters: %s", len(problem.Message), problem.Message)
			}
		}
		if len(problems) > 0 {
			return
		}
		d := DesiredState(Input{Identity: NewIdentity("", "prod", s), Service: s, Settings: asked, Targets: targets("a"), MaxMembers: 1, Networks: networksOfTests})
		lb := made(t, d)
		if changes := Diff(d, lb, SessionLimits{Fresh: 1000}); slices.ContainsFunc(changes, func(c Change) bool { return c.ModifyBackend != nil || c.ReplaceRule != nil }) {
			t.Errorf("a new load balancer is not as it was asked for: %s", texts(changes))
		}
	})
}
