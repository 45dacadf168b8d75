package fence

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	errLost = errors.New("another holds the lease")
	errDown = errors.New("the API server is down")
)

// election is a lease, and how the API server answers.
type election struct {
	lease Lease
	err   error
	takes time.Duration
	asked int
}

func (e *election) look(ctx context.Context) (Lease, error) {
	e.asked++
	lease, err := e.lease, e.err // as they are when the API server answers
	select {
	case <-time.After(e.takes):
		return lease, err
	case <-ctx.Done():
		return Lease{}, ctx.Err()
	}
}

func inElection(t *testing.T, test func(t *testing.T, e *election, f *Fence)) {
	synctest.Test(t, func(t *testing.T) {
		e := &election{lease: Lease{Holder: "us", Renewed: time.Now(), Duration: 15 * time.Second}}
		test(t, e, New(e.look))
	})
}

func TestTheLeaderMayChangeThingsAtTheCostOfALookNowAndThen(t *testing.T) {
	inElection(t, func(t *testing.T, e *election, f *Fence) {
		for range 10 {
			if err := f.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if e.asked != 1 {
			t.Errorf("%d looks for ten checks at one time", e.asked)
		}
		time.Sleep(Age)
		if err := f.Check(t.Context()); err != nil || e.asked != 2 {
			t.Errorf("later: error %v after %d looks", err, e.asked)
		}
	})
}

func TestAChangedHolderIsNoticedWithinTheAgeOfALook(t *testing.T) {
	inElection(t, func(t *testing.T, e *election, f *Fence) {
		if err := f.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.err = errLost
		time.Sleep(Age)
		if err := f.Check(t.Context()); !errors.Is(err, errLost) {
			t.Errorf("error %v, want %v", err, errLost)
		}
	})
}

func TestAnUnreachableServerPermitsNothing(t *testing.T) {
	inElection(t, func(t *testing.T, e *election, f *Fence) {
		e.err = errDown
		if err := f.Check(t.Context()); !errors.Is(err, errDown) {
			t.Errorf("error %v, want %v", err, errDown)
		}
		e.err, e.takes = nil, time.Hour
		if err := f.Check(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v of a server that does not answer", err)
		}
		e.takes = 0
		if err := f.Check(t.Context()); err != nil {
			t.Errorf("error %v when it answers again", err)
		}
	})
}

// The process is stopped while it looks: the answer that it finds when it goes on is of long ago.
func TestAnAnswerOfLongAgoIsNotBelieved(t *testing.T) {
	inElection(t, func(t *testing.T, e *election, f *Fence) {
		e.lease = Lease{Holder: "us"}
		e.takes = Age
		if err := f.Check(t.Context()); err == nil || e.asked != looks {
			t.Errorf("error %v after %d looks, each of which took %s", err, e.asked, Age)
		}
	})
}

// A leader that cannot renew its lease still has it for a while, in which nothing new is begun: it could have its effect when
// another has the lease.
func TestALeaseThatIsAboutToEndPermitsNothing(t *testing.T) {
	inElection(t, func(t *testing.T, e *election, f *Fence) {
		time.Sleep(e.lease.Duration - Delivery - time.Millisecond)
		if err := f.Check(t.Context()); err != nil {
			t.Errorf("error %v while the lease lasts for long enough", err)
		}
		time.Sleep(time.Millisecond)
		if err := f.Check(t.Context()); err == nil {
			t.Error("permitted when the lease ends before a request has its effect")
		}
		e.lease.Renewed = time.Now()
		if err := f.Check(t.Context()); err != nil {
			t.Errorf("error %v when the lease is renewed", err)
		}
	})
}

func TestAForgottenLookIsMadeAgain(t *testing.T) {
	inElection(t, func(t *testing.T, e *election, f *Fence) {
		if err := f.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		e.err = errLost
		f.Forget()
		if err := f.Check(t.Context()); !errors.Is(err, errLost) {
			t.Errorf("error %v, want %v", err, errLost)
		}
	})
}

// While the API server does not answer, checks do not wait for each other's looks one after the other.
func TestChecksAtOneTimeShareALookThatFails(t *testing.T) {
	inElection(t, func(t *testing.T, e *election, f *Fence) {
		e.takes = time.Hour
		impatient, leave := context.WithCancel(t.Context())
		var failed, left atomic.Int32
		for range 20 {
			go func() {
				if f.Check(t.Context()) != nil {
					failed.Add(1)
				}
			}()
		}
		synctest.Wait()
		go func() {
			if errors.Is(f.Check(impatient), context.Canceled) {
				left.Add(1)
			}
		}()
		synctest.Wait()
		leave()
		synctest.Wait()
		if left.Load() != 1 {
			t.Error("a check whose caller has left waits for another's look")
		}
		time.Sleep(2*lookTimeout + time.Second)
		synctest.Wait()
		if failed.Load() != 20 || e.asked > 2 {
			t.Errorf("%d of 20 checks have ended after %d looks", failed.Load(), e.asked)
		}
		e.takes, e.lease.Renewed = 0, time.Now()
		if err := f.Check(t.Context()); err != nil {
			t.Errorf("the API server answers again: %v", err)
		}
	})
}
