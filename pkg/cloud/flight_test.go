package cloud

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// inFlights runs a test with flights of strings on a clock of its own, and makes sure that no work outlives it.
func inFlights(t *testing.T, test func(t *testing.T, f *flights[string])) {
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(context.Background())
		var group workers
		f := newFlights[string](life, &group)
		test(t, f)
		end()
		group.end()
		if len(f.flying) != 0 {
			t.Errorf("%d flights are left", len(f.flying))
		}
	})
}

func TestFlightIsSharedByAllWhoAskAtOnce(t *testing.T) {
	inFlights(t, func(t *testing.T, f *flights[string]) {
		var begun int
		finish := make(chan struct{})
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				value, err := f.do(t.Context(), "key", func(*work) (string, error) {
					begun++
					<-finish
					return "done", nil
				})
				if value != "done" || err != nil {
					t.Errorf("got %q, %v", value, err)
				}
			})
		}
		synctest.Wait()
		close(finish)
		callers.Wait()
		if begun != 1 {
			t.Errorf("the work was begun %d times", begun)
		}
	})
}

func TestAPanicEndsTheFlightAndNotTheProcess(t *testing.T) {
	f := newFlights[int](t.Context(), new(workers))
	_, err := f.do(t.Context(), "key", func(*work) (int, error) {
		var none []int
		return none[len(none)], nil
	})
	wantKind(t, err, errInternal)
	if got, err := f.do(t.Context(), "key", func(*work) (int, error) { return 1, nil }); got != 1 || err != nil {
		t.Errorf("the next one got %d, %v", got, err)
	}
}

func TestFlightsOfOtherKeysAreOthers(t *testing.T) {
	inFlights(t, func(t *testing.T, f *flights[string]) {
		for _, key := range []string{"a", "b"} {
			value, err := f.do(t.Context(), key, func(*work) (string, error) { return key, nil })
			if value != key || err != nil {
				t.Errorf("%s: got %q, %v", key, value, err)
			}
		}
	})
}

func TestFlightOutlivesItsCallerAndIsJoinedByTheRetry(t *testing.T) {
	inFlights(t, func(t *testing.T, f *flights[string]) {
		begun := 0
		finish := make(chan struct{})
		fn := func(w *work) (string, error) {
			begun++
			w.note("the moon is full")
			select {
			case <-finish:
				return "done", nil
			case <-w.ctx.Done():
				return "", w.ctx.Err()
			}
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.do(short, "key", fn)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the moon is full") {
			t.Errorf("the first caller got %v, want its deadline and what the work waits for", err)
		}

		time.Sleep(f.linger / 2)
		retried := make(chan error)
		go func() {
			_, err := f.do(t.Context(), "key", fn)
			retried <- err
		}()
		time.Sleep(2 * f.linger) // attended again, the work has all the time it needs
		close(finish)
		if err := <-retried; err != nil {
			t.Errorf("the retry got %v", err)
		}
		if begun != 1 {
			t.Errorf("the work was begun %d times, want once", begun)
		}
	})
}

func TestFlightEndsSomeTimeAfterNobodyWaits(t *testing.T) {
	inFlights(t, func(t *testing.T, f *flights[string]) {
		var attendedUntil, workedUntil time.Duration
		ended := make(chan struct{})
		began := time.Now()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := f.do(short, "key", func(w *work) (string, error) {
			defer close(ended)
			<-w.attended.Done()
			attendedUntil = time.Since(began)
			<-w.ctx.Done()
			workedUntil = time.Since(began)
			return "", w.ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the caller's deadline", err)
		}
		<-ended
		if attendedUntil != time.Second {
			t.Errorf("what had not begun could have begun until %s, want %s", attendedUntil, time.Second)
		}
		if want := time.Second + f.linger; workedUntil != want {
			t.Errorf("the work went on until %s, want %s", workedUntil, want)
		}
	})
}

func TestFlightThatEndedForLackOfCallersIsBegunAnewForOneWhoCame(t *testing.T) {
	inFlights(t, func(t *testing.T, f *flights[string]) {
		begun := 0
		fn := func(w *work) (string, error) {
			if begun++; begun == 2 {
				return "done", nil
			}
			<-w.attended.Done()
			time.Sleep(time.Second) // the caller below joins now
			return "", w.attended.Err()
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.do(short, "key", fn); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first caller got %v", err)
		}
		value, err := f.do(t.Context(), "key", fn)
		if value != "done" || err != nil {
			t.Errorf("the second caller got %q, %v", value, err)
		}
	})
}

func TestFlightEndsWithTheLifeOfItsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(context.Background())
		var group workers
		f := newFlights[string](life, &group)
		outcome := make(chan error)
		go func() {
			_, err := f.do(context.Background(), "key", func(w *work) (string, error) {
				<-w.ctx.Done()
				return "", w.ctx.Err()
			})
			outcome <- err
		}()
		synctest.Wait()
		end()
		if err := <-outcome; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
		group.end()
	})
}

// Who ends waits for all work: none may begin behind its back.
func TestNoFlightBeginsAfterTheEnd(t *testing.T) {
	var group workers
	f := newFlights[string](t.Context(), &group)
	group.end()
	_, err := f.do(t.Context(), "key", func(*work) (string, error) {
		t.Error("work was begun")
		return "", nil
	})
	wantKind(t, err, context.Canceled, "stopping")
}
