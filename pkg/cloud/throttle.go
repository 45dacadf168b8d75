package cloud

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

var errThrottled = errors.New("this client's limit of requests a second, or the API's wish, " +
	"would hold the request beyond the caller's deadline")

// throttle admits requests: so many a second, so many at one time, and none while the API has asked for quiet. Which one is next is
// decided by shares.
type throttle struct {
	limiter *rate.Limiter
	most    int // requests at one time
	metrics *metrics

	mu     sync.Mutex
	quiet  time.Time // until when nothing is sent
	shares shares
	under  int               // requests under way
	token  *rate.Reservation // for the next request; nil: none is reserved
	alarm  *time.Timer       // dispatches at the end of quiet, or when the token is due; nil: nothing waits for that
}

func newThrottle(limit rate.Limit, burst, concurrency int, m *metrics) *throttle {
	return &throttle{limiter: rate.NewLimiter(limit, burst), most: concurrency, metrics: m}
}

// pauseFor keeps every request back for d: one that was throttled speaks for all.
func (t *throttle) pauseFor(d time.Duration) {
	until := time.Now().Add(d)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quiet.Before(until) {
		t.quiet = until
	}
}

// enter waits for admission and returns what ends it. It fails at once where the wait would outlast ctx.
//
// A request that follows a look waits only while the API has asked for quiet: in a queue of some seconds its look would get too
// old, and the next one, too. It counts for the limit of requests a second, so that others wait longer instead.
func (t *throttle) enter(ctx context.Context, followsLook bool) (leave func(), err error) {
	began := time.Now()
	if followsLook {
		leave, err = t.passBy(ctx)
	} else {
		leave, err = t.queue(ctx)
	}
	if err == nil {
		t.metrics.throttled.Observe(time.Since(began).Seconds())
	}
	return leave, err
}

// passBy is enter for a request that follows a look.
func (t *throttle) passBy(ctx context.Context) (leave func(), err error) {
	reservation := t.limiter.Reserve()
	t.mu.Lock()
	wait := time.Until(t.quiet)
	t.mu.Unlock()
	if !fits(ctx, wait) {
		reservation.Cancel()
		return nil, errThrottled
	}
	if wait > 0 {
		if err := sleep(ctx, wait); err != nil {
			reservation.Cancel()
			return nil, err
		}
	}
	return func() {}, nil
}

// queue is enter for a request that waits for its turn.
func (t *throttle) queue(ctx context.Context) (leave func(), err error) {
	t.mu.Lock()
	own := t.shares.arrive(shareOf(ctx))
	if !fits(ctx, t.expected(own)) {
		t.shares.withdraw(own)
		t.mu.Unlock()
		return nil, errThrottled
	}
	t.dispatch()
	t.mu.Unlock()
	leave = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.under--
		t.shares.end(own)
		t.dispatch()
	}
	select {
	case <-own.ready:
		return leave, nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	waited := t.shares.withdraw(own)
	t.dispatch()
	t.mu.Unlock()
	if !waited { // admitted at that very moment
		leave()
	}
	return nil, ctx.Err()
}

// expected is how long a request that has just arrived waits for the end of quiet, and for the limit of requests a second. The caller
// holds mu.
func (t *throttle) expected(last *waiter) time.Duration {
	wait := time.Until(t.quiet)
	lacking := float64(t.shares.ahead(last)+1) - t.limiter.Tokens()
	if t.token != nil {
		lacking--
	}
	if limit := t.limiter.Limit(); limit != rate.Inf && lacking > 0 {
		wait = max(wait, time.Duration(lacking/float64(limit)*float64(time.Second)))
	}
	return wait
}

// dispatch admits whose turn it is, and has itself called again when that is a matter of time. The caller holds mu.
func (t *throttle) dispatch() {
	if t.alarm != nil {
		t.alarm.Stop()
		t.alarm = nil
	}
	for t.under < t.most && t.shares.waiters() > 0 {
		if t.token == nil {
			t.token = t.limiter.Reserve()
		}
		if wait := max(time.Until(t.quiet), t.token.Delay()); wait > 0 {
			t.alarm = time.AfterFunc(wait, func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				t.dispatch()
			})
			return
		}
		one := t.shares.admit()
		if one == nil { // all that wait are at limits of their own
			return
		}
		t.token = nil
		t.under++
		close(one.ready)
	}
}
