package driver_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// The scheduler runs two copies of the controller on one account, one step at a time, in every order that there is. A caller of
// the first copy leaves it at any moment, as a sidecar does that is no longer the leader, and the second copy gets its calls from
// then on. What the first copy does from then on follows from the answers that it got, so a point that looks the same to both as
// one that was seen already needs no second look.
//
// A request that changes something reaches the API at once, and its answer may take for ever: of a request that the network keeps
// until others have changed the account, the effect is the same whatever its sender does by then. Where that does no harm, it
// is late, too: see scenario.latePuts.

// stepKind is what a step of a schedule does.
type stepKind int

const (
	stepServe    stepKind = iota // the request of a copy takes effect; that of a question is answered, too
	stepThrottle                 // it has no effect, and is answered with 429
	stepRefuse                   // it has no effect, and is answered with 500
	stepLose                     // it takes effect, and the connection breaks off
	stepDeliver                  // the answer to a change arrives
	stepWake                     // time passes, until the copy sends something, or for so long that it never will
	stepLeave                    // the caller of the first copy leaves
	stepAct                      // a person changes something by hand
)

var stepNames = []string{"serve", "throttle", "refuse", "lose", "deliver", "wake", "leave", "person"}

// step is one step of a schedule.
type step struct {
	kind stepKind
	copy int // 0 or 1; of stepLeave and stepAct 0
}

func (s step) String() string { return fmt.Sprintf("%s %d", stepNames[s.kind], s.copy+1) }

// quiet is when a copy that was left has given up what it could go on with.
const quiet = 3 * time.Minute

// stage is one schedule.
type stage struct {
	t          *testing.T
	s          *scenario
	sim        *simulatortest.Server
	open       atomic.Bool // all requests pass
	names      map[string]string
	ids        map[string]string // by name
	answered   map[string]string // IDs that calls of the second copy returned, by what they are of
	players    [2]*player
	begin      chan struct{} // closed when the second copy gets its calls
	abandon    context.CancelFunc
	left       bool
	acted      bool
	faults     int // so far
	mostFaults int
	others     string // what is not the driver's
	lastSteps  []string
}

// explore plays a scenario in every order, and returns how many schedules that took, and how many different points they had.
func explore(t *testing.T, s *scenario, mostFaults int) (schedules, points int) {
	t.Helper()
	seen := map[[32]byte]bool{}
	todo := [][]step{nil}
	for len(todo) > 0 && !t.Failed() {
		prefix := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		synctest.Test(t, func(t *testing.T) {
			todo = append(todo, play(t, s, mostFaults, prefix, seen)...)
		})
		schedules++
	}
	return schedules, len(seen)
}

// play plays one schedule: first the steps of the prefix, then the first that there is at each point. The other ones of the
// points beyond the prefix are returned.
func play(t *testing.T, s *scenario, mostFaults int, prefix []step, seen map[[32]byte]bool) (more [][]step) {
	w := newStage(t, s)
	w.mostFaults = mostFaults
	defer w.end()
	var played []step
	for at := 0; ; at++ {
		synctest.Wait()
		steps := w.steps()
		if len(steps) == 0 {
			break
		}
		next := steps[0]
		if at < len(prefix) {
			next = prefix[at]
			if asleep := (step{stepWake, next.copy}); !slices.Contains(steps, next) && slices.Contains(steps, asleep) {
				w.take(asleep) // pauses are random: before, it was woken along with the other copy
				synctest.Wait()
				steps = w.steps()
			}
			if !slices.Contains(steps, next) {
				continue // it has awoken already
			}
		} else {
			point := w.point()
			if seen[point] {
				return more
			}
			seen[point] = true
			for _, other := range steps[1:] {
				more = append(more, append(slices.Clone(played), other))
			}
		}
		played = append(played, next)
		w.take(next)
		synctest.Wait()
		if at < len(prefix)-1 {
			continue // another schedule has looked at this already
		}
		if got := w.foreign(); got != w.others {
			w.fail(fmt.Sprintf("what is not the driver's has changed:\n%s\nand was\n%s", got, w.others), played)
			return nil
		}
	}
	w.settle()
	if wrong := w.judge(); wrong != "" {
		w.fail(wrong, played)
	}
	return more
}

func (w *stage) fail(what string, played []step) {
	w.t.Errorf("%s: %s\nschedule %v\n%s", w.s.name, what, played, strings.Join(w.lastSteps, "\n"))
}

// steps are those that are possible now.
func (w *stage) steps() (all []step) {
	for i, p := range w.players {
		if e := p.next(true); e != nil && w.reachesTheAPI(e) {
			all = append(all, w.fates(i)...)
		}
	}
	if len(all) > 0 {
		return all
	}
	for i, p := range w.players {
		switch e := p.next(true); {
		case e != nil && e.write():
			all = append(all, w.fates(i)...)
		case e != nil:
			all = append(all, step{stepServe, i})
		case p.next(false) != nil:
			all = append(all, step{stepDeliver, i})
		case !p.finished && (i == 0 || w.begun()):
			all = append(all, step{stepWake, i})
		}
	}
	if !w.left {
		all = append(all, step{stepLeave, 0})
	}
	if w.s.person != nil && !w.acted && w.s.personMay(w) {
		all = append(all, step{stepAct, 0})
	}
	return all
}

// reachesTheAPI reports whether a request takes effect before anything else happens.
func (w *stage) reachesTheAPI(e *exchange) bool {
	return e.write() && !(e.request.Method == http.MethodPut && w.s.latePuts)
}

// fates are what can become of a request that changes something. Only those of the first copy fail.
func (w *stage) fates(player int) []step {
	all := []step{{stepServe, player}}
	if player == 0 && w.faults < w.mostFaults {
		all = append(all, step{stepThrottle, player}, step{stepRefuse, player}, step{stepLose, player})
	}
	return all
}

func (w *stage) begun() bool {
	select {
	case <-w.begin:
		return true
	default:
		return false
	}
}

// take takes a step.
func (w *stage) take(s step) {
	p := w.players[s.copy]
	note := s.String()
	switch s.kind {
	case stepDeliver:
		e := p.next(false)
		note += " of " + e.request.Method + " " + w.named(e.request.URL.RequestURI())
		e.answer <- struct{}{}
	case stepWake:
		p.wake()
	case stepLeave:
		w.left = true
		w.abandon()
	case stepAct:
		w.acted = true
		w.s.person(w)
		w.others = w.foreign()
	default:
		e := p.next(true)
		note += " " + e.request.Method + " " + w.named(e.request.URL.RequestURI()) + " " + w.named(string(e.body))
		if s.kind != stepServe {
			w.faults++
		}
		e.verdict <- s.kind
	}
	w.lastSteps = append(w.lastSteps, note)
}

// point stands for everything that decides what can happen from here on.
func (w *stage) point() [32]byte {
	var text strings.Builder
	text.WriteString(w.account())
	for _, p := range w.players {
		fmt.Fprintf(&text, "%s\n%d %v", w.named(p.learnt()), p.returned.Load(), p.finished)
		for _, e := range p.stopped() {
			fmt.Fprint(&text, e.waiting.Load(), e.request.Method, w.named(e.request.URL.RequestURI()+string(e.body)))
		}
	}
	fmt.Fprint(&text, w.left, w.acted, w.faults)
	return sha256.Sum256([]byte(text.String()))
}

// settle lets everything run to its end.
func (w *stage) settle() {
	w.open.Store(true)
	for range 2 {
		time.Sleep(2 * quiet)
		synctest.Wait()
	}
}

func newStage(t *testing.T, s *scenario) *stage {
	w := &stage{
		t: t, s: s, sim: simulatortest.StartInMemory(t, simulator.Config{}), begin: make(chan struct{}),
		names: map[string]string{}, ids: map[string]string{}, answered: map[string]string{},
	}
	w.open.Store(true)
	for i := range w.players {
		p := &player{stage: w}
		p.replica = startReplica(t, w.sim, fmt.Sprintf("copy %d", i+1), p, 24*time.Hour)
		w.players[i] = p
	}
	s.prepare(w)
	w.open.Store(false)
	w.others = w.foreign()
	for _, p := range w.players {
		p.history.Reset()
	}
	w.players[0].calls, w.players[1].calls = []call{s.left(w)}, s.then(w)
	ctx, cancel := context.WithCancel(t.Context())
	w.abandon = cancel
	go func() {
		w.players[0].run(ctx)
		close(w.begin)
	}()
	go func() {
		<-w.begin
		w.players[1].run(t.Context())
	}()
	return w
}

// end ends what still runs.
func (w *stage) end() {
	w.open.Store(true)
	w.abandon()
	for _, p := range w.players {
		for _, e := range p.stopped() {
			if e.waiting.Load() {
				e.verdict <- stepRefuse
				synctest.Wait()
			}
			if e.write() && p == w.players[0] {
				e.answer <- struct{}{}
				synctest.Wait()
			}
		}
	}
	time.Sleep(2 * quiet)
	for _, p := range w.players {
		p.stop()
	}
}
