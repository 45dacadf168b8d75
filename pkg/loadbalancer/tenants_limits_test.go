package loadbalancer

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func withTenants(policy tenants.Config) func(*Config) {
	return func(c *Config) { c.Tenants = &policy }
}

// What a namespace has in the account counts against its limit, whatever way it was left there.
func TestLoadBalancersLeftInTheAccountCountAgainstTheLimit(t *testing.T) {
	policy := tenants.Config{Default: tenants.Limits{
		MaxLoadBalancers: new(2), Retain: new(true), SharedLoadBalancers: []string{"create/*"},
	}}
	ways := map[string]func(a *account, l *LoadBalancers, i int) error{
		"retained Services": func(a *account, l *LoadBalancers, i int) error {
			s := a.addService(example.Annotated(serviceIn("evil", fmt.Sprint("s", i), "http 80 30080"), "retain", "true"))
			_, err := l.EnsureLoadBalancer(a.t.Context(), "prod", a.current(s), a.nodes)
			a.delete(l, s)
			return err
		},
		"groups": func(a *account, l *LoadBalancers, i int) error {
			s := a.addService(example.Annotated(serviceIn("evil", fmt.Sprint("s", i), "http 80 30080"), "shared", fmt.Sprint("create/g", i)))
			_, err := l.EnsureLoadBalancer(a.t.Context(), "prod", a.current(s), a.nodes)
			a.delete(l, s)
			return err
		},
		"re-annotation": func(a *account, l *LoadBalancers, i int) error {
			s := serviceIn("evil", "s", "http 80 30080")
			if i == 0 {
				a.addService(s)
			}
			a.change(s, func(s *v1.Service) { example.Annotated(s, "shared", fmt.Sprint("create/g", i)) })
			_, err := l.EnsureLoadBalancer(a.t.Context(), "prod", a.current(s), a.nodes)
			return err
		},
		"retained, then deleted and made again": func(a *account, l *LoadBalancers, _ int) error {
			s := a.addService(example.Annotated(serviceIn("evil", "s", "http 80 30080"), "retain", "true"))
			_, err := l.EnsureLoadBalancer(a.t.Context(), "prod", a.current(s), a.nodes)
			a.delete(l, s)
			_ = a.client.Tracker().Delete(servicesResource, s.Namespace, s.Name)
			return err
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			var last error
			for i := range 6 {
				l := a.balancers(withTenants(policy)) // also after a restart each
				last = way(a, l, i)
			}
			if all := a.list(); len(all) != 2 {
				t.Errorf("%d load balancers, want 2", len(all))
			}
			if last == nil || !strings.Contains(last.Error(), "allowed are 2 and it has 2 in the account") || reasonOf(last) != ReasonDenied {
				t.Errorf("error %v", last)
			}
			other := a.addService(serviceIn("good", "web", "http 80 31000"))
			a.ensure(a.balancers(withTenants(policy)), other) // another namespace has a limit of its own
		})
	}
}

// Services of one namespace that are made at one time do not get more than the limit, though none sees the others' load balancers yet.
func TestServicesMadeAtOneTimeStayWithinTheLimit(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(withTenants(tenants.Config{}))
	var all sync.WaitGroup
	for i := range 8 {
		s := a.addService(serviceIn("evil", fmt.Sprint("s", i), fmt.Sprintf("http 80 %d", 30080+i)))
		all.Go(func() { _, _ = l.EnsureLoadBalancer(t.Context(), "prod", s, a.nodes) })
	}
	all.Wait()
	if have := a.list(); len(have) != *tenants.Safe().MaxLoadBalancers {
		t.Errorf("%d load balancers, want %d", len(have), *tenants.Safe().MaxLoadBalancers)
	}
}

func TestCertificateBundlesAreBoundedByNamespace(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(withTenants(tenants.Config{Default: tenants.Limits{MaxCertificates: new(1), Hosts: []string{"*.evil.example"}}}))
	s := a.addService(example.Annotated(serviceIn("evil", "web", "http 80 30080", "https 443 30443"), "mode", "http", "tls-hostnames",
		"http=a.evil.example; https=b.evil.example"))
	if _, text := a.fails(l, s); !strings.Contains(text, "one more of its certificate bundles, allowed are 1 and it has 1") {
		t.Error(text)
	}
	if len(a.bundles()) != 1 {
		t.Errorf("%d bundles", len(a.bundles()))
	}
}

// An entry chosen by the labels of the namespace; what it allows is had, and no more.
func TestNamespaceGetsWhatItsEntryAllows(t *testing.T) {
	a := newTarget(t)
	if _, err := a.client.CoreV1().Namespaces().Create(t.Context(), &v1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "evil", Labels: map[string]string{"tier": "gold"}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	l := a.balancers(func(c *Config) {
		c.Shared = []settings.SharedAccess{{LoadBalancer: "edge"}}
		c.Tenants = &tenants.Config{Namespaces: []tenants.Entry{{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}},
			Limits: tenants.Limits{
				Plans: []string{"production-small"}, FloatingIPs: []string{a.floating}, CertificateBundles: []string{a.bundle},
				SharedLoadBalancers: []string{"edge"}, Hosts: []string{"*.evil.example"}, MemberNetworks: []string{"10.1.0.0/16"},
			},
		}}}
	})
	if a.ensure(l, a.addService(example.Annotated(serviceIn("evil", "plan", "http 80 30080"), "plan", "production-small", "floating-ips", a.floating))); a.byName("prod-evil-plan").Plan != "production-small" {
		t.Error("the plan is not the one that is allowed")
	}
	a.ensure(l, a.addService(example.Annotated(serviceIn("evil", "member", "http 80 30081"), "config",
		`{"backends":[{"members":[{"name":"m","ip":"10.1.2.3","port":53}]}]}`)))
	for _, test := range []struct{ name, want string }{{"own", "www.evil.example"}, {"bank", ""}} {
		s := a.addService(example.Annotated(serviceIn("evil", "tls-"+test.name, "https 8443 30443"), "mode", "http", "tls-secret", test.name))
		if test.want != "" {
			a.ensure(l, s)
		} else if _, text := a.fails(l, s); !strings.Contains(text, "Secret evil/bank is for bank.example, allowed are certificates for *.evil.example") {
			t.Error(text)
		}
		a.delete(l, s)
	}
	for name, routes := range map[string]string{"ours": `[{host: www.evil.example, path: /}]`, "theirs": `[{host: bank.example, path: /}]`, "all": `[{path: /}]`} {
		s := a.addService(example.Annotated(serviceIn("evil", name, "http 80 30090"), "shared", "edge", "routes", routes))
		if name == "ours" {
			a.ensure(l, s)
		} else if _, text := a.fails(l, s); !strings.Contains(text, "does not let this Service use load balancer") {
			t.Errorf("%s: %s", name, text)
		}
	}
	stranger := a.addService(example.Annotated(serviceIn("silver", "web", "http 80 30099"), "plan", "production-small"))
	if _, text := a.fails(l, stranger); !strings.Contains(text, "namespace silver asks for plan production-small, allowed is development") {
		t.Error(text)
	}
}

// A load balancer of a generated name that another Service has taken gets another name.
func TestGeneratedNameOfAnotherServiceBlocksNoTenant(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(withTenants(tenants.Config{}))
	a.ensure(l, a.addService(serviceIn("team", "b-web", "http 80 30080")))
	victim := a.addService(serviceIn("team-b", "web", "http 80 30081"))
	a.ensure(l, victim)
	if all := a.list(); len(all) != 2 {
		t.Fatalf("%d load balancers", len(all))
	}
	a.unchanged(l, victim)
	a.delete(l, victim)
	if lb := a.only(); lb.Name != "prod-team-b-web" || lb.Labels[settings.LabelNamespace] != "team" {
		t.Errorf("%s %v is left", lb.Name, lb.Labels)
	}
}

// Where a policy comes to a cluster with load balancers, those stay as they are, and get the label by which they are counted.
func TestPolicyLeavesWhatThereIs(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	wide := a.addService(example.Annotated(serviceIn("team", "wide", "http 80 30080"), "plan", "production-small"))
	plain := a.addService(serviceIn("team", "plain", "http 80 30081"))
	before := a.balancers()
	a.ensure(before, wide)
	a.ensure(before, plain)
	l := a.balancers(withTenants(tenants.Config{}))
	if _, text := a.fails(l, wide); !strings.Contains(text, "namespace team asks for plan production-small") {
		t.Error(text)
	}
	if lb := a.byName("prod-team-wide"); lb.Plan != "production-small" || len(lb.Backends[0].Members) != 2 {
		t.Errorf("plan %s, members %v", lb.Plan, lb.Backends[0].Members)
	}
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(wide), a.nodes[:1]); err != nil {
		t.Fatal(err)
	}
	if lb := a.byName("prod-team-wide"); len(lb.Backends[0].Members) != 1 {
		t.Errorf("members %v: the node that left stays", lb.Backends[0].Members)
	}
	a.ensure(l, plain)
	if got := a.byName("prod-team-plain").Labels[settings.LabelNamespace]; got != "team" {
		t.Errorf("label %q", got)
	}
	a.unchanged(l, plain)
}

// A Service that shares a load balancer cannot have members beside the nodes, also not by way of a mistake that freezes the rest of it.
func TestMembersOfJSONDoNotComeToSharedLoadBalancer(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers()
	s := a.addService(sharingService("web", "create/team", []string{"http 80 30080"}))
	a.ensure(l, s)
	a.change(s, func(s *v1.Service) {
		example.Annotated(s, "config", `{"backends":[{"name":"http","members":[{"name":"m","ip":"8.8.8.8","port":53}]}]}`)
	})
	if _, reason := a.fails(l, s); !strings.Contains(reason, "load-balancer-config") {
		t.Errorf("reason %q does not name the annotation", reason)
	}
	if err := l.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes[:1]); err != nil {
		t.Fatal(err)
	}
	if members := a.only().Backends[0].Members; len(members) != 1 || members[0].Name != "n1" {
		t.Errorf("members %+v, want the node that stays", members)
	}
}
