package loadbalancer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// A slip in what a Service shares, or is no longer to have alone, must not cost it what it has: that goes once it is known that the
// Service can have the other.
func TestWhatAServiceHasStaysUntilItCanShare(t *testing.T) {
	for _, before := range []string{"", "create/one"} {
		for reference, reason := range map[string]string{
			"no-such-load-balancer": "NoSuchLoadBalancer", "edge": "SharingDenied", "create/edge": "choose another name",
			"create/closed": "SharingDenied", "create/taken": "PortConflict", "create/doomed": "about to be deleted",
		} {
			t.Run(before+" to "+reference, func(t *testing.T) {
				a := newAccount(t, simulator.Config{}, "n1", "n2")
				edge := a.foreign("edge").ID
				l := a.balancers(func(c *Config) {
					c.Shared = []settings.SharedAccess{{LoadBalancer: "create/closed", Namespaces: []string{"others"}}}
				})
				other := a.addService(sharingService("other", "create/taken", []string{"http 80 30081"}))
				a.ensure(l, other)
				was := a.addService(sharingService("was", "create/doomed", []string{"http 80 30082"}))
				a.ensure(l, was)
				doomed := a.current(was).Annotations[settings.AnnotationID]
				a.delete(l, was)
				mark := fmt.Sprintf("000000000000@%d", time.Now().Unix())
				if err := a.cloud.CreateLoadBalancerLabel(t.Context(), doomed, LabelDeleting, mark); err != nil {
					t.Fatal(err)
				}
				s := a.addService(example.Annotated(example.Service("http 80 30080"), settings.SharedName, before))
				if before == "" {
					a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationPrefix+settings.SharedName) })
				}
				a.ensure(l, s)
				id := a.current(s).Annotations[settings.AnnotationID]
				a.change(s, func(s *v1.Service) { example.Annotated(s, settings.SharedName, reference) })
				had := a.raw("/load-balancer/" + id)
				_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
				if err == nil || !strings.Contains(reasonOf(err)+err.Error(), reason) {
					t.Errorf("error %v, want %s", err, reason)
				}
				if diff := cmp.Diff(withoutTimes(had), withoutTimes(a.raw("/load-balancer/"+id))); diff != "" {
					t.Errorf("what the Service had: %s", diff)
				}
				a.nodes = a.nodes[:1]
				a.update(l, a.current(s))
				lb, err := a.cloud.LoadBalancer(t.Context(), id)
				if err != nil || len(lb.Backends) != 1 || len(lb.Backends[0].Members) != 1 {
					t.Errorf("after a node has gone: %v, %v", lb, err)
				}
				a.change(s, func(s *v1.Service) { example.Annotated(s, settings.SharedName, "create/two") })
				a.ensure(l, s)
				for _, lb := range a.list() {
					if lb.ID != edge && lb.Name != "two" && lb.Name != "taken" && len(lb.Frontends) > 0 {
						t.Errorf("left: %s", summary(lb))
					}
				}
			})
		}
	}
}

// The same the other way: what a Service shares stays until its own load balancer can be made.
func TestWhatAServiceSharesStaysUntilItsSecretIsThere(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := a.addService(sharingService("web", "create/one", []string{"https 443 30443"}))
	a.ensure(l, s)
	shared := a.only()
	a.change(s, func(s *v1.Service) {
		delete(s.Annotations, settings.AnnotationPrefix+settings.SharedName)
		example.Annotated(s, settings.TLSSecretName, "cert")
	})
	was := a.raw("/load-balancer/" + shared.ID)
	if _, text := a.fails(l, s); !strings.Contains(text, "Secret default/cert does not exist") {
		t.Error(text)
	}
	if diff := cmp.Diff(withoutTimes(was), withoutTimes(a.raw("/load-balancer/"+a.only().ID))); diff != "" {
		t.Errorf("what the Service had: %s", diff)
	}
	a.nodes = a.nodes[:1]
	a.update(l, a.current(s))
	if members := a.only().Backends[0].Members; len(members) != 1 {
		t.Errorf("after a node has gone: %v", members)
	}
	a.setSecret("cert", "www.example.com")
	a.ensure(l, s)
	for _, lb := range a.list() {
		if lb.ID == shared.ID && len(lb.Frontends)+len(lb.Backends) > 0 {
			t.Errorf("left: %s", summary(lb))
		}
	}
}

// A certificate that a Service no longer presents on what it shares goes, and one that it presents still stays.
func TestUnusedCertificatesOfSharedLoadBalancersGo(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("one", "one.example.com")
	a.setSecret("two", "two.example.com")
	s := a.addService(sharingService("web", "create/saas", []string{"https 443 30443"}, settings.TLSSecretName, "one, two"))
	other := a.addService(sharingService("other", "create/saas", []string{"https 8443 30444"}, settings.TLSSecretName, "one"))
	bundles := func() int {
		all, err := a.cloud.CertificateBundles(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for _, step := range []struct {
		secrets string
		want    int
	}{{"one, two", 3}, {"two", 2}, {"one", 2}, {"", 1}} {
		a.change(s, func(s *v1.Service) {
			example.Annotated(s, settings.TLSSecretName, step.secrets)
			if step.secrets == "" {
				delete(s.Annotations, settings.AnnotationPrefix+settings.TLSSecretName)
			}
		})
		a.ensure(l, s)
		a.ensure(l, other)
		if got := bundles(); got != step.want {
			t.Errorf("with %q: %d bundles, want %d", step.secrets, got, step.want)
		}
	}
	a.delete(l, s)
	a.delete(l, other)
	if got := bundles(); got > 0 {
		t.Errorf("left: %d bundles", got)
	}
}

// An address that cannot be had does not cost the load balancer the one that it has.
func TestFloatingAddressStaysUntilTheNextCanBeHad(t *testing.T) {
	for _, more := range []string{"", "production-small"} { // which has room for both
		a := newAccount(t, simulator.Config{}, "n1")
		l := a.balancers()
		address, next := a.floatingAddress(), a.floatingAddress()
		ordinary := a.nodes[0].Status.Addresses
		s := a.addService(example.Annotated(example.Service("http 80 30080"), "floating-ips", address))
		if more != "" {
			a.change(s, func(s *v1.Service) { example.Annotated(s, "plan", more) })
		}
		a.ensure(l, s)
		for _, wrong := range []string{"94.237.250.1", ordinary[len(ordinary)-1].Address} {
			a.change(s, func(s *v1.Service) { example.Annotated(s, "floating-ips", wrong) })
			a.said()
			_, text := a.fails(l, s)
			if said := a.said(); len(said) != 1 || !strings.Contains(said[0], "InvalidAnnotation") || !strings.Contains(said[0], wrong) ||
				!strings.Contains(text, wrong) {
				t.Errorf("%s: said %q, error %q", wrong, said, text)
			}
			if lb := a.only(); len(lb.Addresses) != 1 || lb.Addresses[0].Address != address {
				t.Errorf("with %s: %v", wrong, lb.Addresses)
			}
		}
		a.change(s, func(s *v1.Service) { example.Annotated(s, "floating-ips", next) })
		a.ensure(l, s)
		if lb := a.only(); len(lb.Addresses) != 1 || lb.Addresses[0].Address != next {
			t.Errorf("with %s: %v", next, lb.Addresses)
		}
		a.unchanged(l, s)
	}
}

// A slip in what was to save the load balancer does not lose it: it cannot be had back.
func TestLoadBalancerStaysDespiteASlip(t *testing.T) {
	for name, value := range map[string]string{"retain": "ture", "deletion-protection": "yes"} {
		a := newAccount(t, simulator.Config{}, "n1")
		l := a.balancers()
		s := a.addService(example.Service("http 80 30080"))
		a.ensure(l, s)
		a.change(s, func(s *v1.Service) { example.Annotated(s, name, value, "mode", "udp") })
		a.said()
		for range 2 {
			err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s))
			if err == nil || !strings.Contains(err.Error(), name+"="+value+": want true or false") || reasonOf(err) != "InvalidAnnotation" {
				t.Errorf("%s: error %v", name, err)
			}
		}
		if said := a.said(); len(said) != 1 || !strings.Contains(said[0], value) {
			t.Errorf("%s: said %q", name, said)
		}
		if lb := a.only(); lb.State.Deleting() {
			t.Errorf("%s: the load balancer is %s", name, lb.State)
		}
		a.change(s, func(s *v1.Service) { example.Annotated(s, name, "false") }) // no other mistake keeps it
		a.delete(l, s)
		if all := a.list(); len(all) > 0 {
			t.Errorf("%s: left: %s", name, summary(all[0]))
		}
	}
}

// A certificate bundle that the account does not have is told of, and nothing is changed for its sake.
func TestNoSuchCertificateBundle(t *testing.T) {
	const none = "0aded5c1-c7a3-498a-b9c8-a871611c47a2"
	asked := map[string][]string{
		"tls-bundle":         {"tls-bundle", "https=" + none},
		"backend-tls-bundle": {"backend-tls-bundle", "https=" + none, "backend-tls", "https=verify"},
		"config": {"config", `{"frontends":[{"name":"https","mode":"http","tls_configs":[{"name":"own","certificate_bundle_uuid":"` + none +
			`"}]}]}`},
	}
	for name, annotations := range asked {
		for _, shared := range []string{"", "create/one"} {
			if shared != "" && name == "config" {
				continue // is refused there
			}
			t.Run(name+" "+shared, func(t *testing.T) {
				a := newAccount(t, simulator.Config{}, "n1")
				l := a.balancers()
				s := a.addService(example.Service("http 80 30080", "https 443 30443"))
				if shared != "" {
					a.change(s, func(s *v1.Service) { example.Annotated(s, settings.SharedName, shared) })
				}
				a.ensure(l, s)
				id := a.only().ID
				before := a.raw("/load-balancer/" + id)
				a.change(s, func(s *v1.Service) { example.Annotated(example.Annotated(s, annotations...), "timeout-client", "77") })
				a.said()
				for range 2 {
					if _, text := a.fails(l, s); !strings.Contains(text, settings.AnnotationPrefix+name) || !strings.Contains(text, none) {
						t.Error(text)
					}
				}
				if said := a.said(); len(said) != 1 || !strings.Contains(said[0], "InvalidAnnotation") {
					t.Errorf("said %q", said)
				}
				if diff := cmp.Diff(withoutTimes(before), withoutTimes(a.raw("/load-balancer/"+id))); diff != "" {
					t.Errorf("the load balancer: %s", diff)
				}
			})
		}
	}
}
