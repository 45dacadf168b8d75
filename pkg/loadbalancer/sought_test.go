package loadbalancer

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func TestSought(t *testing.T) {
	var s sought
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		after time.Duration
		ids   []string
		want  time.Duration // from now
	}{
		{0, nil, -settledAge},
		{0, []string{"a"}, 0},
		{10 * time.Second, []string{"a"}, -10 * time.Second}, // as first asked for
		{time.Minute, []string{"a"}, -recentAge},             // it may have been late
		{newcomerAge, []string{"a"}, -settledAge},
		{newcomerAge, []string{"a", "b"}, 0},
		{newcomerAge + 3*soughtFor, []string{"c", "a"}, 0}, // nobody asked for it any more
	} {
		now := start.Add(test.after)
		if got := s.moment(test.ids, now).Sub(now); got != test.want {
			t.Errorf("after %s, %v: %s, want %s", test.after, test.ids, got, test.want)
		}
	}
	if len(s.byID) != 2 {
		t.Errorf("it remembers %v", s.byID)
	}
}

// A Node whose server is gone, and one outside the load balancer's networks, cost nothing once they have been looked for.
func TestNodesThatAreNoMembersCostNothing(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(routing("web", "create/saas", `[{host: web.example, path: /}]`))
	a.ensure(l, s)
	a.nodes = append(a.nodes, a.nodeOn("elsewhere", a.CreateNetwork(t, "elsewhere", zone, "10.99.0.0/24"), "10.99.0.2"),
		&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gone"}, Spec: v1.NodeSpec{ProviderID: providerid.New("00000000-1111-4222-8333-444444444444")},
			Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "172.16.0.99"}}}})
	a.ResetRequests()
	a.ensure(l, s)
	if requests := a.Requests(); requests.Of("GET /server") != 1 || requests.Of("GET /network") != 1 {
		t.Errorf("new nodes were looked for by %v", requests)
	}
	for want, do := range []func(){func() { a.update(l, a.current(s)) }, func() { a.ensure(l, s) }} {
		a.ResetRequests()
		do()
		if requests := a.Requests(); requests.Total() != want {
			t.Errorf("calls when nothing is new: %v, want %d", requests, want)
		}
	}
	// Another new node is seen at once.
	a.addNode("n2")
	a.ResetRequests()
	a.update(l, a.current(s))
	if requests := a.Requests(); requests.Of("PATCH /load-balancer/{uuid}/backends/{backend}") != 1 || requests.Total() > 4 {
		t.Errorf("calls when a node joins: %v", requests)
	}
	if got := summary(a.only()); !strings.Contains(got, "n1:30080,n2:30080") || strings.Contains(got, "elsewhere") || strings.Contains(got, "gone") {
		t.Errorf("members: %s", got)
	}
	a.ResetRequests()
	a.update(l, a.current(s))
	if requests := a.Requests(); requests.Total() != 0 {
		t.Errorf("calls after that: %v", requests)
	}
}

// nodeOn is the Node of a new server whose private interface is in that network.
func (a *account) nodeOn(name, network, ip string) *v1.Node {
	a.t.Helper()
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1.NodeSpec{ProviderID: providerid.New(a.CreateServerOn(a.t, name, zone, network))},
		Status:     v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: ip}}},
	}
}
