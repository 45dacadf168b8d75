package simulator

import "time"

// history holds former states, for answers that come from one. It is kept while a fault asks for such answers.
type history struct{ states []formerState }

// formerState is the state until a moment.
type formerState struct {
	until time.Time
	state *state
}

// precision is the part of the greatest age asked for within which several changes count as one.
const precision = 100

// changing is called before each change of the state, with the lock held.
func (s *Simulator) changing() {
	s.markUnsaved()
	age := s.faults.greatestAge()
	if age == 0 {
		s.history.states = nil
		return
	}
	h, now := &s.history, s.now()
	for len(h.states) > 0 && h.states[0].until.Before(now.Add(-age)) {
		h.states = h.states[1:]
	}
	if n := len(h.states); n > 0 && now.Sub(h.states[n-1].until) < age/precision {
		return
	}
	h.states = append(h.states, formerState{now, copyGraph(&s.state)})
}

// staleAnswer runs the handler on the state as it was that long ago: not before the fault was set, for there is no record.
// The lock is held.
func (s *Simulator) staleAnswer(age time.Duration, serve func()) {
	then := s.now().Add(-age)
	for _, former := range s.history.states {
		if !former.until.After(then) {
			continue
		}
		current, event := s.state, s.eventTime
		s.state, s.eventTime = *former.state, then
		defer func() { s.state, s.eventTime = current, event }()
		break
	}
	serve()
}
