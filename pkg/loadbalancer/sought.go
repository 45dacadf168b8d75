package loadbalancer

import (
	"sync"
	"time"
)

const (
	// newcomerAge is how long a server counts as new: lists of the account may lag behind its making, and its network behind that.
	newcomerAge = 5 * time.Minute
	// recentAge is how old a list may be that lacks a new server, settledAge one that lacks a server looked for longer. pkg/instances
	// reads the servers every five minutes, so that the latter is there without a call.
	recentAge  = 30 * time.Second
	settledAge = 6 * time.Minute
	// soughtFor is for how long it is remembered that a server was asked for.
	soughtFor = time.Hour
)

// sought remembers since when this program has asked for servers that lists do not show, or do not show where they are wanted: those
// of Nodes that outlive them, and those outside a network. Without it, each reconcile would have to read the lists anew for their sake.
type sought struct {
	mu   sync.Mutex
	byID map[string]asked
}

type asked struct{ first, last time.Time }

// moment is how new a list must be to be believed that lacks these servers: newer than the first time that each was asked for.
func (s *sought) moment(ids []string, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	moment := now.Add(-settledAge)
	for _, id := range ids {
		one, known := s.byID[id]
		if !known {
			one.first = now
			s.sweep(now)
		}
		one.last = now
		s.byID[id] = one
		if now.Sub(one.first) >= newcomerAge {
			continue
		}
		for _, at := range []time.Time{one.first, now.Add(-recentAge)} {
			if at.After(moment) {
				moment = at
			}
		}
	}
	return moment
}

// sweep makes room for another one.
func (s *sought) sweep(now time.Time) {
	if s.byID == nil {
		s.byID = map[string]asked{}
	}
	for id, one := range s.byID {
		if now.Sub(one.last) > soughtFor {
			delete(s.byID, id)
		}
	}
}
