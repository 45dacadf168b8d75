package cloud

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

var errThrottled = errors.New("this client's limit of requests a second, or the API's wish, " +
	"would hold the request beyond the caller's deadline")

// throttle admits requests: so many a second, so many at one time, and none while the API has asked for quiet.
type throttle struct {
	limiter *rate.Limiter
	slots   *semaphore.Weighted
	quiet   atomic.Int64 // Unix nanoseconds until which nothing is sent
	metrics *metrics
}

func newThrottle(limit rate.Limit, burst, concurrency int, m *metrics) *throttle {
	return &throttle{limiter: rate.NewLimiter(limit, burst), slots: semaphore.NewWeighted(int64(concurrency)), metrics: m}
}

// pauseFor keeps every request back for d: one that was throttled speaks for all.
func (t *throttle) pauseFor(d time.Duration) {
	until := time.Now().Add(d).UnixNano()
	for {
		already := t.quiet.Load()
		if already >= until || t.quiet.CompareAndSwap(already, until) {
			return
		}
	}
}

// enter waits for admission and returns what ends it. It fails at once where the wait would outlast ctx.
func (t *throttle) enter(ctx context.Context) (leave func(), err error) {
	began := time.Now()
	reservation := t.limiter.Reserve()
	wait := max(reservation.Delay(), time.Until(time.Unix(0, t.quiet.Load())))
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
	if err := t.slots.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	t.metrics.throttled.Observe(time.Since(began).Seconds())
	return func() { t.slots.Release(1) }, nil
}
