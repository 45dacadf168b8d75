package simulator

import (
	"container/heap"
	"context"
	"time"
)

// event is a change of state that comes with time.
type event struct {
	at  time.Time
	seq uint64 // events of one time come in the order in which they were planned
	run func()
}

type eventQueue []*event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].seq < q[j].seq
	}
	return q[i].at.Before(q[j].at)
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *eventQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}

// now is the time of the event that is being run, else the clock's. A chain of events that is run late, in one go,
// so still has the times it should have had. The lock is held.
func (s *Simulator) now() time.Time {
	if !s.eventTime.IsZero() {
		return s.eventTime
	}
	return s.clock.Now()
}

// after runs f, with the lock held, when d has passed: not before the request being served has been answered. The lock
// is held.
func (s *Simulator) after(d time.Duration, f func()) {
	s.seq++
	heap.Push(&s.events, &event{at: s.now().Add(d), seq: s.seq, run: f})
}

// runDue runs the events that are due, and sets the timer for the next one. The lock is held.
func (s *Simulator) runDue() {
	now := s.clock.Now()
	for len(s.events) > 0 && !s.events[0].at.After(now) {
		e := heap.Pop(&s.events).(*event)
		s.eventTime = e.at
		s.changing()
		e.run()
		s.failDoomed()
	}
	s.eventTime = time.Time{}
	s.failDoomed()
	s.setTimer()
}

func (s *Simulator) setTimer() {
	if len(s.events) == 0 || s.closed {
		s.stopTimer()
		return
	}
	next := s.events[0].at
	if s.timer != nil && s.timerAt.Equal(next) {
		return
	}
	s.stopTimer()
	s.timerAt = next
	s.timer = s.clock.AfterFunc(next.Sub(s.clock.Now()), s.tick)
}

func (s *Simulator) stopTimer() {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.timer, s.timerAt = nil, time.Time{}
}

func (s *Simulator) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer, s.timerAt = nil, time.Time{}
	if s.closed {
		return
	}
	s.runDue()
}

// operate does work without the lock, and then, d after the start at the earliest, finish with it. Without work finish
// is an ordinary event. The lock is held.
func (s *Simulator) operate(d time.Duration, work func(context.Context) error, finish func(error)) {
	if work == nil {
		s.after(d, func() { finish(nil) })
		return
	}
	due := s.now().Add(d)
	s.operations.Add(1)
	go func() {
		defer s.operations.Done()
		err := work(s.ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return
		}
		s.after(max(0, due.Sub(s.now())), func() { finish(err) })
		s.runDue()
	}()
}
