package simulator

import (
	"slices"
	"sync"
	"time"
)

// Clock is where the simulator gets its time from.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f once d has passed, never before AfterFunc has returned.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a call that is still to come.
type Timer interface {
	// Stop prevents the call. It says false when the call has been made or is being made.
	Stop() bool
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// shiftedClock runs as the machine's does, at another time.
type shiftedClock struct {
	systemClock
	by time.Duration
}

func (c shiftedClock) Now() time.Time { return time.Now().Add(c.by) }

// NewClockAt returns a clock that shows start now and runs on from there.
func NewClockAt(start time.Time) Clock { return shiftedClock{by: time.Until(start)} }

// ManualClock is a clock that stands still until a test moves it.
type ManualClock struct {
	mu     sync.Mutex
	now    time.Time
	timers []*manualTimer
}

// NewManualClock returns a clock that stands at an arbitrary, always equal time.
func NewManualClock() *ManualClock {
	return NewManualClockAt(time.Date(2026, time.January, 5, 9, 0, 0, 0, time.UTC))
}

// NewManualClockAt returns a clock that stands at start.
func NewManualClockAt(start time.Time) *ManualClock { return &ManualClock{now: start} }

// Now returns the time the clock stands at.
func (c *ManualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc implements Clock. The calls are made by whoever moves the clock, in the order in which they are due.
func (c *ManualClock) AfterFunc(d time.Duration, f func()) Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &manualTimer{clock: c, at: c.now.Add(d), call: f}
	c.timers = append(c.timers, t)
	return t
}

// Advance moves the clock by d and returns when every call that came due has been made, those included that the calls
// themselves asked for.
func (c *ManualClock) Advance(d time.Duration) {
	c.mu.Lock()
	until := c.now.Add(d)
	for {
		t := c.nextDue(until)
		if t == nil {
			break
		}
		if t.at.After(c.now) {
			c.now = t.at
		}
		c.mu.Unlock()
		t.call()
		c.mu.Lock()
	}
	c.now = until
	c.mu.Unlock()
}

// Pending returns how many calls are still to come.
func (c *ManualClock) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers)
}

func (c *ManualClock) nextDue(until time.Time) *manualTimer {
	var next *manualTimer
	for _, t := range c.timers {
		if t.at.After(until) || next != nil && !t.at.Before(next.at) {
			continue
		}
		next = t
	}
	if next != nil {
		c.remove(next)
	}
	return next
}

func (c *ManualClock) remove(t *manualTimer) bool {
	i := slices.Index(c.timers, t)
	if i < 0 {
		return false
	}
	c.timers = slices.Delete(c.timers, i, i+1)
	return true
}

type manualTimer struct {
	clock *ManualClock
	at    time.Time
	call  func()
}

func (t *manualTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	return t.clock.remove(t)
}
