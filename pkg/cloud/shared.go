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

	mu        sync.Mutex
	value     V
	taken     time.Time // when its reading began
	notBefore time.Time // readings begun earlier do not show what we changed
}

func (s *shared[V]) get(moment time.Time) (value V, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken.IsZero() || s.taken.Before(moment) {
		return value, false
	}
	return s.value, true
}

// atLeast is the moment, or that of the last change of ours if that was later.
func (s *shared[V]) atLeast(moment time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if moment.Before(s.notBefore) {
		return s.notBefore
	}
	return moment
}

// since returns the answer as read at that moment or later, and with everything that this process changed before the call.
// What it returns is shared: nobody may change it. It takes two readings at most, however much is changed meanwhile.
func (s *shared[V]) since(ctx context.Context, c *Cloud, moment time.Time, read func(context.Context) (V, error)) (V, error) {
	s.once.Do(func() { s.reading = newFlights[V](c.life, &c.work) })
	moment = s.atLeast(moment)
	for {
		if value, found := s.get(moment); found {
			return value, nil
		}
		value, err := s.reading.do(ctx, "", func(w *work) (V, error) {
			began := time.Now()
			value, err := read(w.ctx)
			if err != nil {
				return value, err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.value, s.taken = value, began
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
	s.notBefore = time.Now()
}
