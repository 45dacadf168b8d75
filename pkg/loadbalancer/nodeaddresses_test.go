package loadbalancer

import (
	"context"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func claiming(addresses ...string) v1.NodeStatus {
	var status v1.NodeStatus
	for _, address := range addresses {
		status.Addresses = append(status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: address})
	}
	return status
}

// A kubelet can write any address into its own Node's status.
func TestNodeThatClaimsAnAddressGetsNoMemberThere(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	l := a.balancers(func(c *Config) { c.NodeAddresses = newInstances(t, a.cloud).NodeAddresses })
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	own := map[string]string{}
	for _, member := range a.only().Backends[0].Members {
		own[member.Name] = member.IP
	}
	for name, status := range map[string]v1.NodeStatus{
		"an address outside the account": claiming("8.8.8.8"),
		"another node's":                 claiming(own["n2"]),
		"one that no server has":         claiming("172.16.200.200"),
		"none of IPv4":                   claiming("2001:db8::1"),
		"several":                        claiming("8.8.8.8", own["n1"]),
		"none":                           {},
	} {
		for how, apply := range map[string]func(){
			"update": func() { a.update(l, a.current(s)) },
			"ensure": func() { a.ensure(l, s) },
			"ensure after a restart": func() {
				a.ensure(a.balancers(func(c *Config) { c.NodeAddresses = newInstances(t, a.connect()).NodeAddresses }), s)
			},
		} {
			a.nodes[0].Status = status
			apply()
			for _, member := range a.only().Backends[0].Members {
				if member.IP != own[member.Name] {
					t.Errorf("%s, %s: member %s has address %s, want %s", name, how, member.Name, member.IP, own[member.Name])
				}
			}
			if got := len(a.only().Backends[0].Members); got != 2 {
				t.Errorf("%s, %s: %d members", name, how, got)
			}
		}
	}
}

// The address that a kubelet chooses with --node-ip among its server's own stays.
func TestNodeThatChoosesAmongItsServersAddressesKeepsItsChoice(t *testing.T) {
	const first, second = "10.0.0.1", "10.0.1.1"
	shown := []v1.NodeAddress{{Type: v1.NodeHostName, Address: "n1"}, {Type: v1.NodeInternalIP, Address: first},
		{Type: v1.NodeInternalIP, Address: second}, {Type: v1.NodeExternalIP, Address: "198.51.100.1"}}
	l := New(Config{NodeAddresses: func(context.Context, *v1.Node) ([]v1.NodeAddress, error) { return shown, nil }})
	for claimed, want := range map[string]string{first: first, second: second, "8.8.8.8": first, "198.51.100.1": first} {
		node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: v1.NodeSpec{ProviderID: providerid.New(claimed)}, Status: claiming(claimed)}
		nodes, missed, err := l.withAddresses(t.Context(), []*v1.Node{node})
		if err != nil || missed != nil {
			t.Fatal(err, missed)
		}
		if targets, _ := plan.Targets(nodes); len(targets) != 1 || targets[0].IP.String() != want {
			t.Errorf("claimed %s: targets %v, want %s", claimed, targets, want)
		}
	}
}

func TestNodeThatIsNoServerOfTheAccountIsNoMember(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers(func(c *Config) { c.NodeAddresses = newInstances(t, a.cloud).NodeAddresses })
	s := a.addService(example.Service("http 80 30080"))
	for name, id := range map[string]string{
		"no-server": providerid.New("00000000-1111-4222-8333-444444444444"), "other-cloud": "aws:///eu-north-1a/i-0123456789abcdef0", "no-id": "",
	} {
		a.nodes = append(a.nodes, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.NodeSpec{ProviderID: id}, Status: claiming("172.16.0.99")})
	}
	a.ensure(l, s)
	a.update(l, a.current(s))
	if got := summary(a.only()); !strings.Contains(got, "n1:30080") || strings.Contains(got, "no-") || strings.Contains(got, "other-cloud") {
		t.Errorf("members: %s", got)
	}
}

// An account that cannot be asked takes no node its place.
func TestMembersStayWhileTheAccountCannotBeAsked(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2")
	addresses := newInstances(t, a.cloud).NodeAddresses
	down := false
	config := func(c *Config) {
		c.NodeAddresses = func(ctx context.Context, node *v1.Node) ([]v1.NodeAddress, error) {
			if down {
				return nil, &cloud.Error{Kind: cloud.ErrUnavailable, Message: "down"}
			}
			return addresses(ctx, node)
		}
	}
	l := a.balancers(config)
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	before := summary(a.only())
	down = true
	a.nodes[0].Status = claiming("8.8.8.8")
	for name, balancers := range map[string]*LoadBalancers{"asked before": l, "after a restart": a.balancers(config)} {
		if err := balancers.UpdateLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err == nil {
			t.Errorf("%s: no error, so nothing tries again", name)
		}
		if after := summary(a.only()); after != before {
			t.Errorf("%s: members changed\n%s\n%s", name, before, after)
		}
	}
}

// A reconcile that changes nothing costs one call, and one of members none.
func TestProvenAddressesCostNothing(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1", "n2", "n3")
	l := a.balancers(func(c *Config) { c.NodeAddresses = newInstances(t, a.cloud).NodeAddresses })
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	a.ensure(l, s)
	for want, do := range []func(){func() { a.update(l, a.current(s)) }, func() { a.ensure(l, s) }} {
		a.ResetRequests()
		do()
		if requests := a.Requests(); requests.Total() != want {
			t.Errorf("calls when nothing is new: %v, want %d", requests, want)
		}
	}
}
