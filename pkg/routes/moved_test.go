package routes

import (
	"errors"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// available notes in the Nodes that the route controller has made their routes, as it does.
func (c *cluster) available() {
	c.t.Helper()
	for _, object := range c.nodes.List() {
		node := object.(*v1.Node).DeepCopy()
		node.Status.Conditions = append(node.Status.Conditions,
			v1.NodeCondition{Type: v1.NodeNetworkUnavailable, Status: v1.ConditionFalse, Reason: "RouteCreated"})
		c.setNode(node)
	}
}

// allEvents empties the queue of events.
func (c *cluster) allEvents() (all []string) {
	for event := c.event(); event != ""; event = c.event() {
		all = append(all, event)
	}
	return all
}

func (c *cluster) mustHaveEvent(texts ...string) {
	c.t.Helper()
	all := c.allEvents()
	if !slices.ContainsFunc(all, func(event string) bool {
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(event, text) })
	}) {
		c.t.Errorf("no event with %q: %q", texts, all)
	}
}

func TestNetworkMovedToAnotherRouterIsFollowed(t *testing.T) {
	r := newRig(t, simulator.Config{})
	r.put(foreign)
	c := r.newCluster(r.URL, nil).impatient()
	c.addNode("a", "10.244.0.0/24")
	c.addNode("b", "10.244.1.0/24")
	c.settle()
	c.available()
	c.allEvents()
	good := strings.TrimSuffix(r.leads(), " 192.168.7.0/24>172.16.9.9")
	former := r.router
	r.router = r.createRouter()
	r.attach(r.network, r.router)
	c.impatient()
	c.settle() // the first pass notices it
	if got := r.leads(); got != good {
		t.Errorf("routes %s, want %s", got, good)
	}
	c.mustHaveEvent(ReasonRestored, former, r.router)
	r.router = former
	if raw := r.raw(); !slices.Equal(raw, []string{foreign}) {
		t.Errorf("the former router has %s, want the other owner's route alone", raw)
	}
}

func TestNodesAreTaintedWhenTheNetworkLosesItsRouter(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	a := c.addNode("a", "10.244.0.0/24")
	c.settle()
	r.Do(t, "PUT", "/network/"+r.network, `{"network":{"router":null}}`, nil)
	if listed := c.list(); len(listed) != 0 {
		t.Fatalf("listed: %+v", listed[0])
	}
	var none *noRouterError
	if err := c.create(a); !errors.As(err, &none) { // which makes the controller set NetworkUnavailable
		t.Errorf("error %v", err)
	}
	c.mustHaveEvent(ReasonNoRouter, r.network)
}

func TestNetworkDetachedFromItsRouterIsAttachedAgain(t *testing.T) {
	r := newRig(t, simulator.Config{})
	r.Do(t, "PUT", "/network/"+r.network, `{"network":{"router":null}}`, nil)
	c := r.newCluster(r.URL, func(c *Config) { c.CreateRouter = true })
	a := c.addNode("a", "10.244.0.0/24")
	c.settle()
	if events := c.allEvents(); len(events) > 0 {
		t.Errorf("events of a cluster that is new: %q", events)
	}
	c.available()
	r.router = c.found.domain.router
	r.Do(t, "PUT", "/network/"+r.network, `{"network":{"router":null}}`, nil)
	c.settle()
	if got, want := r.leads(), "10.244.0.0/24>"+internalIP(a); got != want || c.found.domain.router != r.router {
		t.Errorf("routes %s, want %s, on router %s", got, want, c.found.domain.router)
	}
	c.mustHaveEvent(ReasonRouterAttached, r.network, "ignore_changes = [router]")
}

func TestRouterThatIsDeletedIsNoticed(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	a := c.addNode("a", "10.244.0.0/24")
	c.settle()
	r.Do(t, "PUT", "/network/"+r.network, `{"network":{"router":null}}`, nil)
	r.Do(t, "DELETE", "/router/"+r.router, "", nil)
	c.list()
	if err := c.create(a); err == nil {
		t.Error("there is no error")
	}
	c.mustHaveEvent(ReasonNoRouter, r.network)
	named := r.newCluster(r.URL, func(config *Config) { config.RouterID = r.router })
	named.setNode(a)
	named.list()
	if err := named.create(a); err == nil {
		t.Error("there is no error")
	}
	named.mustHaveEvent(ReasonNoRouter, "routerUUID")
}

func TestNodeWhoseNetworkIsDetachedGetsAnEvent(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	c.addNode("a", "10.244.0.0/24")
	second := r.CreateNetwork(t, "second", zone, "172.20.0.0/16")
	r.attach(second, r.router)
	first := r.network
	r.network = second
	b := c.addNode("b", "10.244.1.0/24")
	r.network = first
	c.settle()
	r.Do(t, "PUT", "/network/"+second, `{"network":{"router":null}}`, nil)
	if listed := c.list(); len(listed) != 1 || listed[0].TargetNode != "a" {
		t.Errorf("listed: %+v", listed)
	}
	if err := c.create(b); err == nil {
		t.Error("there is no error")
	}
	c.mustHaveEvent(ReasonNoNextHop, "172.20.")
}

// Terraform without ignore_changes removes all routes at every apply.
func TestRoutesRemovedByTerraformComeBackWithAnEvent(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	c.addNode("a", "10.244.0.0/24")
	c.settle()
	if events := c.allEvents(); len(events) > 0 {
		t.Errorf("events of a node that is new: %q", events)
	}
	c.available()
	good := r.leads()
	for range 2 { // an apply each
		r.put()
		c.settle()
		if got := r.leads(); got != good {
			t.Errorf("routes %s, want %s", got, good)
		}
		c.mustHaveEvent(ReasonRestored, "10.244.0.0/24", r.router, "ignore_changes = [static_route]")
	}
}

func TestPassWithNothingToDoTakesOneCall(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	for i := range 3 {
		c.addNode(string(rune('a'+i)), prefixOf(i))
	}
	c.settle()
	r.ResetRequests()
	const passes = 30 // five minutes
	for range passes {
		if changes, err := c.pass(t.Context()); changes > 0 || err != nil {
			t.Fatal(changes, err)
		}
	}
	if counts := r.Requests(); counts.Total() != passes {
		t.Errorf("%d passes took %v", passes, counts)
	}
}
