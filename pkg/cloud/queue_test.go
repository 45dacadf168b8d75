package cloud

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func newTestQueues(t *testing.T) *queues {
	t.Helper()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	return newQueues(m)
}

func TestQueueServesInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTestQueues(t)
		leave, err := q.enter(t.Context(), "server", "attach")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var served []int
		for i := range 10 {
			go func() {
				leave, err := q.enter(t.Context(), "server", "attach")
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				served = append(served, i)
				mu.Unlock()
				leave()
			}()
			synctest.Wait() // it has arrived
		}
		leave()
		synctest.Wait()
		if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(served, want) {
			t.Errorf("served %v, want %v", served, want)
		}
	})
}

func TestQueueHasOneTurnAtATimePerServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTestQueues(t)
		leaveA, err := q.enter(t.Context(), "a", "attach")
		if err != nil {
			t.Fatal(err)
		}
		// Another server does not wait for the first.
		leaveB, err := q.enter(t.Context(), "b", "attach")
		if err != nil {
			t.Fatal(err)
		}
		defer leaveB()

		second := make(chan struct{})
		go func() {
			defer close(second)
			leave, err := q.enter(t.Context(), "a", "detach")
			if err != nil {
				t.Error(err)
				return
			}
			leave()
		}()
		synctest.Wait()
		select {
		case <-second:
			t.Error("the second got the turn while the first had it")
		default:
		}
		leaveA()
		<-second
	})
}

func TestQueueIsLeftWhenTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newTestQueues(t)
		leave, err := q.enter(t.Context(), "server", "attach")
		if err != nil {
			t.Fatal(err)
		}
		impatient, giveUp := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := q.enter(impatient, "server", "attach")
			gone <- err
		}()
		synctest.Wait()
		third := make(chan error)
		go func() {
			leave, err := q.enter(t.Context(), "server", "attach")
			if err == nil {
				leave()
			}
			third <- err
		}()
		synctest.Wait()

		giveUp()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up got %v, want context.Canceled", err)
		}
		leave()
		leave() // leaving twice gives nobody a second turn
		if err := <-third; err != nil {
			t.Errorf("who stayed got %v", err)
		}
		if len(q.servers) != 0 {
			t.Errorf("%d queues are left with nobody in them", len(q.servers))
		}
	})
}
