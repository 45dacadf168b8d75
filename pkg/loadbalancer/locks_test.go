package loadbalancer

import (
	"context"
	"errors"
	"testing"
)

func TestKeyedLocks(t *testing.T) {
	var locks keyedLocks
	unlock, err := locks.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := locks.lock(t.Context(), "b")
	if err != nil {
		t.Fatal("the lock of another key is held")
	}
	other()

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := locks.lock(cancelled, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with an ended context: %v", err)
	}

	got := make(chan struct{})
	go func() {
		defer close(got)
		unlock, err := locks.lock(t.Context(), "a")
		if err != nil {
			t.Error(err)
			return
		}
		unlock()
	}()
	select {
	case <-got:
		t.Error("two hold one lock")
	default:
	}
	unlock()
	<-got
	if len(locks.locks) != 0 {
		t.Errorf("%d locks are left behind", len(locks.locks))
	}
}
