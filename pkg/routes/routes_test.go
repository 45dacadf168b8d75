package routes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func TestARouteLivesAndDies(t *testing.T) {
	r := newRig(t, simulator.Config{})
	r.put(foreign)
	c := r.newCluster(r.URL, nil).impatient()
	a, b := c.addNode("a", "10.244.0.0/24"), c.addNode("b", "10.244.1.0/24")
	c.mustCreate(a)
	c.mustCreate(b)
	want := fmt.Sprintf("10.244.0.0/24>%s 10.244.1.0/24>%s 192.168.7.0/24>172.16.9.9", internalIP(a), internalIP(b))
	if got := r.leads(); got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
	listed := c.list()
	if len(listed) != 2 {
		t.Fatalf("%d routes are listed, want the cluster's 2", len(listed))
	}
	for _, route := range listed {
		if route.Blackhole || route.TargetNode == "" || len(route.Name) > 32 || !strings.HasPrefix(route.Name, "ccm-") {
			t.Errorf("listed: %+v", route)
		}
	}
	for _, route := range listed {
		if route.TargetNode == "a" {
			if err := c.DeleteRoute(t.Context(), "", route); err != nil {
				t.Fatal(err)
			}
			if err := c.DeleteRoute(t.Context(), "", route); err != nil {
				t.Errorf("a second time: %v", err)
			}
		}
	}
	if got, want := r.leads(), "10.244.1.0/24>"+internalIP(b)+" 192.168.7.0/24>172.16.9.9"; got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
	if raw := r.raw(); raw[0] != foreign {
		t.Errorf("the other owner's route is %s, was %s", raw[0], foreign)
	}
}

func TestBothFamilies(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	node := c.addNode("a", "10.244.0.0/24", "fd00:10:244::/64")
	err := c.create(node)
	if err == nil || !strings.Contains(err.Error(), "is an IPv6 address") {
		t.Errorf("without an IPv6 address: %v", err)
	}
	if event := c.event(); !strings.Contains(event, ReasonNoNextHop) {
		t.Errorf("event %q", event)
	}
	if got, want := r.leads(), "10.244.0.0/24>"+internalIP(node); got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
	owner := NewOwner("c")
	four, six := owner.routeName("a", mustPrefix("10.244.0.0/24")), owner.routeName("a", mustPrefix("fd00::/64"))
	if four == six || four[:len(four)-1] != six[:len(six)-1] {
		t.Errorf("names %s and %s", four, six)
	}
	in := domain{networks: []cloud.PrivateNetwork{{Prefixes: prefixes("172.16.0.0/16", "fd00:1::/64")}}}
	if hop, ok := in.nextHop(addresses("172.16.0.5", "fd00:1::5"), mustPrefix("fd00:10:244::/64")); !ok || hop.String() != "fd00:1::5" {
		t.Errorf("the IPv6 route leads to %s", hop)
	}
}

func TestDriftIsMended(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	a, b := c.addNode("a", "10.244.0.0/24"), c.addNode("b", "10.244.1.0/24")
	c.settle()
	good := r.leads()
	names := map[string]string{}
	for _, route := range c.list() {
		names[string(route.TargetNode)] = route.Name
	}
	route := func(node, prefix, hop string) string {
		return fmt.Sprintf(`{"name":%q,"route":%q,"nexthop":%q}`, names[node], prefix, hop)
	}
	for what, routes := range map[string][]string{
		"all gone":             {},
		"one gone":             {route("a", "10.244.0.0/24", internalIP(a))},
		"another next hop":     {route("a", "10.244.0.0/24", "172.16.200.200"), route("b", "10.244.1.0/24", internalIP(b))},
		"next hops exchanged":  {route("a", "10.244.0.0/24", internalIP(b)), route("b", "10.244.1.0/24", internalIP(a))},
		"another prefix":       {route("a", "10.244.7.0/24", internalIP(a)), route("b", "10.244.1.0/24", internalIP(b))},
		"prefixes exchanged":   {route("a", "10.244.1.0/24", internalIP(a)), route("b", "10.244.0.0/24", internalIP(b))},
		"a node that is gone":  {strings.Replace(route("a", "10.244.9.0/24", "172.16.3.3"), nodeHash("a"), nodeHash("gone"), 1)},
		"a prefix of the gone": {strings.Replace(route("a", "10.244.0.0/24", "172.16.3.3"), nodeHash("a"), nodeHash("gone"), 1)},
	} {
		r.put(append(routes, foreign)...)
		c.settle()
		if got, want := r.leads(), good+" 192.168.7.0/24>172.16.9.9"; got != want {
			t.Errorf("%s: routes %s, want %s", what, got, want)
		}
		if !slices.Contains(r.raw(), foreign) {
			t.Errorf("%s: the other owner's route is not as it was: %s", what, r.raw())
		}
	}
}

// A route that leads to a wrong address is replaced in one write: there is no moment without it.
func TestAWrongNextHopIsReplacedAtOnce(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	a := c.addNode("a", "10.244.0.0/24")
	c.settle()
	r.put(strings.Replace(r.raw()[0], internalIP(a), "172.16.200.200", 1))
	if listed := c.list(); len(listed) != 0 {
		t.Fatalf("listed: %+v; the controller would take it for good, or delete it", listed[0])
	}
	r.ResetRequests()
	c.mustCreate(a)
	if n := r.Requests().Of("PATCH /router/{uuid}"); n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
	if got, want := r.leads(), "10.244.0.0/24>"+internalIP(a); got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
}

func TestRoutesOfTheGoneAreBlackHoles(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	a := c.addNode("a", "10.244.0.0/24")
	c.settle()
	if err := c.nodes.Delete(a); err != nil {
		t.Fatal(err)
	}
	listed := c.list()
	if len(listed) != 1 || !listed[0].Blackhole || listed[0].TargetNode != "" || listed[0].DestinationCIDR != "10.244.0.0/24" {
		t.Errorf("listed: %+v", listed)
	}
	c.settle()
	if got := r.leads(); got != "" {
		t.Errorf("left: %s", got)
	}
}

func TestNodesOfOthersGetNoRoute(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	c.setNode(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: v1.NodeSpec{ProviderID: "hcloud://1", PodCIDRs: []string{"10.244.5.0/24"}},
		Status: v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "172.16.0.77"}}}})
	if err := c.CreateRoute(t.Context(), "", "", &cloudprovider.Route{TargetNode: "x", DestinationCIDR: "10.244.5.0/24"}); err != nil {
		t.Error(err)
	}
	if got := r.leads(); got != "" {
		t.Errorf("routes %s", got)
	}
	err := c.DeleteRoute(t.Context(), "", &cloudprovider.Route{Name: "office", DestinationCIDR: "192.168.7.0/24"})
	if err == nil || !strings.Contains(err.Error(), "not this cluster's") {
		t.Errorf("deleting another's route: %v", err)
	}
}

// A new node's route waits for nobody to write its addresses down.
func TestAnUninitializedNodeGetsItsRoute(t *testing.T) {
	r := newRig(t, simulator.Config{})
	var known v1.Node
	c := r.newCluster(r.URL, func(config *Config) {
		config.Metadata = func(context.Context, *v1.Node) (*cloudprovider.InstanceMetadata, error) {
			return &cloudprovider.InstanceMetadata{ProviderID: known.Spec.ProviderID, NodeAddresses: known.Status.Addresses}, nil
		}
	}).impatient()
	known = *c.addNode("a", "10.244.0.0/24")
	fresh := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: v1.NodeSpec{PodCIDRs: known.Spec.PodCIDRs}}
	c.setNode(fresh)
	c.list() // finds no router, as no node is known to be anywhere
	c.mustCreate(fresh)
	if got, want := r.leads(), "10.244.0.0/24>"+internalIP(&known); got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
}

func TestSomebodyElsesRouteIsInTheWay(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	r.put(`{"name":"office","route":"10.244.0.0/24","nexthop":"172.16.9.9"}`)
	a, b := c.addNode("a", "10.244.0.0/24"), c.addNode("b", "10.244.1.0/24")
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.create(b); err != nil {
			t.Errorf("the other node suffers: %v", err)
		}
	})
	err := c.create(a)
	running.Wait()
	var conflict *ConflictError
	if !errors.As(err, &conflict) || conflict.Route.Name != "office" {
		t.Errorf("error %v", err)
	}
	if event := c.event(); !strings.Contains(event, ReasonConflict) || !strings.Contains(event, `"office"`) {
		t.Errorf("event %q", event)
	}
	if got, want := r.leads(), "10.244.0.0/24>172.16.9.9 10.244.1.0/24>"+internalIP(b); got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
}

func TestRoutesOfServicesAreLeftOut(t *testing.T) {
	r := newRig(t, simulator.Config{})
	if err := r.AddServiceRoute(r.router, "ngw-default", "0.0.0.0/0", "169.254.16.2"); err != nil {
		t.Fatal(err)
	}
	r.put(foreign)
	c := r.newCluster(r.URL, nil).impatient()
	a := c.addNode("a", "10.244.0.0/24")
	c.settle() // the simulator refuses to be given a service's route
	if got, want := r.leads(), "0.0.0.0/0>169.254.16.2 10.244.0.0/24>"+internalIP(a)+" 192.168.7.0/24>172.16.9.9"; got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
}

func TestTwoClustersOnOneRouter(t *testing.T) {
	r := newRig(t, simulator.Config{})
	one := r.newCluster(r.URL, func(c *Config) { c.ClusterID = "one" }).impatient()
	two := r.newCluster(r.URL, func(c *Config) { c.ClusterID = "two" }).impatient()
	one.addNode("a", "10.1.0.0/24")
	two.addNode("a", "10.2.0.0/24")
	one.settle()
	two.settle()
	one.settle()
	if len(r.raw()) != 2 {
		t.Errorf("routes %s", r.raw())
	}
	for _, c := range []*cluster{one, two} {
		if listed := c.list(); len(listed) != 1 || listed[0].TargetNode != "a" {
			t.Errorf("listed: %+v", listed)
		}
	}
}

// What tells a cluster's routes from others' when nobody gave it an ID.
func TestTheClusterIsKnownByItsNamespace(t *testing.T) {
	r := newRig(t, simulator.Config{})
	one, two := r.newCluster(r.URL, nil), r.newCluster(r.URL+"/", nil)
	first, err := one.ownerOf(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second, err := two.ownerOf(t.Context()); err != nil || first == second {
		t.Errorf("two clusters are %s and %s, %v", first, second, err)
	}
	if named := NewOwner("prod"); named == first || named != NewOwner("prod") {
		t.Errorf("named: %s, unnamed: %s", named, first)
	}
}

// A thousand nodes at once, 200 at a time as the controller has them.
func TestAThousandNodesCost(t *testing.T) {
	r := newRig(t, simulator.Config{MaxStaticRoutes: 2000})
	c := r.newCluster(r.URL, nil)
	for i := range 1000 {
		c.setNode(fakeNode(i))
	}
	// One server is real, so that the router is found.
	first := c.addNode("real", "10.100.0.0/24")
	r.ResetRequests()
	c.mustCreate(first)
	begin := r.Requests().Total()
	slots := make(chan struct{}, 200)
	var running sync.WaitGroup
	for i := range 1000 {
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := c.create(fakeNode(i)); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	counts := r.Requests()
	if made := counts.Total() - begin; made > 60 {
		t.Errorf("%d calls for 1,000 routes: %v", made, counts)
	} else {
		t.Logf("%d calls for 1,000 routes", made)
	}
	if got := len(r.raw()); got != 1001 {
		t.Errorf("%d routes", got)
	}
	c.list() // looks at other routers, too, which it does every five minutes
	r.ResetRequests()
	if listed := c.list(); len(listed) != 1001 {
		t.Errorf("%d routes are listed", len(listed))
	}
	if counts := r.Requests(); counts.Total() != 1 {
		t.Errorf("listing took %v, want one call", counts)
	}
}

func fakeNode(i int) *v1.Node {
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i)},
		Spec:       v1.NodeSpec{PodCIDRs: []string{fmt.Sprintf("10.%d.%d.0/24", 101+i/250, i%250)}},
		Status:     v1.NodeStatus{Addresses: []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: fmt.Sprintf("172.16.%d.%d", 100+i/250, 1+i%250)}}},
	}
}
