// Package fence keeps a process from changing anything when it is not the leader any more, even if it was stopped for so long
// that it does not know yet: the lease of the election is looked at shortly before each change. It does not know where leases
// are kept, nor what is changed.
package fence

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/clock"
)

const (
	// Age is for how long a look at the lease serves.
	Age = 2 * time.Second
	// Delivery is how long a request may take from the check to where it has its effect. Leases end later than that after their
	// leaders give up: Kubernetes' components have 15 s and 10 s.
	Delivery = 5 * time.Second
	// lookTimeout bounds one look.
	lookTimeout = 5 * time.Second
	// looks is how many answers in a row may be too old when they come.
	looks = 3
)

// Lease is what a lease says of its holder.
type Lease struct {
	Holder string // empty: it was given back
	// Renewed is when the holder renewed it, by the clock of the holder's machine; zero: not known.
	Renewed time.Time
	// Duration is for how long it lasts from then on; zero: not known.
	Duration time.Duration
}

// end is when another one may take the lease, less what a request may take; zero: not known.
func (l Lease) end() time.Time {
	if l.Renewed.IsZero() || l.Duration <= 0 {
		return time.Time{}
	}
	return l.Renewed.Add(l.Duration - min(Delivery, l.Duration/3))
}

// Fence checks one lease. Its holder is this machine, so that both go by one clock. It is safe for concurrent use.
type Fence struct {
	look func(context.Context) (Lease, error)

	turn   chan struct{} // full while someone looks; it guards what follows
	looked time.Time     // when the last look began that found the lease ours
	ends   time.Time     // when the lease of that look ends
	failed time.Time     // when the last look began that failed
	why    error
}

// New makes a fence. look reads the lease; it returns an error when the lease is not this process's, or cannot be read. A lease
// without holder, renewal and duration is one that does not end.
func New(look func(context.Context) (Lease, error)) *Fence {
	return &Fence{look: look, turn: make(chan struct{}, 1)}
}

// Forget makes the next check look.
func (f *Fence) Forget() {
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	f.looked = time.Time{}
}

// Check is an error unless the lease is ours, and stays so for long enough for a request to have its effect. Those who check at
// one time share a look, also one that fails.
func (f *Fence) Check(ctx context.Context) error {
	came := time.Now()
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-f.turn }()
	if f.why != nil && f.failed.After(came) {
		return f.why
	}
	// A process that was stopped while it looked gets an answer of long ago.
	for range looks {
		if f.fresh() {
			return nil
		}
		if err := f.lookOnce(ctx); err != nil {
			return err
		}
	}
	if f.fresh() {
		return nil
	}
	f.failed = f.looked
	f.why = fmt.Errorf("the Kubernetes API server took more than %s to answer who the leader is", Age)
	if clock.Within(f.looked, Age) {
		f.why = errors.New("the leader has not renewed its lease for so long that another may be about to take it")
	}
	return f.why
}

func (f *Fence) fresh() bool {
	return clock.Within(f.looked, Age) && (f.ends.IsZero() || time.Now().Round(0).Before(f.ends))
}

func (f *Fence) lookOnce(ctx context.Context) error {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	lease, err := f.look(bounded)
	f.why = nil
	if err != nil {
		f.looked = time.Time{}
		if ctx.Err() == nil { // a look that this caller gave up says nothing to others
			f.failed, f.why = began, err
		}
		return err
	}
	f.looked, f.ends = began, lease.end()
	return nil
}
