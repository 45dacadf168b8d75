package loadbalancer

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const (
	partsOfOne = "public-http: 1 rules, 0 certificates; 1 backends"
	noParts    = "public-http: 0 rules, 0 certificates; 0 backends"
)

// permitting is a controller, as if started now, whose configuration permits load balancers of these names.
func (a *account) permitting(policy *tenants.Config, names ...string) *LoadBalancers {
	return a.balancers(func(c *Config) {
		c.Tenants = policy
		for _, name := range names {
			c.Shared = append(c.Shared, settings.SharedAccess{LoadBalancer: name, Namespaces: []string{"default"}, Hosts: []string{"saas.example"}})
		}
	})
}

// A load balancer that an entry permits by its former name keeps what Services have there; one that no entry permits any more does not.
func TestRenamedLoadBalancerKeepsItsServices(t *testing.T) {
	policy := &tenants.Config{}
	for _, test := range []struct {
		name    string
		change  func(a *account, s *v1.Service)
		policy  *tenants.Config
		entries []string
		keeps   bool
		says    string
	}{
		{name: "the entry has the former name", entries: []string{"edge"}, keeps: true, says: `"edge" is now called "front"`},
		{name: "beside entries of others", entries: []string{"other", "edge"}, keeps: true, says: `"edge" is now called "front"`},
		{name: "named by its new name", entries: []string{"edge"}, keeps: true, says: `"edge" is now called "front"`,
			change: func(a *account, s *v1.Service) {
				a.change(s, func(s *v1.Service) { s.Annotations[settings.AnnotationPrefix+settings.SharedName] = "front" })
			}},
		{name: "the former name is not known", entries: []string{"other", "edge"}, keeps: true, says: "may have been called other or edge",
			change: func(a *account, s *v1.Service) {
				a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationName) })
			}},
		{name: "another one has the former name", entries: []string{"edge"}, keeps: true, says: `"edge" is now called "front"`,
			change: func(a *account, _ *v1.Service) { a.foreign("edge") }},
		{name: "with tenants", policy: policy, entries: []string{"edge"}, keeps: true, says: `"edge" is now called "front"`},
		{name: "with tenants, another one has the former name", policy: policy, entries: []string{"edge"}, says: "SharingDenied",
			change: func(a *account, _ *v1.Service) { a.foreign("edge") }},
		{name: "the entry was removed", says: "SharingDenied"},
		{name: "the entry was removed, others are there", entries: []string{"other"}, says: "SharingDenied"},
		{name: "the former name is not known, and no entry is without a load balancer", entries: []string{"other"}, says: "SharingDenied",
			change: func(a *account, s *v1.Service) {
				a.foreign("other")
				a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationName) })
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			made := a.foreign("edge")
			s := a.addService(sharingService("api", made.ID, []string{"http 8080 30880"}, settings.RoutesName, `[{host: saas.example, path: /api}]`,
				settings.HubFrontendName, "public-http"))
			a.ensure(a.permitting(test.policy, "edge"), s)
			a.Do(t, http.MethodPatch, "/load-balancer/"+made.ID, `{"name":"front"}`, nil)
			if test.change != nil {
				test.change(a, s)
			}
			l := a.permitting(test.policy, test.entries...)
			a.said()
			a.ResetRequests()
			for range 2 {
				_, _ = l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
			}
			if got := ownParts(a.byName("front")); (got == partsOfOne) != test.keeps || (got == noParts) == test.keeps {
				t.Errorf("left: %s, want it kept: %v", got, test.keeps)
			}
			if writes := a.writes(); test.keeps && len(writes) > 0 {
				t.Errorf("written: %v", writes)
			}
			if said := a.said(); len(said) != 1 || !strings.Contains(said[0], test.says) {
				t.Errorf("events: %v, want one with %s", said, test.says)
			}
		})
	}
}

// On a load balancer that was renamed, a Service gets nothing new, members follow, the operator's entry helps, and the Service can go.
func TestServiceOnARenamedLoadBalancer(t *testing.T) {
	for _, way := range []string{"the entry is changed", "the Service is deleted", "the annotation is removed"} {
		t.Run(way, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			made := a.foreign("edge")
			l := a.permitting(nil, "edge")
			s := a.addService(sharingService("api", made.ID, []string{"http 8080 30880"}, settings.RoutesName, `[{host: saas.example, path: /api}]`,
				settings.HubFrontendName, "public-http"))
			a.ensure(l, s)
			a.Do(t, http.MethodPatch, "/load-balancer/"+made.ID, `{"name":"front"}`, nil)
			a.change(s, func(s *v1.Service) {
				s.Annotations[settings.AnnotationPrefix+settings.RoutesName] = `[{host: saas.example, path: /api}, {host: saas.example, path: /new}]`
			})
			_, _ = a.fails(l, s)
			a.addNode("n2")
			a.update(l, a.current(s))
			lb := a.byName("front")
			if got := ownParts(lb); got != partsOfOne {
				t.Errorf("left: %s", got)
			}
			own := slices.IndexFunc(lb.Backends, func(b cloud.Backend) bool { return b.Name != "theirs" })
			if got := len(lb.Backends[own].Members); got != 2 {
				t.Errorf("%d members", got)
			}
			condition := meta.FindStatusCondition(a.current(s).Status.Conditions, ConditionReady)
			if condition == nil || condition.Reason != reasonRenamed || !strings.Contains(condition.Message, made.ID) {
				t.Errorf("condition %+v", condition)
			}
			switch way {
			case "the entry is changed":
				l = a.permitting(nil, "front")
				a.ensure(l, s)
				if got := ownParts(a.byName("front")); !strings.Contains(got, "2 rules") {
					t.Errorf("after the entry was changed: %s", got)
				}
				if got := a.current(s).Annotations[settings.AnnotationName]; got != "front" {
					t.Errorf("recorded name %s", got)
				}
				return
			case "the Service is deleted":
				a.delete(l, s)
			default:
				a.change(s, func(s *v1.Service) {
					for _, name := range []string{settings.SharedName, settings.RoutesName, settings.HubFrontendName} {
						delete(s.Annotations, settings.AnnotationPrefix+name)
					}
				})
				a.ensure(l, s)
			}
			if got := ownParts(a.byName("front")); got != noParts {
				t.Errorf("left: %s", got)
			}
		})
	}
}
