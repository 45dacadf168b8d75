package loadbalancer

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Terraform imports a load balancer with labels = {}, and takes the controller's labels off. The event says how the Service gets it back, and
// both ways do; an event on a Service that is deleted meanwhile says that the load balancer stays.
func TestLoadBalancerWhoseLabelsWereTakenOff(t *testing.T) {
	for _, remedy := range []string{"label", "adoption", "deletion"} {
		a := newAccount(t, simulator.Config{}, "n1")
		l := a.balancers()
		s := a.addService(example.Service("http 80 30080"))
		a.ensure(l, s)
		lb := a.only()
		for key := range lb.Labels {
			if err := a.cloud.DeleteLoadBalancerLabel(t.Context(), lb.ID, key); err != nil {
				t.Fatal(err)
			}
		}
		a.said()
		if _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err == nil || !strings.Contains(err.Error(), "upcloud-load-balancer-adopt: "+lb.ID) {
			t.Errorf("error %v", err)
		}
		said := strings.Join(a.said(), "\n")
		for _, want := range []string{"give it back the label ccm_service_uid=" + string(s.UID), "upcloud-load-balancer-adopt: " + lb.ID} {
			if !strings.Contains(said, want) {
				t.Errorf("events do not have %q: %s", want, said)
			}
		}
		switch remedy {
		case "label":
			if err := a.cloud.CreateLoadBalancerLabel(t.Context(), lb.ID, settings.LabelServiceUID, string(s.UID)); err != nil {
				t.Fatal(err)
			}
			a.ensure(l, s)
			a.isOwn(l, s, lb.ID)
		case "adoption":
			a.change(s, func(now *v1.Service) { example.Annotated(now, "adopt", lb.ID) })
			l = a.balancers(adoptable(settings.Adoptable{LoadBalancer: lb.ID}))
			a.ensure(l, s)
			a.isOwn(l, s, lb.ID)
		case "deletion":
			before := a.raw("/load-balancer/" + lb.ID)
			a.delete(l, s)
			a.sameAs(before, lb.ID)
			if said := strings.Join(a.said(), "\n"); !strings.Contains(said, "Left load balancer "+lb.ID) || strings.Contains(said, "ForeignLoadBalancer") {
				t.Errorf("events: %s", said)
			}
		}
	}
}
