package cloud

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// In a busy account something is changed all the time. Who reads then gets what was there when it came, and does not read
// the whole account again for each change.
func TestReadersDoNotWaitForChangesToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cloud{life: context.Background(), config: Config{Now: time.Now}}
		var s shared[int]
		readings := 0
		read := func(context.Context) (int, error) {
			if readings++; readings > 3 {
				return 0, errors.New("read for ever")
			}
			time.Sleep(time.Second)
			s.changed()
			return readings, nil
		}
		s.changed()
		value, err := s.since(t.Context(), c, time.Now().Add(-time.Minute), read)
		if err != nil || value != 1 {
			t.Errorf("got %d, %v, want the first reading", value, err)
		}
		if value, err := s.since(t.Context(), c, time.Now().Add(-time.Minute), read); err != nil || value != 2 {
			t.Errorf("after a change: got %d, %v, want another reading", value, err)
		}
		c.work.end()
	})
}

// A reading that was begun before a change of ours does not show it: it is followed by another.
func TestReadersSeeWhatWasChangedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cloud{life: context.Background(), config: Config{Now: time.Now}}
		var s shared[int]
		readings := 0
		read := func(context.Context) (int, error) {
			readings++
			own := readings
			time.Sleep(time.Second)
			return own, nil
		}
		early := make(chan int)
		go func() {
			value, _ := s.since(t.Context(), c, time.Now(), read)
			early <- value
		}()
		synctest.Wait()
		time.Sleep(time.Millisecond)
		s.changed()
		late, err := s.since(t.Context(), c, time.Now().Add(-time.Minute), read)
		if first := <-early; first != 1 || late != 2 || err != nil {
			t.Errorf("the early reader got %d, the late one %d, %v", first, late, err)
		}
		c.work.end()
	})
}
