package loadbalancer

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
)

// A node that joins is for those Services alone whose members change: one call to look, one for each backend, and no call for the
// others. UpCloud's own CCM writes every load balancer anew.
func TestNodeChangeCallsAreForChangedMembersAlone(t *testing.T) {
	const services = 12
	var names []string
	for n := range 20 {
		names = append(names, fmt.Sprintf("n%d", n))
	}
	a := newAccount(t, simulator.Config{}, names...)
	l := a.balancers(func(c *Config) { c.MaxMembers = 4 })
	var all []*v1.Service
	for n := range services {
		s := example.Service("http 80 30080", "https 443 30443")
		s.Name, s.UID = fmt.Sprintf("web-%d", n), types.UID(fmt.Sprintf("uid-%d", n))
		a.ensure(l, a.addService(s))
		all = append(all, a.current(s))
	}
	a.ResetRequests()
	for _, s := range all {
		a.ensure(l, s)
	}
	if requests := a.Requests(); requests.Total() != services || requests.Of("GET /load-balancer/{uuid}") != services {
		t.Errorf("reconciles of %d unchanged Services took %v", services, requests)
	}
	a.addNode("new")
	a.ResetRequests()
	a.update(l, all...)
	requests := a.Requests()
	changed := 0
	for _, lb := range a.list() {
		if strings.Contains(summary(lb), "new:") {
			changed++
		}
	}
	if changed == 0 || changed == services {
		t.Fatalf("the node is a member for %d of %d Services, which shows nothing", changed, services)
	}
	if requests.Of("GET /load-balancer/{uuid}") != changed || requests.Of("PATCH /load-balancer/{uuid}/backends/{backend}") != 2*changed ||
		requests.Total() != 3*changed {
		t.Errorf("%d Services have a new member, and the calls are %v", changed, requests)
	}
	a.ResetRequests()
	a.update(l, all...)
	if requests := a.Requests(); requests.Total() != 0 {
		t.Errorf("calls after that: %v", requests)
	}
}

func (a *account) update(l *LoadBalancers, all ...*v1.Service) {
	a.t.Helper()
	for _, s := range all {
		if err := l.UpdateLoadBalancer(a.t.Context(), "prod", s, a.nodes); err != nil {
			a.t.Fatal(err)
		}
	}
}

// What failed half-way is not taken for what was there before, also when that is what is wanted again.
func TestMembersHalfChangedAreLookedAtAgain(t *testing.T) {
	for name, change := range map[string]func(a *account, l *LoadBalancers, s *v1.Service) error{
		"by an update": func(a *account, l *LoadBalancers, s *v1.Service) error {
			return l.UpdateLoadBalancer(a.t.Context(), "prod", s, a.nodes)
		},
		"by a reconcile": func(a *account, l *LoadBalancers, s *v1.Service) error {
			_, err := l.EnsureLoadBalancer(a.t.Context(), "prod", s, a.nodes)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1", "n2")
			l := a.balancers()
			s := a.addService(example.Service("http 80 30080", "https 443 30443"))
			a.ensure(l, s)
			before := summary(a.only())
			a.addNode("n3")
			heal := a.Inject(simulator.Fault{Operation: "PATCH /load-balancer/{uuid}/backends/{backend}", Skip: 1, Status: http.StatusForbidden})
			if err := change(a, l, a.current(s)); err == nil {
				t.Fatal("the second backend cannot be changed, and no error")
			}
			heal()
			if after := summary(a.only()); after == before {
				t.Fatal("nothing was changed at all, which shows nothing")
			}
			a.nodes = a.nodes[:2]
			a.update(l, a.current(s))
			if after := summary(a.only()); after != before {
				t.Errorf("members are %s\nwant %s", after, before)
			}
		})
	}
}

// A change of the Service that came between is the next reconcile's, and what it leaves is what counts then.
func TestMembersOfANewLoadBalancerAreLookedAt(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	told := a.current(s)
	all := slices.Clone(a.nodes)
	a.Do(t, http.MethodDelete, "/load-balancer/"+a.only().ID, "", nil)
	a.eventually("no load balancer is left", func() string {
		if left := a.list(); len(left) > 0 {
			return string(left[0].State)
		}
		return ""
	})
	a.nodes = all[:1]
	a.ensure(l, s) // makes another, with one member
	a.nodes = all
	a.update(l, told) // as the controller has it still: with the annotation of the one that is gone
	a.update(l, a.current(s))
	if got := summary(a.only()); !strings.Contains(got, "n1:30080,n2:30080") {
		t.Errorf("members are %s", got)
	}
}

// The same of a shared load balancer.
func TestSharedNodeChangeCallsAreForChangedMembersAlone(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2", "n3", "n4", "n5", "n6")
	l := a.balancers(func(c *Config) { c.MaxMembers = 2 })
	var all []*v1.Service
	for n := range 12 {
		name := fmt.Sprintf("web-%d", n)
		s := a.addService(routing(name, "create/saas", "[{host: "+name+".example, path: /}]"))
		a.ensure(l, s)
		all = append(all, a.current(s))
	}
	a.ResetRequests()
	a.update(l, all...)
	if requests := a.Requests(); requests.Total() != 0 {
		t.Errorf("calls when nothing is new: %v", requests)
	}
	leaver := a.nodes[0]
	changed := strings.Count(summary(a.only()), leaver.Name+":")
	if changed == 0 || changed == len(all) {
		t.Fatalf("the node is a member for %d of %d Services, which shows nothing", changed, len(all))
	}
	a.nodes = a.nodes[1:]
	a.ResetRequests()
	a.update(l, all...)
	requests := a.Requests()
	if requests.Of("GET /load-balancer/{uuid}") != changed || requests.Of("PATCH /load-balancer/{uuid}/backends/{backend}") != changed {
		t.Errorf("%d Services lose a member, and the calls are %v", changed, requests)
	}
	if got := summary(a.only()); strings.Contains(got, leaver.Name+":") || strings.Count(got, ":30080") != 2*len(all) {
		t.Errorf("members:\n%s", got)
	}
}
