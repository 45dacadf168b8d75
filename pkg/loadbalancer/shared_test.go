package loadbalancer

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// sharingService is a Service of some name that shares; the rest are names and values of annotations in turn.
func sharingService(name, reference string, ports []string, annotations ...string) *v1.Service {
	s := example.Service(ports...)
	s.ObjectMeta = metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name),
		Annotations: map[string]string{settings.AnnotationPrefix + settings.SharedName: reference}}
	for i := 0; i < len(annotations); i += 2 {
		s.Annotations[settings.AnnotationPrefix+annotations[i]] = annotations[i+1]
	}
	return s
}

func routing(name, reference, routes string, more ...string) *v1.Service {
	return sharingService(name, reference, []string{"http 80 30080"}, append([]string{settings.RoutesName, routes}, more...)...)
}

// foreign makes a load balancer as Terraform would, with a frontend of its own.
func (a *account) foreign(name string) cloud.LoadBalancer {
	a.t.Helper()
	var networks struct {
		Networks struct{ Network []struct{ UUID, Name string } }
	}
	a.Do(a.t, http.MethodGet, "/network?zone="+zone, "", &networks)
	private := ""
	for _, network := range networks.Networks.Network {
		if network.Name == "simulatortest" {
			private = network.UUID
		}
	}
	lb, err := a.cloud.CreateLoadBalancer(a.t.Context(), cloud.LoadBalancer{
		Name: name, Zone: zone, Plan: "production-small", ConfiguredStatus: "started", Labels: cloud.Labels{"made-by": "terraform"},
		Networks: []cloud.LoadBalancerNetwork{{Name: "out", Type: "public", Family: "IPv4"}, {Name: "in", Type: "private", Family: "IPv4", ID: private}},
		Backends: []cloud.Backend{{Name: "theirs", Members: []cloud.Member{}}},
		Frontends: []cloud.Frontend{{Name: "public-http", Mode: "http", Port: 8080, DefaultBackend: "theirs", Networks: []cloud.FrontendNetwork{{Name: "out"}},
			Rules: []cloud.Rule{{Name: "status", Priority: 80, Matchers: plan.RouteMatchers(settings.Route{Host: "saas.example", Path: "/status", PathType: settings.PathPrefix}),
				Actions: plan.RulesOf(settings.Route{Path: "/"}, "theirs", nil, nil)[0].Actions}}}},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return *lb
}

// routesOf is what the rules of a frontend do, in short.
func routesOf(lb cloud.LoadBalancer, frontend string) string {
	var all []string
	for _, f := range lb.Frontends {
		for _, rule := range f.Rules {
			if f.Name == frontend {
				_, backend := plan.RuleOwner(rule)
				all = append(all, fmt.Sprintf("%d %s", rule.Priority, backend))
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func (a *account) fails(l *LoadBalancers, s *v1.Service) (*api.RetryError, string) {
	a.t.Helper()
	_, err := l.EnsureLoadBalancer(a.t.Context(), "prod", a.current(s), a.nodes)
	var retry *api.RetryError
	if err == nil || !errors.As(err, &retry) {
		a.t.Fatalf("error %v, want one that is retried later", err)
	}
	return retry, err.Error()
}

// The story that sharing is for: two Services, of two clusters, behind one address.
func TestTwoClustersShareOneLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	x, y := a.balancers(func(c *Config) { c.ClusterName = "x" }), a.balancers(func(c *Config) { c.ClusterName = "y" })
	foo := a.addService(routing("foo", "create/saas", `[{host: saas.example, path: /foo}]`))
	bar := a.addService(routing("bar", "create/saas", `[{host: saas.example, path: /bar}]`))
	first, second := a.ensure(x, foo), a.ensure(y, bar)
	if diff := cmp.Diff(first, second); diff != "" || len(first.Ingress) == 0 {
		t.Errorf("two addresses: %s", diff)
	}
	lb := a.only()
	if want := example.Lines("70 "+a.backendOf(x, foo, 80), "70 "+a.backendOf(y, bar, 80)); routesOf(lb, "ccm-80") != sorted(want) {
		t.Errorf("routes:\n%s\nwant\n%s", routesOf(lb, "ccm-80"), want)
	}
	a.ResetRequests()
	a.ensure(x, foo)
	a.ensure(y, bar)
	if requests := a.Requests(); requests.Total() != 2 || requests.Of("GET /load-balancer/{uuid}") != 2 {
		t.Errorf("an unchanged reconcile each: %v", requests)
	}
	a.addNode("n3")
	a.ResetRequests()
	for l, s := range map[*LoadBalancers]*v1.Service{x: foo, y: bar} {
		if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.writes(); len(got) != 1 || a.Requests().Of("PATCH /load-balancer/{uuid}/backends/{backend}") != 2 {
		t.Errorf("a node that joins: %v", a.Requests())
	}
	a.delete(x, foo)
	if want := "70 " + a.backendOf(y, bar, 80); routesOf(a.only(), "ccm-80") != want {
		t.Errorf("routes:\n%s\nwant\n%s", routesOf(a.only(), "ccm-80"), want)
	}
	a.delete(y, bar)
	if lb := a.only(); len(lb.Frontends)+len(lb.Backends) > 0 {
		t.Errorf("left: %s", summary(lb))
	}
	if _, exists, err := y.GetLoadBalancer(t.Context(), "prod", a.current(bar)); exists || err != nil {
		t.Errorf("exists %v, %v", exists, err)
	}
}

func sorted(text string) string {
	all := strings.Split(text, "\n")
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func (a *account) backendOf(l *LoadBalancers, s *v1.Service, port int) string {
	return l.identity(a.t.Context(), "prod", s).SharedBackendName(s, port)
}

// What a person made stays byte for byte, whoever joins and leaves; and nobody joins who is not let.
func TestSharingWhatTerraformMade(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	made := a.foreign("edge")
	before := a.raw("/load-balancer/" + made.ID)
	l := a.balancers(func(c *Config) {
		c.Shared = []settings.SharedAccess{{LoadBalancer: made.ID, Namespaces: []string{"default"}, Ports: []int{80, 443, 8080}}}
	})
	denied := sharingService("denied", "edge", []string{"ssh 22 30022"})
	a.addService(denied)
	if _, text := a.fails(l, denied); !strings.Contains(text, "sharedLoadBalancers") {
		t.Error(text)
	}
	if said := a.said(); len(said) != 1 || !strings.Contains(said[0], "SharingDenied") {
		t.Errorf("events: %v", said)
	}
	web := a.addService(sharingService("web", made.ID, []string{"http 80 30080", "https 443 30443"}))
	api := a.addService(sharingService("api", "edge", []string{"http 8080 30880"}, settings.RoutesName, `[{host: saas.example, path: /api, rewrite: /}]`,
		settings.HubFrontendName, "public-http"))
	a.ensure(l, web)
	a.ensure(l, api)
	lb := a.only()
	if !strings.Contains(summary(lb), "frontend ccm-443 tcp :443") || !strings.Contains(routesOf(lb, "public-http"), a.backendOf(l, api, 8080)) {
		t.Errorf("%s\n%s", summary(lb), routesOf(lb, "public-http"))
	}
	for _, operation := range a.Requests().Operations() {
		if operation == "PATCH /load-balancer/{uuid}" || operation == "PUT /load-balancer/{uuid}" || operation == "DELETE /load-balancer/{uuid}" ||
			operation == "PATCH /load-balancer/{uuid}/frontends/{frontend}" || strings.Contains(operation, "/labels") {
			t.Errorf("a call on what is not ours: %s", operation)
		}
	}
	shadow := a.addService(sharingService("status", "edge", []string{"http 8080 30881"}, settings.RoutesName, `[{host: saas.example, path: /status}]`,
		settings.HubFrontendName, "public-http"))
	if _, text := a.fails(l, shadow); !strings.Contains(text, "belongs to rule status of frontend public-http") {
		t.Error(text)
	}
	for _, s := range []*v1.Service{web, api, shadow, denied} {
		a.delete(l, s)
	}
	if diff := cmp.Diff(withoutTimes(before), withoutTimes(a.raw("/load-balancer/"+made.ID))); diff != "" {
		t.Errorf("what Terraform made has changed: %s", diff)
	}
}

// withoutTimes leaves out what changes by itself.
func withoutTimes(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for key, inner := range v {
			if key != "updated_at" && key != "operational_state" && key != "nodes" {
				out[key] = withoutTimes(inner)
			}
		}
		return out
	case []any:
		out := []any{}
		for _, inner := range v {
			out = append(out, withoutTimes(inner))
		}
		return out
	}
	return value
}

// The second to claim something is told who has it, once; the first goes on as it was; and when the first goes, the second gets it.
func TestConflictsAreTheSecondOnes(t *testing.T) {
	for _, test := range []struct {
		name          string
		first, second *v1.Service
		reason, text  string
	}{
		{"route", routing("one", "create/saas", `[{host: saas.example, path: /foo/}]`),
			routing("two", "create/saas", `[{host: saas.example, path: /foo}]`), "RouteConflict", "saas.example/foo (Prefix) on port 80"},
		{"port", sharingService("one", "create/saas", []string{"ssh 22 30022"}),
			sharingService("two", "create/saas", []string{"ssh 22 30023"}), "PortConflict", "port 22 of"},
		{"mode", routing("one", "create/saas", `[{path: /}]`),
			sharingService("two", "create/saas", []string{"http 80 30081"}), "PortConflict", "carries the routes of several"},
		{"mode the other way", sharingService("one", "create/saas", []string{"http 80 30081"}),
			routing("two", "create/saas", `[{path: /}]`), "PortConflict", "Service default/one of cluster x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			x, y := a.balancers(func(c *Config) { c.ClusterName = "x" }), a.balancers(func(c *Config) { c.ClusterName = "y" })
			first, second := a.addService(test.first), a.addService(test.second)
			a.ensure(x, first)
			before := a.raw("/load-balancer/" + a.only().ID)
			a.said()
			var delays []time.Duration
			for range 3 {
				retry, text := a.fails(y, second)
				if !strings.Contains(text, test.text) {
					t.Errorf("error %q, want %q in it", text, test.text)
				}
				delays = append(delays, retry.RetryAfter())
			}
			if said := a.said(); len(said) != 1 || !strings.Contains(said[0], test.reason) || !strings.Contains(said[0], test.text) {
				t.Errorf("events: %v", said)
			}
			if !slices.IsSorted(delays) || delays[0] != conflictDelay || delays[2] != 2*2*conflictDelay {
				t.Errorf("looks again after %v", delays)
			}
			if diff := cmp.Diff(withoutTimes(before), withoutTimes(a.raw("/load-balancer/"+a.only().ID))); diff != "" {
				t.Errorf("the first has changed: %s", diff)
			}
			a.delete(x, first)
			a.ensure(y, second)
			a.delete(y, second)
			if lb := a.only(); len(lb.Frontends)+len(lb.Backends) > 0 {
				t.Errorf("left: %s", summary(lb))
			}
		})
	}
}

// A number of sessions that is no longer asked for goes back to what the plan allows. What somebody tuned by hand stays where nobody asks
// for anything: weights, and members that are switched off.
func TestSharedMaxSessionsGoBackToThePlans(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := a.addService(example.Annotated(sharingService("web", "create/saas", []string{"http 80 30080"}), "max-sessions", "77"))
	a.ensure(l, s)
	numbers := func() string {
		var all []string
		for _, member := range a.only().Backends[0].Members {
			all = append(all, fmt.Sprintf("%s %d %d %v", member.Name, member.MaxSessions, member.Weight, member.Enabled))
		}
		return sorted(strings.Join(all, "\n"))
	}
	if got := numbers(); got != "n1 77 100 true\nn2 77 100 true" {
		t.Errorf("asked for: %s", got)
	}
	lb := a.only()
	a.Do(t, http.MethodPatch, "/load-balancer/"+lb.ID+"/backends/"+lb.Backends[0].Name+"/members/n2", `{"weight":5,"enabled":false}`, nil)
	a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationPrefix+"max-sessions") })
	a.ensure(l, s)
	if got := numbers(); got != "n1 1000 100 true\nn2 1000 5 false" {
		t.Errorf("no longer asked for: %s", got)
	}
	a.unchanged(l, s)
	a.update(l, a.current(s))
	if got := numbers(); got != "n1 1000 100 true\nn2 1000 5 false" {
		t.Errorf("after an update: %s", got)
	}
}
