package loadbalancer

import (
	"net/http"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// shownHosts are the host names of the certificates on a shared load balancer, by its frontends.
func (a *account) shownHosts(id string) []string {
	a.t.Helper()
	lb, err := a.cloud.LoadBalancer(a.t.Context(), id)
	if err != nil {
		a.t.Fatal(err)
	}
	var hosts []string
	for _, frontend := range lb.Frontends {
		for _, config := range frontend.TLSConfigs {
			bundle, err := a.cloud.CertificateBundle(a.t.Context(), config.BundleID)
			if err != nil {
				a.t.Fatal(err)
			}
			hosts = append(hosts, bundle.Hostnames...)
		}
	}
	return hosts
}

func (a *account) manualBundle(name, host string) string {
	a.t.Helper()
	certificate, key := newCertificate(a.t, host)
	made, err := a.cloud.CreateCertificateBundle(a.t.Context(), cloud.CertificateBundle{
		Name: name, Type: cloud.BundleManual, Certificate: certificate, PrivateKey: key, Labels: cloud.Labels{},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return made.ID
}

// The hosts of sharedLoadBalancers bound certificates as they bound routes, wherever a certificate comes from.
func TestCertificateForOtherHostsIsRefusedOnSharedLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	edge := a.foreign("edge")
	a.setSecret("mine", "saas.example")
	a.setSecret("theirs", "bank.example")
	a.setSecret("wide", "*.example")
	theirs := a.manualBundle("theirs", "bank.example")
	followed := a.addService(example.Annotated(serviceIn("default", "followed", "https 443 30999"), "mode", "http", "tls-secret", "mine"))
	a.ensure(a.balancers(), followed)
	foreign := ""
	for _, bundle := range a.bundles() {
		if bundle.Labels[settings.LabelServiceUID] == string(followed.UID) {
			foreign = bundle.ID
		}
	}
	l := a.balancers(func(c *Config) {
		c.Shared = []settings.SharedAccess{{LoadBalancer: "edge", Namespaces: []string{"default"}, Hosts: []string{"saas.example", "*.saas.example"}}}
	})
	const routes = `[{host: saas.example, path: /}]`
	for _, test := range []struct{ name, annotation, value, said string }{
		{"another's Secret", "tls-secret", "theirs", "Secret default/theirs is for bank.example"},
		{"wider wildcard", "tls-secret", "mine,wide", "Secret default/wide is for *.example"},
		{"another's bundle", "tls-bundle", theirs, "certificate bundle " + theirs + " is for bank.example"},
		{"another Service's bundle", "tls-bundle", foreign, "was made for another Service"},
		{"another's host name", "tls-hostnames", "saas.example,bank.example", "tls-hostnames is for bank.example"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := a.addService(routing("web", "edge", routes, test.annotation, test.value))
			_, text := a.fails(l, s)
			if !strings.Contains(text, test.said) || !strings.Contains(text, "allows saas.example, *.saas.example") {
				t.Errorf("error %q, want %q in it", text, test.said)
			}
			if said := strings.Join(a.said(), "\n"); !strings.Contains(said, "CertificateDenied") {
				t.Errorf("events: %s", said)
			}
			if hosts := a.shownHosts(edge.ID); len(hosts) > 0 {
				t.Errorf("certificates are presented for %v", hosts)
			}
			a.delete(l, s)
			if err := a.client.Tracker().Delete(servicesResource, s.Namespace, s.Name); err != nil {
				t.Fatal(err)
			}
		})
	}
	ok := a.addService(routing("ok", "edge", routes, "tls-secret", "mine", "tls-hostnames", "www.saas.example,*.a.saas.example"))
	a.ensure(l, ok)
	if hosts := a.shownHosts(edge.ID); len(hosts) != 3 {
		t.Errorf("certificates are presented for %v", hosts)
	}
}

// A Secret that comes to be for other hosts is not uploaded, and what is presented stays. Hosts that are no longer allowed are taken off.
func TestCertificateThatBecomesTooWideIsNotUploaded(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	edge := a.foreign("edge")
	a.setSecret("mine", "saas.example")
	hosts := func(names ...string) func(*Config) {
		return func(c *Config) { c.Shared = []settings.SharedAccess{{LoadBalancer: "edge", Hosts: names}} }
	}
	l := a.balancers(hosts("saas.example"))
	s := a.addService(routing("web", "edge", `[{host: saas.example, path: /}]`, "tls-secret", "mine"))
	a.ensure(l, s)
	a.setSecret("mine", "bank.example")
	_, _ = a.fails(l, s)
	if got := a.shownHosts(edge.ID); len(got) != 1 || got[0] != "saas.example" {
		t.Errorf("certificates are presented for %v", got)
	}
	a.setSecret("mine", "saas.example")
	a.change(s, func(s *v1.Service) { example.Annotated(s, "tls-hostnames", "www.saas.example") })
	l = a.balancers(hosts("saas.example", "www.saas.example"))
	a.ensure(l, s)
	l = a.balancers(hosts("saas.example"))
	_, _ = a.fails(l, s)
	if got := a.shownHosts(edge.ID); len(got) != 1 || got[0] != "saas.example" {
		t.Errorf("certificates are presented for %v after www.saas.example was taken from the configuration", got)
	}
	if got := routesOf(a.byName("edge"), "ccm-80"); got == "" {
		t.Error("the routes are gone, too")
	}
}

// A load balancer of a Service's own cannot take the name of a shared one, nor be joined by it.
func TestNameOfSharedLoadBalancerCannotBeSquatted(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(func(c *Config) {
		c.Shared = []settings.SharedAccess{{LoadBalancer: "edge"}, {LoadBalancer: "create/team"}, {LoadBalancer: "prod-default-web"}}
	})
	for _, s := range []*v1.Service{
		example.Annotated(serviceIn("evil", "one", "http 80 30080"), "config", `{"name":"edge"}`),
		example.Annotated(serviceIn("evil", "two", "http 80 30081"), "config", `{"NAME":"team"}`),
		serviceIn("default", "web", "http 80 30082"),
	} {
		if _, text := a.fails(l, a.addService(s)); !strings.Contains(text, "which is the name of a shared one") {
			t.Errorf("%s: %s", s.Name, text)
		}
	}
	if all := a.list(); len(all) > 0 {
		t.Fatalf("load balancers: %+v", all)
	}
	// One that has the name since before, or of another cluster.
	before := a.addService(example.Annotated(serviceIn("evil", "before", "http 80 30083"), "config", `{"name":"edge"}`))
	old := a.balancers()
	a.ensure(old, before)
	joiner := a.addService(sharingService("joiner", "edge", []string{"ssh 22 30022"}))
	if _, text := a.fails(l, joiner); !strings.Contains(text, "was made for one Service (prod-evil-before)") {
		t.Error(text)
	}
	// retain leaves it in the account, where its name must not make it a shared one either.
	a.change(before, func(s *v1.Service) { example.Annotated(s, "retain", "true") })
	a.delete(old, before)
	if _, text := a.fails(l, joiner); !strings.Contains(text, "was made for one Service") {
		t.Error(text)
	}
	if got := summary(a.only()); strings.Contains(got, "ccm-22") {
		t.Errorf("joined: %s", got)
	}
	byID := a.balancers(func(c *Config) { c.Shared = []settings.SharedAccess{{LoadBalancer: a.only().ID}} })
	named := a.addService(sharingService("named", a.only().ID, []string{"ssh 22 30022"}))
	a.ensure(byID, named) // the operator's word
}

// The deletion of a Service leaves what other Services have on its load balancer.
func TestDeletionOfServiceLeavesOthersOnItsLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	owner := a.addService(example.Annotated(serviceIn("evil", "owner", "http 80 30080"), "config", `{"name":"edge"}`))
	a.ensure(l, owner)
	lb := a.only()
	label := lb.Labels[settings.LabelServiceUID]
	// Another Service joined it with a version of this program that did not look whose it is.
	a.Do(t, http.MethodPost, "/load-balancer/"+lb.ID+"/labels", `{"key":"`+settings.LabelSharedGroup+`","value":"edge"}`, nil)
	joiner := a.addService(sharingService("joiner", "create/edge", []string{"ssh 22 30022"}))
	a.ensure(l, joiner)
	a.Do(t, http.MethodDelete, "/load-balancer/"+lb.ID+"/labels/"+settings.LabelSharedGroup, "", nil)
	if a.only().Labels[settings.LabelServiceUID] != label {
		t.Fatal("it is no longer the owner's")
	}
	a.said()

	a.delete(l, owner)
	left := a.only()
	if got := summary(left); !strings.Contains(got, "frontend ccm-22") || strings.Contains(got, "frontend http") || left.Name != "edge" {
		t.Errorf("left: %s %s", left.Name, got)
	}
	if said := strings.Join(a.said(), "\n"); !strings.Contains(said, "default/joiner") {
		t.Errorf("events: %s", said)
	}
	if _, owned := left.Labels[settings.LabelServiceUID]; owned {
		t.Errorf("labels: %v", left.Labels)
	}
	if _, exists, err := l.GetLoadBalancer(t.Context(), "prod", a.current(owner)); exists || err != nil {
		t.Errorf("exists %v, %v: the Service would never go", exists, err)
	}
}
