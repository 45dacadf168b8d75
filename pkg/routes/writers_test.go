package routes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// gate lets the requests of several programs to the router pass one at a time, in an order that the test chooses.
type gate struct {
	mu      sync.Mutex
	changed *sync.Cond
	order   []int        // who passes next; when it is used up, whoever comes
	at      map[int]bool // who waits at the gate
	ended   map[int]bool // who will not come any more
	busy    bool
	passed  []string // what came through: 0 read, 1 write
	after   func()   // called after each request, before the next one passes
}

func newGate(order []int) *gate {
	g := &gate{order: order, at: map[int]bool{}, ended: map[int]bool{}}
	g.changed = sync.NewCond(&g.mu)
	return g
}

// pass lets one request of a program through when it is its turn.
func (g *gate) pass(who int, what string, request func()) {
	g.mu.Lock()
	g.at[who] = true
	g.changed.Broadcast()
	for g.busy || !g.turn(who) {
		g.changed.Wait()
	}
	g.busy, g.at[who] = true, false
	g.passed = append(g.passed, fmt.Sprint(who, " ", what))
	if len(g.order) > 0 {
		g.order = g.order[1:]
	}
	g.mu.Unlock()
	request()
	if g.after != nil {
		g.after()
	}
	g.mu.Lock()
	g.busy = false
	g.changed.Broadcast()
	g.mu.Unlock()
}

func (g *gate) turn(who int) bool {
	for len(g.order) > 0 && g.ended[g.order[0]] {
		g.order = g.order[1:]
	}
	return len(g.order) == 0 || g.order[0] == who
}

// end says that a program is through.
func (g *gate) end(who int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended[who] = true
	g.changed.Broadcast()
}

// proxy is the API as one program sees it: its requests that concern routers go through the gate.
func (g *gate) proxy(t *testing.T, who int, api *simulatortest.Server) string {
	forward := api.Proxy(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if !strings.Contains(request.URL.Path, "/router/") {
			forward.ServeHTTP(w, request)
			return
		}
		what := "read"
		if request.Method == http.MethodPatch {
			what = "write"
		}
		g.pass(who, what, func() { forward.ServeHTTP(w, request) })
	}))
	t.Cleanup(web.Close)
	return web.URL
}

// orders are all orders in which two programs can make n requests.
func orders(n int) [][]int {
	all := [][]int{nil}
	for range n {
		var longer [][]int
		for _, order := range all {
			longer = append(longer, append(slices.Clone(order), 0), append(slices.Clone(order), 1))
		}
		all = longer
	}
	return all
}

// Two clusters write to one router at once. Whatever the order of their requests: a third party's route is there after each
// single request, as it was, and both clusters' routes are there in the end.
func TestTwoWritersInEveryOrder(t *testing.T) {
	for _, order := range orders(7) {
		r := newRig(t, simulator.Config{})
		r.put(foreign)
		g := newGate(order)
		g.after = func() {
			if raw := r.raw(); !slices.Contains(raw, foreign) {
				t.Errorf("order %v: the third party's route is lost or changed: %s", order, raw)
			}
		}
		var clusters [2]*cluster
		for i := range clusters {
			clusters[i] = r.newCluster(g.proxy(t, i, r.Server), func(c *Config) { c.ClusterID = fmt.Sprint(i) }).impatient()
			clusters[i].setNode(fakeNode(i))
			clusters[i].config.RouterID = r.router
		}
		var running sync.WaitGroup
		for i, c := range clusters {
			running.Go(func() {
				defer g.end(i)
				if _, err := c.pass(t.Context()); err != nil {
					t.Errorf("order %v: %v", order, err)
				}
			})
		}
		running.Wait()
		for range 2 { // one may have undone what the other had read back: the next pass mends it
			for _, c := range clusters {
				c.settle()
			}
		}
		if got, want := r.leads(), "10.101.0.0/24>172.16.100.1 10.101.1.0/24>172.16.100.2 192.168.7.0/24>172.16.9.9"; got != want {
			t.Errorf("order %v: routes %s, want %s", order, got, want)
		}
		if t.Failed() {
			return
		}
	}
}

// A change that somebody undoes at once is noticed and made again before CreateRoute returns.
func TestAnUndoneChangeIsMadeAgain(t *testing.T) {
	r := newRig(t, simulator.Config{})
	g := newGate([]int{0, 0, 0, 1, 0}) // list, read, write; the other program; read
	c := r.newCluster(g.proxy(t, 0, r.Server), nil).impatient()
	c.config.RouterID = r.router
	c.setNode(fakeNode(0))
	var running sync.WaitGroup
	running.Go(func() {
		defer g.end(0)
		if _, err := c.pass(t.Context()); err != nil {
			t.Error(err)
		}
	})
	g.pass(1, "write", func() { r.put(foreign) }) // it had read before
	g.end(1)
	running.Wait()
	if got, want := r.leads(), "10.101.0.0/24>172.16.100.1 192.168.7.0/24>172.16.9.9"; got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
}

// Another program adds a route of its own once, and looks whether it is there. The API has no condition on a write, so what is
// written between our reading and our writing is lost, and nobody can see it: all that can be shown is that nothing else is,
// and that a program that looks again later, as ours does, loses nothing.
func TestAnotherProgramInEveryOrder(t *testing.T) {
	lost := 0
	for _, order := range orders(7) {
		r := newRig(t, simulator.Config{})
		g := newGate(order)
		c := r.newCluster(g.proxy(t, 0, r.Server), nil).impatient()
		c.config.RouterID = r.router
		c.setNode(fakeNode(0))
		var running sync.WaitGroup
		running.Go(func() {
			defer g.end(0)
			if _, err := c.pass(t.Context()); err != nil {
				t.Errorf("order %v: %v", order, err)
			}
		})
		addForeign := func() {
			for range 20 {
				var have []string
				g.pass(1, "read", func() { have = r.raw() })
				if slices.Contains(have, foreign) {
					return
				}
				g.pass(1, "write", func() { r.put(append(have, foreign)...) })
			}
			t.Errorf("order %v: the other program's route never stays", order)
		}
		running.Go(func() {
			defer g.end(1)
			addForeign()
		})
		running.Wait()
		if !slices.Contains(r.raw(), foreign) {
			lost++
			if !wroteBetween(g.passed) {
				t.Errorf("order %v: the other program's route is lost, although it was written before we read: %v", order, g.passed)
			}
		}
		addForeign()
		c.settle()
		if got, want := r.leads(), "10.101.0.0/24>172.16.100.1 192.168.7.0/24>172.16.9.9"; got != want {
			t.Errorf("order %v: routes %s, want %s", order, got, want)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("lost in %d of %d orders, until the other program looked again", lost, len(orders(7)))
}

// wroteBetween says that program 1 wrote after program 0 had read, and before program 0 wrote on the strength of that.
func wroteBetween(passed []string) bool {
	foreignWrote := false
	for _, request := range passed {
		switch request {
		case "0 read":
			foreignWrote = false
		case "1 write":
			foreignWrote = true
		case "0 write":
			if foreignWrote {
				return true
			}
		}
	}
	return false
}

// Fields of others' routes that nobody here knows go back as they came.
func TestUnknownFieldsSurvive(t *testing.T) {
	const known = `{"name":"office","nexthop":"172.16.9.9","route":"192.168.7.0/24"}`
	const strange = `{"name":"office","nexthop":"172.16.9.9","route":"192.168.7.0/24","metric":{"a":[1,null]},"type":"user"}`
	r := newRig(t, simulator.Config{})
	r.put(known)
	var sent struct {
		Router struct {
			Routes []json.RawMessage `json:"static_routes"`
		}
	}
	forward := r.Proxy(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		switch {
		case request.Method == http.MethodPatch:
			if err := json.NewDecoder(request.Body).Decode(&sent); err != nil {
				t.Error(err)
			}
			http.Error(w, `{"error":{"error_code":"ROUTER_FORBIDDEN","error_message":"No."}}`, http.StatusForbidden)
		case strings.Contains(request.URL.Path, "/router/"):
			fmt.Fprintf(w, `{"router":{"uuid":%q,"static_routes":[%s]}}`, r.router, strange)
		default:
			forward.ServeHTTP(w, request)
		}
	}))
	t.Cleanup(web.Close)
	c := r.newCluster(web.URL, nil).impatient()
	if err := c.create(c.addNode("a", "10.244.0.0/24")); err == nil {
		t.Error("no error, although the API refused")
	}
	if len(sent.Router.Routes) != 2 {
		t.Fatalf("%d routes were sent", len(sent.Router.Routes))
	}
	var got, want any
	_ = json.Unmarshal(sent.Router.Routes[0], &got)
	_ = json.Unmarshal([]byte(strange), &want)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("sent %s, want %s", sent.Router.Routes[0], strange)
	}
}

// An answer that leaves the static routes out says nothing about them: nothing is written, which would take away others'.
func TestAnAnswerWithoutRoutesIsNoEmptyRouter(t *testing.T) {
	r := newRig(t, simulator.Config{})
	r.put(foreign)
	forward := r.Proxy(t)
	for name, fields := range map[string]string{"absent": `"name":"r"`, "null": `"static_routes":null`} {
		t.Run(name, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
				if request.Method == http.MethodGet && strings.Contains(request.URL.Path, "/router/") {
					fmt.Fprintf(w, `{"router":{"uuid":%q,%s}}`, r.router, fields)
					return
				}
				forward.ServeHTTP(w, request)
			}))
			t.Cleanup(web.Close)
			c := r.newCluster(web.URL, nil).impatient()
			owner, err := c.ownerOf(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.writerOf(r.router, owner).pace.Steps = 3
			if err := c.create(c.addNode(name, "10.244.0.0/24")); err == nil || !strings.Contains(err.Error(), "static routes") {
				t.Errorf("error %v", err)
			}
			if raw := r.raw(); !slices.Equal(raw, []string{foreign}) {
				t.Errorf("the other owner's route is lost: %s", raw)
			}
		})
	}
}
