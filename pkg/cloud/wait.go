package cloud

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff grows from first to most, with full jitter: each wait is a random part of the present bound, so that many
// who began to wait at one moment do not come back at one moment. Not for concurrent use.
type backoff struct {
	first, most time.Duration
	bound       time.Duration
}

// statePolls paces the questions whether a state has passed. Hot-plugging takes a moment, so it begins fast; there is
// no fixed first wait.
func statePolls() *backoff { return &backoff{first: 40 * time.Millisecond, most: 2 * time.Second} }

// next is how long to wait now.
func (b *backoff) next() time.Duration {
	switch {
	case b.bound == 0:
		b.bound = b.first
	case b.bound < b.most:
		b.bound = min(2*b.bound, b.most)
	}
	return rand.N(b.bound) + 1
}

// wait waits the next bit, or until ctx ends.
func (b *backoff) wait(ctx context.Context) error { return sleep(ctx, b.next()) }

// sleep waits for d, or until ctx ends, whose error it returns then.
func sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fits reports whether a wait of d ends before ctx's deadline; one that does not is not worth beginning.
func fits(ctx context.Context, d time.Duration) bool {
	deadline, has := ctx.Deadline()
	return !has || time.Until(deadline) > d
}
