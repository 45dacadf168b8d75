package cloud

import (
	"context"
	"sync"
	"time"
)

// shared is one answer of the API that serves many readers for a while: those who come while it is being read wait for
// that reading, those who come later take it if it is young enough for them. The zero value is empty.
type shared[V any] struct {
	once    sync.Once
	reading *flights[V]

	mu      sync.Mutex
	value   V
	taken   time.Time // when its reading began
	shows   int       // how many changes of this process had been made when its reading began
	changes int       // of this process so far
}

// get returns the answer if its reading began at that moment or later, and after so many changes.
func (s *shared[V]) get(moment time.Time, changes int) (value V, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken.IsZero() || s.taken.Before(moment) || s.shows < changes {
		return value, false
	}
	return s.value, true
}

func (s *shared[V]) changesSoFar() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes
}

// since returns the answer as read at that moment or later, and with everything that this process changed before the call.
// What it returns is shared: nobody may change it. It takes two readings at most, however much is changed meanwhile.
func (s *shared[V]) since(ctx context.Context, c *Cloud, moment time.Time, read func(context.Context) (V, error)) (V, error) {
	s.once.Do(func() { s.reading = newFlights[V](c.life, &c.work) })
	changes := s.changesSoFar()
	for {
		if value, found := s.get(moment, changes); found {
			return value, nil
		}
		value, err := s.reading.do(ctx, "", func(w *work) (V, error) {
			began, shows := c.now(), s.changesSoFar()
			value, err := read(w.ctx)
			if err != nil {
				return value, err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.value, s.taken, s.shows = value, began, shows
			return value, nil
		})
		if err != nil {
			return value, err
		}
	}
}

// changed makes readers from now on wait for a reading that begins now or later.
func (s *shared[V]) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
}
