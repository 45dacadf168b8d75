package loadbalancer

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Most clusters are called kubernetes. Load balancers of groups that a namespace of another cluster made leave room for the namespace of that
// name here; those that are its own do not.
func TestGroupsOfAnotherClusterLeaveRoomForANamespace(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	policy := func(c *Config) {
		c.Tenants = &tenants.Config{Default: tenants.Limits{SharedLoadBalancers: []string{"create/*"}, MaxLoadBalancers: new(1)}}
	}
	for _, cluster := range []types.UID{"uid-b", "uid-a"} {
		a.client = fake.NewClientset()
		a.cluster(cluster)
		l := a.balancers(policy)
		a.ensure(l, a.addService(example.Annotated(serviceIn("team", "group", "http 80 30080"), "shared", "create/of-"+string(cluster))))
		more := a.addService(serviceIn("team", "more", "http 80 30081"))
		if _, err := l.EnsureLoadBalancer(t.Context(), "prod", more, a.nodes); reasonOf(err) != ReasonDenied {
			t.Errorf("in cluster %s one more than allowed: error %v", cluster, err)
		}
	}
}

// A group's load balancer stays, with its address, while no Service is on it. A Service that may not use it does not have it deleted by
// going, and keeps none from joining.
func TestServiceThatMayNotShareAGroupDoesNotDeleteIt(t *testing.T) {
	entry := []settings.SharedAccess{{LoadBalancer: "create/team", Namespaces: []string{"team"}}}
	for name, change := range map[string]func(*Config){
		"by an entry":   func(c *Config) { c.Shared = entry },
		"by the policy": func(c *Config) { c.Shared, c.Tenants = entry, &tenants.Config{} },
		"by policy alone": func(c *Config) {
			c.Tenants = &tenants.Config{Namespaces: []tenants.Entry{{Names: []string{"team"}, Limits: tenants.Limits{SharedLoadBalancers: []string{"create/team"}}}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			l := a.balancers(change)
			now := time.Now()
			l.now = func() time.Time { return now }
			team := a.addService(example.Annotated(serviceIn("team", "web", "http 80 30080"), "shared", "create/team"))
			a.ensure(l, team)
			group := a.only()
			a.vanish(l, team)
			before := a.raw("/load-balancer/" + group.ID)

			evil := a.addService(example.Annotated(serviceIn("evil", "web", "http 80 30081"), "shared", "create/team", "shared-deletion", "last"))
			if _, err := l.EnsureLoadBalancer(t.Context(), "prod", evil, a.nodes); err == nil {
				t.Fatal("it shares the load balancer")
			}
			evil = a.change(evil, func(s *v1.Service) { s.DeletionTimestamp = &metav1.Time{} })
			for range 3 {
				if _, exists, err := l.GetLoadBalancer(t.Context(), "prod", evil); exists || err != nil {
					t.Errorf("exists %v, error %v", exists, err)
				}
				if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", evil); err != nil {
					t.Errorf("deletion: %v", err)
				}
				a.sameAs(before, group.ID)
				now = now.Add(doomWait + time.Second)
			}
			if !a.exists(group.ID) {
				t.Error("it was deleted")
			}
		})
	}
}
