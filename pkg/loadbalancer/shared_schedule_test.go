package loadbalancer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
)

// The scheduler lets controllers of several clusters run against one simulated load balancer, one request at a time, in every
// order that there is. Each request that changes something can also be the last of its process, or have its answer lost. (A process
// that dies before a request is one that died after its last one, and is started again late.) What controllers do follows from
// the answers that they got since they were started, so a point that looks the same, to everybody on it, as one that was seen
// already needs no second look. Requests about a Service's own backends are nobody else's business, and are let through at once.

// What becomes of a request.
const (
	pass       = iota
	dieBefore  // the process dies, and the request has no effect
	dieAfter   // the process dies, and the request had its effect
	loseAnswer // the request had its effect, and the process is told 502
	fates      = iota
	refuse     // the play is over
)

// mostTries is how often a controller tries one step.
const mostTries = 12

// choice is one step of a schedule.
type choice struct{ actor, fate int }

// scenario is what is played in every order.
type scenario struct {
	name    string
	faults  int // in one schedule at most
	prepare func(*world)
	players func(*world) []player
	live    func(*world) []*v1.Service // in the end; their clusters are the players', in turn
	losers  int                        // how many of them get nothing
	large   bool                       // it takes too long with faults
	allOnly bool                       // it takes too long without, too
}

// player is a cluster and what its controller does.
type player struct {
	cluster string
	key     string // of its Service
	do      []func(ctx context.Context, l *LoadBalancers) error
}

// theatre is what all schedules share: one simulated account, and a client and a gate for each cluster.
type theatre struct {
	t       *testing.T
	account *account
	handler http.Handler
	gates   []*gate
	runs    int
	edges   map[string]*savedEdge // by scenario
}

// gate is where a cluster's requests wait.
type gate struct {
	cloud   *cloud.Cloud
	arrived chan *waiting
	open    atomic.Bool // lets all pass
}

type waiting struct {
	method, path, body string
	write              bool
	verdict            chan int
	served             chan string // what the actor learned
}

func newTheatre(t *testing.T, clusters int) *theatre {
	a := newAccount(t, simulator.Config{}, "n1")
	th := &theatre{t: t, account: a, handler: a.Handler(), edges: map[string]*savedEdge{}}
	for range clusters {
		g := &gate{arrived: make(chan *waiting)}
		web := httptest.NewServer(th.gated(g))
		t.Cleanup(web.Close)
		c, err := cloud.New(cloud.Config{Token: a.Token, BaseURL: web.URL, RequestsPerSecond: 1e6, Burst: 1e6})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		g.cloud = c
		th.gates = append(th.gates, g)
	}
	return th
}

var aboutOne = regexp.MustCompile(`^/1\.3/load-balancer/[0-9a-f-]{36}`)

// gated serves a cluster's requests; those about load balancers wait to be let through.
func (th *theatre) gated(g *gate) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		of := aboutOne.MatchString(r.URL.Path) || r.URL.Path == "/1.3/load-balancer" &&
			(r.Method == http.MethodPost || strings.Contains(r.URL.RawQuery, settings.LabelSharedGroup))
		if g.open.Load() || !of {
			th.handler.ServeHTTP(w, r)
			return
		}
		one := &waiting{method: r.Method, path: r.URL.Path, body: string(body), write: r.Method != http.MethodGet, verdict: make(chan int), served: make(chan string, 1)}
		g.arrived <- one
		fate := <-one.verdict
		recorder := httptest.NewRecorder()
		if fate != refuse && fate != dieBefore {
			th.handler.ServeHTTP(recorder, r)
		}
		one.served <- fmt.Sprintf("%s %s %s %d %s", r.Method, r.URL.Path, body, recorder.Code, learned(recorder.Body.Bytes()))
		switch fate {
		case refuse, dieBefore, dieAfter:
			panic(http.ErrAbortHandler)
		case loseAnswer:
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, `{"type":"https://developers.upcloud.com/1.3/errors#ERROR_SERVICE_ERROR","title":"lost","status":502}`)
			return
		}
		maps.Copy(w.Header(), recorder.Header())
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(recorder.Body.Bytes())
	}
}

// learned is what a controller can make use of in an answer: not in which order the API lists things, nor what others' backends
// are like.
func learned(body []byte) string {
	var lb cloud.LoadBalancer
	if json.Unmarshal(body, &lb) != nil || lb.Backends == nil {
		return string(body)
	}
	lb.Nodes, lb.Networks, lb.Backends = nil, nil, slices.DeleteFunc(lb.Backends, func(b cloud.Backend) bool { return plan.KeyOf(b.Name) != "" })
	slices.SortFunc(lb.Frontends, func(a, b cloud.Frontend) int { return strings.Compare(a.Name, b.Name) })
	for _, frontend := range lb.Frontends {
		slices.SortFunc(frontend.Rules, func(a, b cloud.Rule) int { return strings.Compare(a.Name, b.Name) })
	}
	text, _ := json.Marshal(lb)
	return string(text)
}

// explore plays a scenario in every order, and returns how many schedules that took, and how many different points they had.
func (th *theatre) explore(s scenario) (schedules, points int) {
	th.t.Helper()
	seen := map[[32]byte]bool{}
	todo := [][]choice{nil}
	for len(todo) > 0 {
		prefix := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		more, repeated := th.play(s, prefix, seen)
		for try := 1; !repeated && !th.t.Failed(); try++ {
			if try == mostTries {
				th.t.Fatalf("%s: schedule %v could not be repeated in %d tries", s.name, prefix, try)
			}
			more, repeated = th.play(s, prefix, seen)
		}
		todo = append(todo, more...)
		if schedules++; th.t.Failed() {
			return schedules, len(seen)
		}
	}
	return schedules, len(seen)
}

// world is one schedule's load balancer and controllers.
type world struct {
	*theatre
	s            scenario
	lbID, lbName string
	state        map[string]any // of the load balancer
	parts        map[string]component
	kept         bool // it serves other schedules, too
	faults       int
	acts         []*act
	mu           sync.Mutex
	told         []string // events
}

// act is a player on the stage.
type act struct {
	player
	gate   *gate
	cancel context.CancelFunc
	kill   atomic.Pointer[context.CancelFunc] // of the process
	died   atomic.Bool
	done   chan error
	waits  *waiting
	over   bool
	quiet  bool // a request of its own was let through since the last choice
	lives  atomic.Int32
	// What the process remembers: its last two looks at the load balancer, with what came of its requests since. Nothing older
	// matters to a controller, but how often it has looked.
	earlier, latest [32]byte
	looks           int
}

// play plays one schedule: first the choices of the prefix, then the first that there is at each point. The other ones of the
// points beyond the prefix are returned. repeated is false if a choice of the prefix was not possible: a controller gives up on what a
// machine under load answers late, and then sends other requests than before.
func (th *theatre) play(s scenario, prefix []choice, seen map[[32]byte]bool) (more [][]choice, repeated bool) {
	w := &world{theatre: th, s: s, lbName: fmt.Sprintf("edge-%s-%d", strings.ReplaceAll(s.name, " ", "-"), th.runs)}
	th.runs++
	for _, g := range th.gates {
		g.open.Store(true)
	}
	s.prepare(w)
	w.state = w.read()
	defer w.end()
	for i, p := range s.players(w) {
		w.acts = append(w.acts, &act{player: p, gate: th.gates[i], done: make(chan error, 1)})
		th.gates[i].open.Store(false)
		w.start(w.acts[i])
	}
	played := slices.Clone(prefix)
	fail := func(err error) {
		th.t.Errorf("%s: %v\nschedule %v\ntold %q\n%s", s.name, err, played, w.told, example.JSON(th.t, w.read()))
	}
	for at := 0; ; at++ {
		choices := w.choices()
		if at < len(prefix) && !slices.Contains(choices, played[at]) {
			return nil, false
		}
		if len(choices) == 0 {
			break
		}
		if at >= len(prefix) {
			point := w.point()
			if seen[point] {
				return more, true
			}
			seen[point] = true
			for _, other := range choices[1:] {
				more = append(more, append(slices.Clone(played), other))
			}
			played = append(played, choices[0])
		}
		if err := w.step(played[at], at >= len(prefix)-1); err != nil {
			fail(err)
			return nil, true
		}
	}
	if err := w.settled(); err != nil {
		fail(err)
		return nil, true
	}
	return more, true
}

// start runs a player until it is over; a process that dies is started again and begins its step anew.
func (w *world) start(a *act) {
	ctx, cancel := context.WithCancel(klog.NewContext(w.t.Context(), logr.Discard()))
	a.cancel = cancel
	life := func(do func(context.Context, *LoadBalancers) error) error {
		alive, kill := context.WithCancel(ctx)
		defer kill()
		a.kill.Store(&kill)
		a.lives.Add(1)
		return do(alive, w.controller(a.cluster, a.gate.cloud))
	}
	go func() {
		var err error
		for _, do := range a.do {
			for range mostTries {
				if err = life(do); a.died.Swap(false) || err != nil && ctx.Err() == nil {
					err = cmp.Or(err, errors.New("died"))
					continue
				}
				break
			}
		}
		a.done <- err
	}()
	w.await(a)
}

// controller is the program of a cluster, freshly started.
func (w *world) controller(cluster string, c *cloud.Cloud) *LoadBalancers {
	l := New(Config{Cloud: c, ClusterName: cluster, Shared: []settings.SharedAccess{{LoadBalancer: w.lbID}}})
	l.Start(nil, w)
	return l
}

// Eventf implements record.EventRecorder.
func (w *world) Eventf(object runtime.Object, _, reason, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, object.(*v1.Service).Name+" "+reason+" "+fmt.Sprintf(format, args...))
}

func (w *world) Event(runtime.Object, string, string, string) {}

func (w *world) AnnotatedEventf(runtime.Object, map[string]string, string, string, string, ...any) {}

// await waits until a player wants to send a request, or is over.
func (w *world) await(a *act) {
	select {
	case a.waits = <-a.gate.arrived:
	case err := <-a.done:
		a.over, a.waits = true, nil
		if err != nil {
			w.t.Errorf("%s: %s does not get done: %v", w.s.name, a.cluster, err)
		}
	}
}

// choices are the steps that are possible now.
func (w *world) choices() (all []choice) {
	for fate := range fates {
		for i, a := range w.acts {
			if !a.over && (fate == pass || w.faults < w.s.faults && (fate == dieBefore && a.quiet || fate != dieBefore && a.waits.write)) {
				all = append(all, choice{i, fate})
			}
		}
	}
	return all
}

// step lets one request have its fate, and looks at what that has changed.
func (w *world) step(c choice, look bool) error {
	a := w.acts[c.actor]
	var before map[string]component
	if look { // and not at what another schedule has shown already
		if w.parts == nil {
			w.parts = componentsOf(w.read())
		}
		before = w.parts
	}
	lives := a.lives.Load()
	if c.fate != pass {
		w.faults++
	}
	if c.fate == dieAfter || c.fate == dieBefore {
		a.died.Store(true)
		(*a.kill.Load())()
	}
	one := a.waits
	w.serve(a, c.fate)
	for a.quiet = false; !a.over && a.ownBusiness(); {
		a.quiet = true
		w.serve(a, pass)
	}
	if a.lives.Load() != lives {
		a.earlier, a.latest, a.looks = [32]byte{}, [32]byte{}, 0
	}
	if !look {
		return nil
	}
	w.state = w.read()
	w.parts = componentsOf(w.state)
	if err := onlyOwn(a.key, before, w.parts); err != nil {
		return fmt.Errorf("%s %s by %s: %w", one.method, one.path, a.cluster, err)
	}
	return nil
}

// serve lets the request that waits have its fate, and waits for the next one.
func (w *world) serve(a *act, fate int) {
	one := a.waits
	one.verdict <- fate
	learned := <-one.served
	if fate != pass {
		learned = fmt.Sprint("fate ", fate)
	}
	if !one.write {
		a.earlier, a.latest = a.latest, [32]byte{}
		a.looks++
	}
	a.latest = sha256.Sum256(append(a.latest[:], w.normal(learned)...))
	w.await(a)
}

// ownBusiness says whether the request that waits is about a backend of the Service's own: its name is nobody else's, and nobody
// else looks at it.
func (a *act) ownBusiness() bool {
	i := strings.Index(a.waits.path, "/backends")
	return i >= 0 && !strings.Contains(a.waits.path+a.waits.body, plan.NoneBackend)
}

var (
	changing = regexp.MustCompile(`"(created_at|updated_at|operational_state|dns_name|address|uuid|correlation_id)": ?"[^"]*"`)
	nonces   = regexp.MustCompile(`-going-[0-9a-f]+`)
)

// normal is a text without what differs from one schedule to another that is the same.
func (w *world) normal(text string) string {
	text = strings.NewReplacer(w.lbID, "LB", w.lbName, "NAME").Replace(text)
	text = changing.ReplaceAllString(text, "")
	known := map[string]string{}
	return nonces.ReplaceAllStringFunc(text, func(nonce string) string {
		if _, ok := known[nonce]; !ok {
			known[nonce] = fmt.Sprint("-going-#", len(known))
		}
		return known[nonce]
	})
}

// point stands for everything that decides what can happen from here on.
func (w *world) point() [32]byte {
	var text strings.Builder
	state, _ := json.Marshal(w.state)
	text.WriteString(w.normal(string(state)))
	for _, a := range w.acts {
		fmt.Fprintf(&text, "\n%x %x %d %v", a.earlier, a.latest, a.looks, a.over)
		if a.waits != nil {
			fmt.Fprint(&text, a.waits.method, w.normal(a.waits.path))
		}
	}
	fmt.Fprint(&text, w.faults)
	return sha256.Sum256([]byte(text.String()))
}

// call asks the simulator without a network between.
func (w *world) call(method, path, body string) (int, []byte) {
	r := httptest.NewRequestWithContext(w.t.Context(), method, "/1.3"+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+w.account.Token)
	recorder := httptest.NewRecorder()
	w.handler.ServeHTTP(recorder, r)
	return recorder.Code, recorder.Body.Bytes()
}

// read is the load balancer as it is; nil: there is none.
func (w *world) read() map[string]any {
	if w.lbID == "" {
		w.findGroup()
	}
	status, text := w.call(http.MethodGet, "/load-balancer/"+w.lbID, "")
	if status != http.StatusOK || w.lbID == "" {
		return nil
	}
	var lb map[string]any
	if err := json.Unmarshal(text, &lb); err != nil {
		w.t.Fatal(err)
	}
	lb = withoutTimes(lb).(map[string]any)
	for _, list := range []string{"frontends", "backends"} {
		all := lb[list].([]any)
		slices.SortFunc(all, func(a, b any) int {
			return strings.Compare(nonces.ReplaceAllString(a.(map[string]any)["name"].(string), ""), nonces.ReplaceAllString(b.(map[string]any)["name"].(string), ""))
		})
	}
	return lb
}

// findGroup finds the load balancer that the players have made.
func (w *world) findGroup() {
	_, text := w.call(http.MethodGet, "/load-balancer?limit=100&label="+settings.LabelSharedGroup+"%3D"+w.lbName, "")
	var all []struct{ UUID string }
	if err := json.Unmarshal(text, &all); err != nil {
		w.t.Fatal(err)
	}
	if len(all) > 1 {
		w.t.Errorf("%d load balancers for one group", len(all))
	}
	if len(all) > 0 {
		w.lbID = all[0].UUID
	}
}

// end ends what still runs, and removes the load balancer.
func (w *world) end() {
	for _, a := range w.acts {
		a.gate.open.Store(true)
		a.cancel()
		for !a.over {
			if a.waits != nil {
				a.waits.verdict <- refuse
				a.waits = nil
			}
			select {
			case a.waits = <-a.gate.arrived:
			case <-a.done: //nolint:errcheck // whatever came of it: it was told to end
				a.over = true
			}
		}
	}
	if w.lbID != "" && !w.kept {
		w.call(http.MethodDelete, "/load-balancer/"+w.lbID, "")
	}
}
