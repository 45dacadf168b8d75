package cloud

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// linger bounds how long the last request of work may take after the last caller has left.
const linger = 2 * time.Minute

// flights lets callers who ask for the same thing at the same time share one piece of work. Each waits within its own
// context. Unlike with golang.org/x/sync/singleflight, the work knows whether anyone still waits.
//
// Work whose last caller has left changes nothing more. The request that is in flight then gets its answer, and a retry that
// comes meanwhile joins it; but nothing new is asked of the API. Another controller may have become the leader, may have
// finished this work and begun the next, which a late request would undo. The retry finds in the account what was done, as
// after a crash. Where a retry joins too late for that, it begins the work again.
type flights[V any] struct {
	life   context.Context // ends the work
	group  *workers        // counts it
	linger time.Duration
	// looksAgain lets a retry begin the work again whatever came of the work that it joined after the last caller had left: its
	// outcome is what it saw, which may have changed before the retry came.
	looksAgain bool

	mu     sync.Mutex
	flying map[string]*flight[V]
}

// flight is one piece of work and those who wait for it.
type flight[V any] struct {
	work    *work
	done    chan struct{}
	value   V
	err     error
	waiting int         // callers
	lapsed  bool        // there was a time when no caller waited
	landing *time.Timer // ends the work when no caller comes back
	cancel  context.CancelFunc
	lapse   context.CancelFunc
}

// work is what the function that does it gets to know about those who wait.
type work struct {
	// ctx is for requests. It outlives the callers, so that what was sent gets its answer; the transport refuses to send a
	// change with it when attended has ended.
	ctx context.Context
	// attended is for waits: it ends, for good, as soon as no caller waits.
	attended context.Context
	// again says that work before this for the same was left by its callers: what it sent may have had its effect.
	again    bool
	progress atomic.Pointer[string]
}

// errUnattended is why a change was not sent.
var errUnattended = errors.New("the last caller left before the request was sent, so it was not sent; a retry sends it")

type attendedKey struct{}

// attended is what ends when no caller waits any more for the work that ctx belongs to; ctx itself outside of work.
func attended(ctx context.Context) context.Context {
	if callers, found := ctx.Value(attendedKey{}).(context.Context); found {
		return callers
	}
	return ctx
}

// note says what the work is waiting for, for those who run out of time meanwhile.
func (w *work) note(progress string) { w.progress.Store(&progress) }

// workers counts pieces of work, so that their owner can wait for the last of them. Unlike a sync.WaitGroup, it may be
// asked to take another one while somebody waits: it refuses.
type workers struct {
	mu    sync.Mutex
	ended bool
	group sync.WaitGroup
}

// begin counts one piece of work, whose end is told with done, unless no more are taken.
func (w *workers) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false
	}
	w.group.Add(1)
	return true
}

func (w *workers) done() { w.group.Done() }

// end takes no more work, and waits for what has begun.
func (w *workers) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.group.Wait()
}

func newFlights[V any](life context.Context, group *workers) *flights[V] {
	return &flights[V]{life: life, group: group, linger: linger, flying: map[string]*flight[V]{}}
}

// do returns the outcome of fn for key, joining the one in the air if there is one. When ctx ends first, the error is
// an *Error of the context's kind that says what the work was waiting for.
func (f *flights[V]) do(ctx context.Context, key string, fn func(*work) (V, error)) (V, error) {
	var none V
	for again := false; ; again = true {
		if err := ctx.Err(); err != nil {
			return none, &Error{Kind: err, Message: "the caller's time ended before anything was begun"}
		}
		joined := f.join(ctx, key, again, fn)
		select {
		case <-joined.done:
			lapsed := f.leave(joined)
			// Work that had been left alone may have ended for that reason; this caller is here, and has time.
			if (joined.err != nil || f.looksAgain) && lapsed && ctx.Err() == nil && f.life.Err() == nil {
				continue
			}
			return joined.value, joined.err
		case <-ctx.Done():
			f.leave(joined)
			message := "the caller's time ended first; what was sent to the API goes on, and a retry joins it"
			if progress := joined.work.progress.Load(); progress != nil {
				message += "; waiting because " + *progress
			}
			return none, &Error{Kind: ctx.Err(), Message: message}
		}
	}
}

// join adds a caller to the flight of key, and starts one where there is none.
func (f *flights[V]) join(ctx context.Context, key string, again bool, fn func(*work) (V, error)) *flight[V] {
	f.mu.Lock()
	defer f.mu.Unlock()
	if flying, found := f.flying[key]; found {
		flying.waiting++
		if flying.landing != nil {
			flying.landing.Stop()
		}
		return flying
	}

	started := &flight[V]{work: &work{again: again}, done: make(chan struct{}), waiting: 1}
	if !f.group.begin() {
		started.err = &Error{Kind: context.Canceled, Message: "the program is stopping"}
		close(started.done)
		return started
	}
	var own context.Context
	own, started.cancel = context.WithCancel(context.WithoutCancel(ctx))
	started.work.attended, started.lapse = context.WithCancel(own)
	started.work.ctx = context.WithValue(own, attendedKey{}, started.work.attended)
	stop := context.AfterFunc(f.life, started.cancel)
	f.flying[key] = started
	go func() {
		defer f.group.done()
		defer stop()
		defer started.cancel()
		value, err := guarded(started.work, fn)
		f.mu.Lock()
		started.value, started.err = value, err
		delete(f.flying, key)
		if started.landing != nil {
			started.landing.Stop()
		}
		close(started.done)
		f.mu.Unlock()
	}()
	return started
}

// guarded turns a panic into an error: no frame above the flight's goroutine could, and an answer of the API that
// nobody thought of must not end the process.
func guarded[V any](w *work, fn func(*work) (V, error)) (value V, err error) {
	defer func() {
		if r := recover(); r != nil {
			klog.FromContext(w.ctx).Error(fmt.Errorf("panic: %v", r), "Work on the account panicked", "stack", string(debug.Stack()))
			err = &Error{Kind: errInternal, Message: "internal error, whose details are in the log"}
		}
	}()
	return fn(w)
}

// inAir lists the keys under which there is work now.
func (f *flights[V]) inAir() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.flying))
}

// leave takes a caller off, and reports whether the work had been left alone before; the last one lets it lapse.
func (f *flights[V]) leave(left *flight[V]) (lapsed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left.waiting--
	if left.waiting > 0 {
		return left.lapsed
	}
	select {
	case <-left.done:
	default:
		left.lapsed = true
		left.lapse()
		left.landing = time.AfterFunc(f.linger, left.cancel)
	}
	return left.lapsed
}
