package loadbalancer

import (
	"slices"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Routes are not added to a frontend that is another Service's port as a whole, though the annotation names it: they would take that Service's
// requests, and certificates beside them would be shown to its clients.
func TestRoutesAreNotAddedToAnothersPort(t *testing.T) {
	for _, secret := range []string{"", "evil"} {
		a := newAccount(t, simulator.Config{}, "n1")
		l := a.balancers()
		a.setSecret("bank", "bank.example")
		a.setSecret("evil", "evil.example")
		owner := a.addService(sharingService("bank", "create/group", []string{"https 443 30443"}, "mode", "http", "tls-secret", "bank"))
		a.ensure(l, owner)
		before := a.only()
		annotations := []string{"routes", `[{path: /}, {host: bank.example, path: /}]`, "frontend", "ccm-443"}
		if secret != "" {
			annotations = append(annotations, "tls-secret", secret)
		}
		evil := a.addService(sharingService("evil", "create/group", []string{"https 443 30444"}, annotations...))
		_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(evil), a.nodes)
		if reasonOf(err) != "PortConflict" {
			t.Errorf("error %v, want one with reason PortConflict", err)
		}
		at := slices.IndexFunc(a.only().Frontends, func(f cloud.Frontend) bool { return f.Name == "ccm-443" })
		if now := a.only().Frontends[at]; example.JSON(t, now.Rules) != example.JSON(t, before.Frontends[at].Rules) || len(now.TLSConfigs) != 1 {
			t.Errorf("the frontend has rules %+v and certificates %+v", now.Rules, now.TLSConfigs)
		}
		a.unchanged(l, owner)
	}
}
