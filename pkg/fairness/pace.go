package fairness

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// atOnce is how often one object is worked on without a pause, as happens while it is made, and everyPace how often after that.
	atOnce    = 5
	everyPace = time.Second
	// paceSweep is how many objects are remembered at least before those are forgotten that have not changed for a while.
	paceSweep = 1000
)

// pace bounds how often an object is worked on: one that changes all the time is worked on now and then, as it is by then. It is safe for
// concurrent use.
type pace struct {
	now func() time.Time

	mu       sync.Mutex
	byObject map[string]*rate.Limiter
	sweepAt  int
}

// take counts one piece of work on an object; or says how long it has to wait for that.
func (p *pace) take(object string) (wait time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	limiter, known := p.byObject[object]
	if !known {
		p.sweep(now)
		limiter = rate.NewLimiter(rate.Every(everyPace), atOnce)
		p.byObject[object] = limiter
	}
	reservation := limiter.ReserveN(now, 1)
	if wait := reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
		return wait, false
	}
	return 0, true
}

// sweep forgets objects of which nothing has to be remembered. The caller holds mu.
func (p *pace) sweep(now time.Time) {
	if p.byObject == nil {
		p.byObject = map[string]*rate.Limiter{}
	}
	if len(p.byObject) < max(p.sweepAt, paceSweep) {
		return
	}
	for object, limiter := range p.byObject {
		if limiter.TokensAt(now) >= atOnce {
			delete(p.byObject, object)
		}
	}
	p.sweepAt = 2 * len(p.byObject)
}
