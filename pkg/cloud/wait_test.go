package cloud

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoffGrowsToItsBoundWithJitter(t *testing.T) {
	b := &backoff{first: 40 * time.Millisecond, most: 2 * time.Second}
	bounds := []time.Duration{40, 80, 160, 320, 640, 1280, 2000, 2000, 2000}
	for i, bound := range bounds {
		bound *= time.Millisecond
		got := b.next()
		if got <= 0 || got > bound {
			t.Errorf("wait %d is %s, want above 0 and at most %s", i, got, bound)
		}
	}
	seen := map[time.Duration]bool{}
	for range 50 {
		seen[b.next()] = true
	}
	if len(seen) < 25 {
		t.Errorf("50 waits had %d lengths: no jitter", len(seen))
	}
}

func TestSleepEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := sleep(ctx, time.Second/2); err != nil {
			t.Errorf("a wait that fits got %v", err)
		}
		if err := sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a wait that does not got %v", err)
		}
		if err := sleep(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a wait of nothing after the end got %v", err)
		}
	})
}

func TestFitsTellsWaitsThatOutlastTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if !fits(ctx, 999*time.Millisecond) || fits(ctx, time.Second) || !fits(t.Context(), time.Hour) {
			t.Error("fits is wrong about the deadline")
		}
	})
}
