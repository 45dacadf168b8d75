package loadbalancer

import (
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
)

// A Service whose certificate bundle another Service uses is deleted, and its bundle stays for as long as it is used.
func TestServiceIsDeletedWhileAnotherUsesItsCertificateBundle(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("www", "www.example.com")
	a.setSecret("old", "old.example.com")
	owner := a.addService(example.Annotated(serviceIn("default", "owner", "https 443 30443"), "mode", "http", "tls-secret", "www,old"))
	a.ensure(l, owner)
	shared := ""
	for _, bundle := range a.bundles() {
		if bundle.Hostnames[0] == "www.example.com" {
			shared = bundle.ID
		}
	}
	user := a.addService(example.Annotated(serviceIn("default", "user", "https 443 30444"), "mode", "http", "tls-bundle", shared))
	a.ensure(l, user)
	a.said()

	a.delete(l, owner)
	said := strings.Join(a.said(), "\n")
	if !strings.Contains(said, "CertificateInUse") || !strings.Contains(said, "prod-default-user") {
		t.Errorf("events: %s", said)
	}
	if left := a.bundle(); left.ID != shared {
		t.Errorf("bundle %s is left, want %s, which is used, and no other", left.ID, shared)
	}
	if lb := a.only(); lb.Name != "prod-default-user" {
		t.Errorf("load balancer %s is left", lb.Name)
	}
	a.delete(l, user)
	if left := a.bundle(); left.ID != shared {
		t.Errorf("the user's deletion deleted bundle %s, which it did not make", left.ID)
	}
}
