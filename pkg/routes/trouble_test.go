package routes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Whatever happens to one request of a change: it is made in the end, once, and others' routes stay.
func TestChangesSurviveTrouble(t *testing.T) {
	const read, write = "GET /router/{uuid}", "PATCH /router/{uuid}"
	for _, fault := range []simulator.Fault{
		{Operation: write, Drop: true, Count: 1},
		{Operation: write, Drop: true, AfterEffect: true, Count: 1},
		{Operation: write, Status: 503, Count: 2},
		{Operation: write, Status: 500, AfterEffect: true, Count: 1},
		{Operation: write, Status: 429, Count: 1},
		{Operation: write, Status: 409, Code: "ROUTER_BUSY", Count: 1},
		{Operation: write, Status: 409, Code: "DUPLICATE_ROUTE", Count: 1},
		{Operation: read, Drop: true, Count: 1},
		{Operation: read, Drop: true, Skip: 1, Count: 1},
		{Operation: read, Stale: time.Hour, Skip: 1, Count: 3},
		{Operation: "", Status: 503, Rate: 0.3},
	} {
		t.Run(fmt.Sprintf("%s %d drop=%t after=%t skip=%d stale=%s", fault.Operation, fault.Status, fault.Drop, fault.AfterEffect,
			fault.Skip, fault.Stale), func(t *testing.T) {
			r := newRig(t, simulator.Config{})
			r.put(foreign)
			c := r.newCluster(r.URL, nil).impatient()
			node := c.addNode("a", "10.244.0.0/24")
			c.list() // finds the router
			remove := r.Inject(fault)
			err := c.create(node)
			remove()
			if err != nil && fault.Rate == 0 {
				t.Errorf("error %v", err)
			}
			c.settle()
			if got, want := r.leads(), "10.244.0.0/24>"+internalIP(node)+" 192.168.7.0/24>172.16.9.9"; got != want {
				t.Errorf("routes %s, want %s", got, want)
			}
		})
	}
}

// A CCM that ends at any moment leaves nothing that the next one does not put right.
func TestTheNextOneGoesOn(t *testing.T) {
	for requests := range 5 {
		r := newRig(t, simulator.Config{})
		r.put(foreign)
		first := r.newCluster(r.URL, func(c *Config) { c.ClusterID = "prod" }).impatient()
		node := first.addNode("a", "10.244.0.0/24")
		first.list()
		remove := r.Inject(simulator.Fault{Skip: requests, Latency: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_ = first.CreateRoute(ctx, "", "", &cloudprovider.Route{TargetNode: "a", DestinationCIDR: "10.244.0.0/24"})
		cancel()
		first.Close()
		remove()
		second := r.newCluster(r.URL, func(c *Config) { c.ClusterID = "prod" }).impatient()
		second.setNode(node)
		second.settle()
		if got, want := r.leads(), "10.244.0.0/24>"+internalIP(node)+" 192.168.7.0/24>172.16.9.9"; got != want {
			t.Errorf("ended at request %d: routes %s, want %s", requests, got, want)
		}
	}
}

// What a caller no longer waits for is done all the same.
func TestWorkIsNotForgotten(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	c.addNode("a", "10.244.0.0/24")
	c.list()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	owner, _ := c.ownerOf(t.Context())
	change := newChange(owner.routeName("a", mustPrefix("10.244.0.0/24")), mustPrefix("10.244.0.0/24"), addresses("172.16.0.9")[0])
	if err := c.writerOf(r.router, owner).do(ctx, change); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	<-change.done
	if got := r.leads(); change.err != nil || got != "10.244.0.0/24>172.16.0.9" {
		t.Errorf("routes %s, error %v", got, change.err)
	}
}

// As many routes as the API allows are made, the others' nodes are told, and the API is left in peace.
func TestTheRouterIsFull(t *testing.T) {
	const most = 50
	r := newRig(t, simulator.Config{MaxStaticRoutes: most})
	r.put(foreign)
	c := r.newCluster(r.URL, nil).impatient()
	c.addNode("real", "10.100.0.0/24")
	c.settle()
	var mu sync.Mutex
	failed := map[int]error{}
	var running sync.WaitGroup
	r.ResetRequests()
	for i := range 120 {
		c.setNode(fakeNode(i))
		running.Go(func() {
			if err := c.create(fakeNode(i)); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[i] = err
			}
		})
	}
	running.Wait()
	if got := len(r.raw()); got != most {
		t.Errorf("%d routes, want as many as there can be, %d", got, most)
	}
	if len(failed) != 120-(most-2) {
		t.Errorf("%d failed, want %d", len(failed), 120-(most-2))
	}
	for _, err := range failed {
		var full *FullError
		if !errors.As(err, &full) || full.Routes != most {
			t.Fatalf("error %v", err)
		}
	}
	event := c.event()
	if !strings.Contains(event, ReasonLimit) || !strings.Contains(event, "50 static routes") || !strings.Contains(event, "overlay") {
		t.Errorf("event %q", event)
	}
	t.Logf("finding the limit took %v", r.Requests())

	for len(c.events.Events) > 0 {
		<-c.events.Events
	}
	r.ResetRequests()
	for range 3 { // the controller comes again and again
		for i := range failed {
			running.Go(func() { _ = c.create(fakeNode(i)) })
		}
		running.Wait()
	}
	if writes := r.Requests().Of("PATCH /router/{uuid}"); writes > 0 {
		t.Errorf("%d writes to a router that is full", writes)
	}
	if event := c.event(); event != "" {
		t.Errorf("told again: %s", event)
	}

	// A route that goes makes room for another at once.
	for i := range 120 {
		if failed[i] == nil {
			if err := c.nodes.Delete(fakeNode(i)); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	_, _ = c.pass(t.Context())
	if got := len(r.raw()); got != most {
		t.Errorf("%d routes after one node made room", got)
	}
}

// One route that the API does not take costs the others nothing.
func TestOneBadRouteAmongMany(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	owner, _ := c.ownerOf(t.Context())
	w := c.writerOf(r.router, owner)
	var running sync.WaitGroup
	for i := range 10 {
		name, hop := owner.routeName(fmt.Sprint(i), mustPrefix(prefixOf(i))), addresses(fmt.Sprintf("172.16.0.%d", i+10))[0]
		if i == 6 {
			name += strings.Repeat("x", 100) // longer than a name may be
		}
		running.Go(func() {
			err := w.do(t.Context(), newChange(name, mustPrefix(prefixOf(i)), hop))
			if (err != nil) != (i == 6) || i == 6 && !errors.Is(err, cloud.ErrInvalid) {
				t.Errorf("route %d: %v", i, err)
			}
		})
	}
	running.Wait()
	if got := len(r.raw()); got != 9 {
		t.Errorf("%d routes, want 9", got)
	}
}

func TestThereIsNoRouter(t *testing.T) {
	r := newRig(t, simulator.Config{})
	r.Do(t, "PUT", "/network/"+r.network, `{"network":{"router":null}}`, nil)
	c := r.newCluster(r.URL, nil)
	node := c.addNode("a", "10.244.0.0/24")
	if listed := c.list(); len(listed) != 0 {
		t.Errorf("listed: %+v", listed)
	}
	for range 3 {
		if err := c.create(node); err == nil || !strings.Contains(err.Error(), "has no router") || !strings.Contains(err.Error(), "createRouter") {
			t.Errorf("error %v", err)
		}
	}
	if event := c.event(); !strings.Contains(event, ReasonNoRouter) || !strings.Contains(event, r.network) {
		t.Errorf("event %q", event)
	}
	if event := c.event(); event != "" {
		t.Errorf("told twice: %s", event)
	}
	unknown := r.newCluster(r.URL, func(c *Config) { c.RouterID = "04aaaaaa-0000-4000-8000-000000000000" })
	unknown.setNode(node)
	if err := unknown.create(node); err == nil || !strings.Contains(err.Error(), "routerUUID") {
		t.Errorf("with a router that is not there: %v", err)
	}
}

func TestNodesOnTwoRouters(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil)
	c.addNode("a", "10.244.0.0/24")
	first, network := r.router, r.network
	r.network, r.router = r.CreateNetwork(t, "more", zone, "172.20.0.0/16"), r.createRouter()
	r.attach(r.network, r.router)
	b := c.addNode("b", "10.244.1.0/24")
	if err := c.create(b); err == nil || !strings.Contains(err.Error(), "routerUUID") || !strings.Contains(err.Error(), first) {
		t.Errorf("error %v", err)
	}
	// One router for both networks is fine.
	r.attach(network, r.router)
	again := r.newCluster(r.URL, nil).impatient()
	for _, object := range c.nodes.List() {
		_ = again.nodes.Add(object)
	}
	again.settle()
	if got := len(r.raw()); got != 2 {
		t.Errorf("%d routes, want 2: %s", got, r.raw())
	}
}

// A node that joins on the network of another router gets no route, and the others keep theirs: by a CCM that has just started, too.
func TestANodeInTheWrongPlaceStopsNobody(t *testing.T) {
	r := newRig(t, simulator.Config{})
	named := func(c *Config) { c.ClusterID = "prod" }
	first := r.newCluster(r.URL, named).impatient()
	a, c := first.addNode("a", "10.244.0.0/24"), first.addNode("c", "10.244.2.0/24")
	first.mustCreate(a)
	router := r.router
	r.network, r.router = r.CreateNetwork(t, "more", zone, "172.20.0.0/16"), r.createRouter()
	r.attach(r.network, r.router)
	b := first.addNode("b", "10.244.1.0/24")
	r.router = router

	second := r.newCluster(r.URL, named).impatient()
	for _, node := range []*v1.Node{a, b, c} {
		second.setNode(node)
	}
	if listed := second.list(); len(listed) != 1 || listed[0].TargetNode != "a" {
		t.Errorf("listed: %+v", listed)
	}
	second.mustCreate(c)
	if err := second.create(b); err == nil || !strings.Contains(second.event(), ReasonNoNextHop) {
		t.Errorf("the node in the wrong place: %v", err)
	}
	if got, want := r.leads(), "10.244.0.0/24>"+internalIP(a)+" 10.244.2.0/24>"+internalIP(c); got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
}

func TestARouterIsMadeWhereThatIsAllowed(t *testing.T) {
	for requests := range 6 { // and the CCM ends after so many requests of it
		r := newRig(t, simulator.Config{})
		r.Do(t, "PUT", "/network/"+r.network, `{"network":{"router":null}}`, nil)
		r.Do(t, "DELETE", "/router/"+r.router, "", nil)
		allow := func(c *Config) { c.CreateRouter, c.ClusterID = true, "prod" }
		api, finish := r.lastingAPI()
		first := r.newCluster(api, allow)
		node := first.addNode("a", "10.244.0.0/24")
		remove := r.Inject(simulator.Fault{Skip: requests, Drop: true, AfterEffect: true})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_ = first.CreateRoute(ctx, "", "", &cloudprovider.Route{TargetNode: "a", DestinationCIDR: "10.244.0.0/24"})
		cancel()
		first.Close()
		finish() // nobody can find a router again that is not made yet
		remove()

		second := r.newCluster(r.URL, allow)
		second.setNode(node)
		second.settle()
		var answer struct {
			Routers struct {
				Router []struct{ UUID, Name, Type string }
			}
		}
		r.Do(t, "GET", "/router", "", &answer)
		var own []string
		for _, router := range answer.Routers.Router {
			if router.Type == "normal" {
				own = append(own, router.UUID)
			}
		}
		if len(own) != 1 {
			t.Fatalf("ended at request %d: routers %v, want one", requests, answer.Routers.Router)
		}
		r.router = own[0]
		if got, want := r.leads(), "10.244.0.0/24>"+internalIP(node); got != want {
			t.Errorf("routes %s, want %s", got, want)
		}
	}
}

func TestSourceFiltering(t *testing.T) {
	for _, manage := range []bool{false, true} {
		r := newRig(t, simulator.Config{})
		c := r.newCluster(r.URL, func(c *Config) { c.ManageSourceFilter = manage }).impatient()
		node := c.addNode("a", "10.244.0.0/24")
		server := r.createServer("filtered", "yes")
		node.Spec.ProviderID, node.Status.Addresses[1].Address = "upcloud:////"+server, r.privateAddress(server)
		c.mustCreate(node)
		event := c.event()
		if !strings.Contains(event, ReasonFilter) || !strings.Contains(event, server) || !strings.Contains(event, "stop the server") {
			t.Errorf("manage %t: event %q", manage, event)
		}
		if tried := strings.Contains(event, "could not"); tried != manage {
			t.Errorf("manage %t: event %q", manage, event)
		}
		// Only a stopped server can be changed.
		r.Do(t, "POST", "/server/"+server+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
		c.mustCreate(node)
		var details struct {
			Server struct {
				Networking struct {
					Interfaces struct {
						Interface []struct {
							Filtering string `json:"source_ip_filtering"`
						}
					}
				}
			}
		}
		r.Do(t, "GET", "/server/"+server, "", &details)
		if off := details.Server.Networking.Interfaces.Interface[0].Filtering == "no"; off != manage {
			t.Errorf("manage %t: filtering is off: %t", manage, off)
		}
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	node := c.addNode("a", "10.244.0.0/24")
	c.list()
	r.Inject(simulator.Fault{Operation: "PATCH /router/{uuid}", Latency: time.Hour})
	ended := make(chan error, 1)
	go func() { ended <- c.create(node) }()
	for r.Requests().Of("GET /router/{uuid}") < 2 {
		time.Sleep(time.Millisecond)
	}
	c.Close()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
}
