package loadbalancer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// joiningAccount has a Service with externalTrafficPolicy Local on the nodes n1 and n2, and a clock that stands still.
type joiningAccount struct {
	*account
	l       *LoadBalancers
	service *v1.Service
	now     time.Time
}

func newJoiningAccount(t *testing.T, change func(*v1.Service)) *joiningAccount {
	a := &joiningAccount{account: newAccount(t, simulator.Config{}, "n1", "n2"), now: time.Now()}
	a.restart()
	s := example.Service("http 80 30080")
	s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyLocal, 32000
	if change != nil {
		change(s)
	}
	a.service = a.addService(s)
	a.ensure(a.l, a.service)
	return a
}

func (a *joiningAccount) restart() {
	a.l = a.balancers()
	a.l.now = func() time.Time { return a.now }
}

func (a *joiningAccount) update() {
	a.t.Helper()
	if err := a.l.UpdateLoadBalancer(a.t.Context(), "prod", a.current(a.service), a.nodes); err != nil {
		a.t.Fatal(err)
	}
}

// after lets time pass, and whoever has waited for long enough gets weight.
func (a *joiningAccount) after(passed time.Duration) {
	a.t.Helper()
	a.now = a.now.Add(passed)
	index := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	if err := index.Add(a.current(a.service)); err != nil {
		a.t.Fatal(err)
	}
	inOneRound(func(r *rounds) { a.l.letIn(a.t.Context(), corelisters.NewServiceLister(index), r) })
}

// want checks the members: each with its weight and its sessions.
func (a *joiningAccount) want(when string, want ...string) {
	a.t.Helper()
	var got []string
	for _, m := range a.only().Backends[0].Members {
		got = append(got, fmt.Sprintf("%s %d %d", m.Name, m.Weight, m.MaxSessions))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		a.t.Errorf("%s: members %q, want %q", when, got, want)
	}
}

// A node gets connections of a Service with externalTrafficPolicy Local when the health checks have had time to tell whether it has
// one of the Service's Pods, and not before: the clients would wait in vain.
func TestNodesJoinALocalServiceAside(t *testing.T) {
	a := newJoiningAccount(t, nil)
	a.want("at first", "n1 100 1000", "n2 100 1000")
	a.addNode("n3")
	a.update()
	a.want("when n3 joins", "n1 100 1000", "n2 100 1000", "n3 0 1")
	a.ResetRequests()
	a.after(8 * time.Second)
	if all := a.Requests(); all.Total() > 0 {
		t.Errorf("requests while n3 waits: %v", all)
	}
	a.addNode("n4")
	a.update()
	a.after(time.Second)
	a.want("after the 9 s that two failures at an interval of 3 s take", "n1 100 1000", "n2 100 1000", "n3 100 1000", "n4 0 1")
	a.after(8 * time.Second)
	a.want("8 s later", "n1 100 1000", "n2 100 1000", "n3 100 1000", "n4 100 1000")
	a.ResetRequests()
	a.after(time.Hour)
	a.update()
	if writes := a.writes(); len(writes) > 0 {
		t.Errorf("writes when all have joined: %v", writes)
	}
}

func TestAnotherCopyLetsNodesIn(t *testing.T) {
	a := newJoiningAccount(t, nil)
	a.addNode("n3")
	a.update()
	a.restart()
	a.ensure(a.l, a.service)
	a.after(8 * time.Second)
	a.want("before its time", "n1 100 1000", "n2 100 1000", "n3 0 1")
	a.after(time.Second)
	a.want("in time", "n1 100 1000", "n2 100 1000", "n3 100 1000")
}

// With no others there is nobody to wait for.
func TestNodesDoNotWaitAlone(t *testing.T) {
	a := newJoiningAccount(t, nil)
	a.addNode("n3")
	a.update()
	old := a.nodes[:2]
	a.nodes = a.nodes[2:]
	a.update()
	a.want("when the others leave", "n3 100 1000")
	a.nodes = old
	a.update()
	a.want("when all are replaced at once", "n1 100 1000", "n2 100 1000")
}

func TestJoiningKeepsWhatWasAskedFor(t *testing.T) {
	a := newJoiningAccount(t, func(s *v1.Service) {
		s.Annotations = map[string]string{settings.AnnotationPrefix + "max-sessions": "500"}
	})
	a.addNode("n3")
	a.update()
	a.ensure(a.l, a.service)
	a.want("while n3 waits", "n1 100 500", "n2 100 500", "n3 0 1")
	a.after(9 * time.Second)
	a.ensure(a.l, a.service)
	a.want("in the end", "n1 100 500", "n2 100 500", "n3 100 500")

	// Who switches a member off by hand keeps it switched off.
	lb := a.only()
	a.Do(t, "PATCH", "/load-balancer/"+lb.ID+"/backends/http/members/n3", `{"weight":0}`, nil)
	a.update()
	a.after(time.Hour)
	a.want("by hand", "n1 100 500", "n2 100 500", "n3 0 500")
}

// What one member has while it waits is not what others get.
func TestAPortIsAddedWhileANodeWaits(t *testing.T) {
	a := newJoiningAccount(t, nil)
	a.addNode("a-first-one")
	a.update()
	a.change(a.service, func(s *v1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Name: "https", Protocol: v1.ProtocolTCP, Port: 443, NodePort: 30443})
	})
	a.ensure(a.l, a.service)
	backends := a.only().Backends
	if len(backends) != 2 {
		t.Fatalf("backends: %+v", backends)
	}
	for _, m := range backends[1].Members {
		if m.Weight != 100 || m.MaxSessions != 1000 {
			t.Errorf("member of the new port: %+v", m)
		}
	}
}

// With externalTrafficPolicy Cluster every node leads to the Pods.
func TestNodesJoinAClusterServiceAtOnce(t *testing.T) {
	a := newJoiningAccount(t, func(s *v1.Service) {
		s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = v1.ServiceExternalTrafficPolicyCluster, 0
	})
	a.addNode("n3")
	a.update()
	a.want("at once", "n1 100 1000", "n2 100 1000", "n3 100 1000")
}

// What cannot be finished is tried again, later; a Service that is gone is forgotten.
func TestLettingInFails(t *testing.T) {
	a := newJoiningAccount(t, nil)
	a.addNode("n3")
	a.update()
	remove := a.Inject(simulator.Fault{Operation: "PATCH /load-balancer/{uuid}/backends/{backend}", Status: 403})
	a.after(9 * time.Second)
	remove()
	a.after(9 * time.Second)
	a.want("before it is tried again", "n1 100 1000", "n2 100 1000", "n3 0 1")
	a.after(time.Second)
	a.want("when it is", "n1 100 1000", "n2 100 1000", "n3 100 1000")

	a.addNode("n4")
	a.update()
	own := a.current(a.service)
	a.change(a.service, func(s *v1.Service) { example.Annotated(s, "shared", "create/web") })
	a.ResetRequests()
	a.after(9 * time.Second)
	if all := a.Requests(); all.Total() > 0 || len(a.l.joinings.due(a.now)) > 0 {
		t.Errorf("requests for a Service that shares from now on: %v", all)
	}
	a.change(a.service, func(s *v1.Service) { s.Annotations = own.Annotations })
	a.addNode("n5")
	a.update()
	a.delete(a.l, a.service)
	a.after(9 * time.Second)
	if left := a.l.joinings.due(a.now.Add(time.Hour)); len(left) > 0 {
		t.Errorf("after the load balancer is gone there waits %v", left)
	}
	if all := a.list(); len(all) > 0 || strings.Contains(fmt.Sprint(a.said()), "Warning") {
		t.Errorf("load balancers: %+v", all)
	}
}

// A backend where nobody waits does not matter: what it would take is not asked for.
func TestNodesJoinBesideABackendWithoutMembers(t *testing.T) {
	a := newJoiningAccount(t, func(s *v1.Service) {
		s.Annotations = map[string]string{settings.AnnotationConfig: `{"backends":[{"name":"elsewhere"}]}`}
	})
	a.addNode("n3")
	a.update()
	a.cloud = a.connect()
	a.restart()
	a.ensure(a.l, a.service)
	a.Inject(simulator.Fault{Operation: "GET /load-balancer/plans", Status: 403})
	a.after(9 * time.Second)
	var got []string
	for _, backend := range a.only().Backends {
		for _, m := range backend.Members {
			got = append(got, fmt.Sprintf("%s %d", m.Name, m.Weight))
		}
	}
	slices.Sort(got)
	if want := []string{"n1 100", "n2 100", "n3 100"}; !slices.Equal(got, want) {
		t.Errorf("members %q, want %q", got, want)
	}
}
