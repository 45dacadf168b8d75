package loadbalancer

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// A slip in what a Service shares, or is no longer to have alone, must not cost it what it has: that goes once it is known that the
// Service can have the other.
func TestWhatAServiceHasStaysUntilItCanShare(t *testing.T) {
	for _, before := range []string{"", "create/one"} {
		for reference, reason := range map[string]string{
			"no-such-load-balancer": "NoSuchLoadBalancer", "edge": "SharingDenied", "create/edge": "choose another name",
			"create/closed": "SharingDenied",
		} {
			t.Run(before+" to "+reference, func(t *testing.T) {
				a := newAccount(t, simulator.Config{}, "n1", "n2")
				edge := a.foreign("edge").ID
				l := a.balancers(func(c *Config) {
					c.Shared = []SharedAccess{{LoadBalancer: "create/closed", Namespaces: []string{"others"}}}
				})
				s := a.addService(annotated(service("http 80 30080"), sharedName, before))
				if before == "" {
					a.change(s, func(s *v1.Service) { delete(s.Annotations, AnnotationPrefix+sharedName) })
				}
				a.ensure(l, s)
				id := a.current(s).Annotations[AnnotationID]
				a.change(s, func(s *v1.Service) { annotated(s, sharedName, reference) })
				was := a.raw("/load-balancer/" + id)
				a.said()
				_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
				if err == nil || !strings.Contains(reasonOf(err)+err.Error(), reason) {
					t.Errorf("error %v, want %s", err, reason)
				}
				if diff := cmp.Diff(withoutTimes(was), withoutTimes(a.raw("/load-balancer/"+id))); diff != "" {
					t.Errorf("what the Service had: %s", diff)
				}
				a.nodes = a.nodes[:1]
				a.update(l, a.current(s))
				lb, err := a.cloud.LoadBalancer(t.Context(), id)
				if err != nil || len(lb.Backends) != 1 || len(lb.Backends[0].Members) != 1 {
					t.Errorf("after a node has gone: %v, %v", lb, err)
				}
				a.change(s, func(s *v1.Service) { annotated(s, sharedName, "create/two") })
				a.ensure(l, s)
				for _, lb := range a.list() {
					if lb.ID != edge && lb.Name != "two" && len(lb.Frontends) > 0 {
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
		delete(s.Annotations, AnnotationPrefix+sharedName)
		annotated(s, tlsSecretName, "cert")
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
	s := a.addService(sharingService("web", "create/saas", []string{"https 443 30443"}, tlsSecretName, "one, two"))
	other := a.addService(sharingService("other", "create/saas", []string{"https 8443 30444"}, tlsSecretName, "one"))
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
			annotated(s, tlsSecretName, step.secrets)
			if step.secrets == "" {
				delete(s.Annotations, AnnotationPrefix+tlsSecretName)
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
