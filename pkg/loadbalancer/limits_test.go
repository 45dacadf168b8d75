package loadbalancer

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// A Service that is just beyond a limit is refused with what was found and what is allowed, whatever it costs is in proportion to
// its size, and its load balancer stays.
func TestServiceBeyondALimitIsRefused(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	before := example.JSON(t, a.only())
	for want, wrong := range example.TooLarge() {
		a.change(s, func(s *v1.Service) {
			id := s.Annotations[settings.AnnotationID]
			s.Spec, s.Annotations = wrong.Spec, map[string]string{settings.AnnotationID: id}
			for name, value := range wrong.Annotations {
				s.Annotations[name] = value
			}
		})
		a.said()
		_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %.2000v\nwant %s", err, want)
		}
		said := a.said()
		if len(said) == 0 || len(said) > 11 {
			t.Errorf("%s: %d events", want, len(said))
		}
		for _, event := range said {
			if len(event) > 1200 || !strings.Contains(event, "stays as it was") {
				t.Errorf("%s: event of %d bytes: %.300s", want, len(event), event)
			}
		}
		a.update(l, a.current(s)) // members are kept up to date meanwhile
		if after := example.JSON(t, a.only()); after != before {
			t.Fatalf("%s: the load balancer was changed: %s", want, after)
		}
	}
}
