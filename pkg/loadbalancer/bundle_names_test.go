package loadbalancer

import (
	"fmt"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// The name of a certificate for a load balancer's own name is cut, so that users of another namespace can have it first. Both Services are
// served, and what is made for each goes with it alone.
func TestNameOfACertificateThatAnotherHasKeepsNoServiceFromBeingServed(t *testing.T) {
	nameOf := func(namespace, name string) string {
		return plan.OwnBundleName(plan.NewIdentity(example.ClusterUUID, "prod", serviceIn(namespace, name)).Name)
	}
	want, taker := nameOf("production-team-a", "shop-frontend"), ""
	for i := 0; taker == "" && i < 1<<22; i++ {
		if name := fmt.Sprintf("shop-%d", i); nameOf("production-team-b", name) == want {
			taker = name
		}
	}
	if taker == "" {
		t.Fatal("no other Service gets that name")
	}
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(ofCluster(example.ClusterUUID), func(c *Config) { c.Tenants = &tenants.Config{} })
	first := a.addService(example.Annotated(serviceIn("production-team-b", taker, "https 443 30444"), "mode", "http"))
	a.ensure(l, first)
	second := a.addService(example.Annotated(serviceIn("production-team-a", "shop-frontend", "https 443 30443"), "mode", "http"))
	a.ensure(l, second)
	for _, one := range a.bundles() {
		if len(a.bundles()) != 2 || len(one.Hostnames) != 1 {
			t.Fatalf("certificate bundles: %+v", a.bundles())
		}
	}
	a.unchanged(l, second)
	a.ensure(a.balancers(ofCluster(example.ClusterUUID), func(c *Config) { c.Tenants = &tenants.Config{} }), second)
	if n := len(a.bundles()); n != 2 {
		t.Errorf("%d certificate bundles after a restart, want 2", n)
	}
	second = a.change(second, func(s *v1.Service) { example.Annotated(s, "mode", "tcp") })
	a.ensure(l, second)
	second = a.change(second, func(s *v1.Service) { example.Annotated(s, "mode", "http") })
	a.ensure(l, second)
	if n := len(a.bundles()); n != 2 {
		t.Errorf("%d certificate bundles after a change there and back, want 2", n)
	}
	a.vanish(l, first)
	left := a.bundles()
	if len(left) != 1 || !presents(new(a.only()), left[0].ID) {
		t.Errorf("certificate bundles: %+v", left)
	}
	a.vanish(l, second)
	if left := a.bundles(); len(left) != 0 {
		t.Errorf("certificate bundles are left: %+v", left)
	}
}
