package driver_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/propertytest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// world is an account with two copies of the controller, of which one leads, and a person at the panel; and what the account must
// hold, as the answers so far have it.
type world struct {
	t       *testing.T
	sim     *simulatortest.Server
	servers []string
	calm    atomic.Bool // no faults, and the person keeps still

	mu        sync.Mutex // guards what follows
	rand      *propertytest.Sequence
	copies    [2]*copyOfController
	leader    int
	leading   context.Context // ends when the lead moves
	resign    context.CancelFunc
	log       []string                  // the last steps
	volumes   map[string]*modelVolume   // by name
	snapshots map[string]*modelSnapshot // by name
	busy      map[string]bool           // names that a step uses
	asked     map[string]string         // what is asked for, by the ID of a volume or snapshot
	touched   map[string]bool           // IDs that the person changed since a step began
	held      map[string]bool           // IDs that the person leaves alone
	made      map[string]bool           // IDs of all that the driver ever made
	theirs    []string                  // IDs of the person's storages
	expected  map[string]string         // how the person left them
}

type modelVolume struct {
	id, source, server string
	size               int64
}

type modelSnapshot struct {
	id, source string
	size       int64
}

// TestRandomSequences makes random calls to the copy of the controller that leads, several at a time, and repeats each until its
// answer is final. Meanwhile the lead moves and leaves calls behind, processes die, requests and answers are late, get lost, are
// throttled or refused, and a person changes the account by hand. Each request that changes something must be asked for and be
// about what the driver made; answers and account are compared with a model of a few maps.
//
// Goroutines race in it, so that a seed repeats what is asked for, and not always the order in which it happens.
func TestRandomSequences(t *testing.T) {
	propertytest.Run(t, 1500, func(t *testing.T, s *propertytest.Sequence) {
		synctest.Test(t, func(t *testing.T) { takeSteps(t, s) })
	})
}

func takeSteps(t *testing.T, s *propertytest.Sequence) {
	w := newWorld(t, s)
	last := func() string { return strings.Join(w.log[max(0, len(w.log)-60):], "\n") }
	for step := 0; step < s.Steps; {
		step += w.round()
		if t.Failed() || w.intn(10) == 0 {
			w.pause(t)
		}
		if t.Failed() {
			t.Fatalf("after step %d of %s; the last were:\n%s", step, s, last())
		}
	}
	w.clear()
	w.pause(t)
	if t.Failed() {
		t.Fatalf("in the end of %s; the last were:\n%s", s, last())
	}
}

func newWorld(t *testing.T, s *propertytest.Sequence) *world {
	w := &world{
		t: t, rand: s, sim: simulatortest.StartInMemory(t, simulator.Config{Seed: s.Seed}),
		volumes: map[string]*modelVolume{}, snapshots: map[string]*modelSnapshot{}, busy: map[string]bool{},
		asked: map[string]string{}, touched: map[string]bool{}, held: map[string]bool{}, made: map[string]bool{},
		expected: map[string]string{},
	}
	for i := range 2 {
		w.servers = append(w.servers, w.sim.CreateServer(t, fmt.Sprint("worker-", i), zone))
		w.copies[i] = w.startCopy(i)
	}
	w.leading, w.resign = context.WithCancel(t.Context())
	return w
}

func (w *world) intn(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rand.IntN(n)
}

// note adds to the log. The lock is held.
func (w *world) note(format string, args ...any) {
	w.log = append(w.log, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
	if len(w.log) > 1000 {
		w.log = slices.Clone(w.log[500:])
	}
}

// round takes some steps at once, while things happen, and returns how many.
func (w *world) round() int {
	var steps []func()
	for range 1 + w.intn(3) {
		if step := w.step(); step != nil {
			steps = append(steps, step)
		}
	}
	var running sync.WaitGroup
	for _, step := range steps {
		running.Go(step)
	}
	over := make(chan struct{})
	var events sync.WaitGroup
	events.Go(func() { w.disturb(over) })
	running.Wait()
	close(over)
	events.Wait()
	return max(1, len(steps))
}

// disturb lets things happen until the steps are over.
func (w *world) disturb(over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Duration(w.intn(400))*time.Millisecond + 500*time.Microsecond): // while nothing else happens
		}
		switch w.intn(24) {
		case 0:
			w.moveLead()
		case 1:
			w.die()
		case 2, 3, 4, 5, 6, 7:
			w.personActs()
		}
	}
}

// moveLead lets the other copy lead. The calls to the one that led end.
func (w *world) moveLead() {
	w.resign()
	time.Sleep(time.Millisecond) // for the copy to notice: in a bubble, time passes when everything else is done
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leader = 1 - w.leader
	w.leading, w.resign = context.WithCancel(w.t.Context())
	w.note("the lead moves to copy %d", w.leader+1)
}

// die ends the process of one of the copies, and starts it again.
func (w *world) die() {
	n := w.intn(2)
	w.copies[n].kill()
	time.Sleep(time.Millisecond)
	c := w.startCopy(n)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.copies[n] = c
	w.note("copy %d died", n+1)
}

// call makes a call to the copy that leads. It ends when the lead moves, or the process dies.
func (w *world) call(do call) error {
	w.mu.Lock()
	leading, c := w.leading, w.copies[w.leader]
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(leading, time.Minute)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	return do(ctx, c.controller)
}

// do makes a call until its answer is final, and once more if the person has changed the volume meanwhile; now and then several
// times at once. It gives up early, with codes.Canceled, when the caller left and wants something else.
func (w *world) do(what, id string, mayGiveUp bool, do call) codes.Code {
	w.begin(what, id)
	for deadline := time.Now().Add(time.Hour); ; {
		twin := make(chan struct{})
		if w.intn(8) == 0 {
			go func() { // its answer does not matter: it is that of the one beside it
				defer close(twin)
				_ = w.call(do)
			}()
		} else {
			close(twin)
		}
		err := w.call(do)
		<-twin
		code := status.Code(err)
		final := code != codes.Aborted && code != codes.Unavailable && code != codes.DeadlineExceeded && code != codes.Canceled
		w.tell("  %s: %s %v", what, code, err)
		switch {
		case final && !w.disturbed(id):
			return code
		case !final && mayGiveUp && w.intn(3) == 0:
			return codes.Canceled
		case time.Now().After(deadline):
			w.t.Errorf("%s: no final answer in an hour: %v", what, err)
			return codes.Unknown
		}
		pause := time.Duration(w.intn(1000)) * time.Millisecond
		if final {
			pause = latest // an answer from before may be on its way
		}
		time.Sleep(pause)
	}
}

func (w *world) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note(format, args...)
}

// begin is called before the first try of a step.
func (w *world) begin(what, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("%s", what)
	w.touched[id] = false
}

// disturbed reports whether the person changed what a try was about. In the next one the person keeps away.
func (w *world) disturbed(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == "" || !w.touched[id] {
		return false
	}
	w.held[id], w.touched[id] = true, false
	return true
}

func (w *world) want(what string, got, want codes.Code) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// pick picks something that no other step uses. The lock is held.
func pick[V any](w *world, from map[string]V) (name string, value V) {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(from)), func(name string) bool { return w.busy[name] })
	if len(names) == 0 {
		return "", value
	}
	name = names[w.rand.IntN(len(names))]
	return name, from[name]
}

// pause waits until everything that was left behind has come to its end, and compares.
func (w *world) pause(t *testing.T) {
	w.calm.Store(true)
	defer w.calm.Store(false)
	time.Sleep(quiet)
	synctest.Wait()
	w.compare()
}
