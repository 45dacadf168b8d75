package loadbalancer

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// copyOf makes a load balancer with another's labels.
func (a *account) copyOf(lb cloud.LoadBalancer, name string) cloud.LoadBalancer {
	a.t.Helper()
	var networks []cloud.LoadBalancerNetwork
	for _, network := range lb.Networks {
		networks = append(networks, cloud.LoadBalancerNetwork{Name: network.Name, Type: network.Type, Family: network.Family, ID: network.ID})
	}
	made, err := a.cloud.CreateLoadBalancer(a.t.Context(), cloud.LoadBalancer{Name: name, Zone: lb.Zone, Plan: lb.Plan, ConfiguredStatus: "started",
		Labels: lb.Labels, Networks: networks,
		Frontends: []cloud.Frontend{}, Backends: []cloud.Backend{}})
	if err != nil {
		a.t.Fatal(err)
	}
	return *made
}

// A load balancer was copied with its labels. Whatever is known of the Service's own, the copy stays, and an event tells of it: also if
// a copy of this program has to go on after the Service's own is gone.
func TestDeletionLeavesWhatOnlyHasTheServicesLabels(t *testing.T) {
	for name, change := range map[string]func(a *account, s *v1.Service, own, twin cloud.LoadBalancer){
		"as it is": func(*account, *v1.Service, cloud.LoadBalancer, cloud.LoadBalancer) {},
		"the annotation is lost": func(a *account, s *v1.Service, _, _ cloud.LoadBalancer) {
			a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationID) })
		},
		"renamed": func(a *account, _ *v1.Service, own, _ cloud.LoadBalancer) {
			if err := a.cloud.ModifyLoadBalancer(a.t.Context(), own.ID, cloud.LoadBalancerPatch{Name: "other"}); err != nil {
				a.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			l := a.balancers()
			s := a.addService(example.Service("http 80 30080"))
			a.ensure(l, s)
			own := a.only()
			twin := a.copyOf(own, "copy")
			change(a, s, own, twin)
			before := a.raw("/load-balancer/" + twin.ID)
			a.said()
			for deadline := time.Now().Add(time.Minute); ; {
				restarted := a.balancers()
				restarted.deleteWait = time.Millisecond
				err := restarted.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s))
				if err == nil {
					break
				}
				if !strings.Contains(err.Error(), "being deleted") || time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			if a.exists(own.ID) || !a.exists(twin.ID) {
				t.Fatalf("left are %+v, want %s alone", a.list(), twin.ID)
			}
			a.sameAs(before, twin.ID)
			if said := strings.Join(a.said(), "\n"); !strings.Contains(said, "SecondLoadBalancer Load balancer "+twin.ID) {
				t.Errorf("events: %s", said)
			}
		})
	}
}

// Nothing shows which of two is the Service's own: both stay, with an event for each.
func TestDeletionLeavesBothWhereNothingTellsThemApart(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	own := a.only()
	twin := a.copyOf(own, "copy")
	if err := a.cloud.ModifyLoadBalancer(t.Context(), own.ID, cloud.LoadBalancerPatch{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationID) })
	a.said()
	a.delete(l, s)
	if said := strings.Join(a.said(), "\n"); !a.exists(own.ID) || !a.exists(twin.ID) || strings.Count(said, "SecondLoadBalancer") != 2 {
		t.Errorf("left are %+v, events %s", a.list(), said)
	}
}
