package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// twoCopies are two controllers on one account, as a former leader and its successor are.
func twoCopies(t *testing.T) (first, second *Cloud, sim *simulatortest.Server) {
	t.Helper()
	first, sim = startCloud(t, simulator.Config{Profile: simulator.Fast})
	return first, newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token}), sim
}

// leave makes a call and leaves it after a moment, wherever it is by then.
func leave(t *testing.T, after time.Duration, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), after)
	defer cancel()
	if err := do(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the call that was left: %v", err)
	}
}

func landed(t *testing.T, c *Cloud) {
	t.Helper()
	eventually(t, "what was left has come to its end", func() bool { return len(c.attachments.inAir()) == 0 })
}

const handovers = 40

// handOver has the server busy with another disk when a call to the first copy comes, which is left at some moment, and waits
// until both are over.
func handOver(t *testing.T, first, second *Cloud, server string, after time.Duration, do func(context.Context) error) {
	t.Helper()
	busy := mustCreate(t, second, "busy").ID
	other := make(chan error, 1)
	go func() { other <- second.Attach(t.Context(), busy, server) }()
	leave(t, after, do)
	if err := errors.Join(<-other, second.Detach(t.Context(), busy, server)); err != nil {
		t.Fatal(err)
	}
}

// What a former leader began to detach does not take away what its successor attached.
func TestADetachmentThatWasLeftTakesNoLaterAttachmentAway(t *testing.T) {
	first, second, sim := twoCopies(t)
	server := sim.CreateServer(t, "node-1", testZone)
	for i := range handovers {
		volume := mustCreate(t, second, fmt.Sprint("pvc-", i)).ID
		if err := second.Attach(t.Context(), volume, server); err != nil {
			t.Fatal(err)
		}
		handOver(t, first, second, server, time.Duration(i)*time.Millisecond, func(ctx context.Context) error {
			return first.Detach(ctx, volume, server)
		})
		for _, change := range []func(context.Context, string, string) error{second.Detach, second.Attach} {
			if err := change(t.Context(), volume, server); err != nil {
				t.Fatal(err)
			}
		}
		landed(t, first)
		if disks := disksOf(t, sim, server); !slices.Contains(disks, volume) {
			t.Errorf("volume %d was detached again", i)
		}
		if err := second.Detach(t.Context(), volume, server); err != nil {
			t.Fatal(err)
		}
	}
}

// What a former leader began to attach does not turn up at a server where no one expects it.
func TestAnAttachmentThatWasLeftDoesNotComeAfterItsDetachment(t *testing.T) {
	first, second, sim := twoCopies(t)
	here, there := sim.CreateServer(t, "here", testZone), sim.CreateServer(t, "there", testZone)
	for i := range handovers {
		volume := mustCreate(t, second, fmt.Sprint("pvc-", i)).ID
		handOver(t, first, second, here, time.Duration(i)*time.Millisecond, func(ctx context.Context) error {
			return first.Attach(ctx, volume, here)
		})
		if err := second.Detach(t.Context(), volume, here); err != nil {
			t.Fatal(err)
		}
		if err := second.Attach(t.Context(), volume, there); err != nil {
			t.Errorf("volume %d: %v", i, err)
		}
		landed(t, first)
		if err := second.Detach(t.Context(), volume, there); err != nil {
			t.Fatal(err)
		}
	}
}

// changing are the calls that change the account, by the request that does it.
var changing = map[string]func(ctx context.Context, c *Cloud, volume, server string) error{
	"POST /server/{uuid}/storage/attach": func(ctx context.Context, c *Cloud, volume, server string) error {
		return c.Attach(ctx, volume, server)
	},
	"POST /server/{uuid}/storage/detach": func(ctx context.Context, c *Cloud, volume, server string) error {
		return c.Detach(ctx, volume, server)
	},
	"POST /storage": func(ctx context.Context, c *Cloud, _, _ string) error {
		_, err := c.CreateVolume(ctx, testSpec("new"))
		return err
	},
	"POST /storage/{uuid}/clone": func(ctx context.Context, c *Cloud, volume, _ string) error {
		spec := testSpec("copy")
		spec.SourceID = volume
		_, err := c.CreateVolume(ctx, spec)
		return err
	},
	"POST /storage/{uuid}/backup": func(ctx context.Context, c *Cloud, volume, _ string) error {
		_, err := c.CreateSnapshot(ctx, SnapshotSpec{Name: "snapshot", VolumeID: volume})
		return err
	},
	"PUT /storage/{uuid}": func(ctx context.Context, c *Cloud, volume, _ string) error {
		_, err := c.ExpandVolume(ctx, volume, 20, 0)
		return err
	},
}

// Whatever a left flight waits for, it changes nothing any more, and the retry does.
func TestWhatWasLeftIsNotAskedForAgain(t *testing.T) {
	for name, refusal := range map[string]simulator.Fault{
		"throttled":        {Status: 429, RetryAfter: time.Second},
		"answer lost":      {Drop: true},
		"failing":          {Status: 503},
		"server is busy":   {Status: 409, Code: "SERVER_STATE_ILLEGAL"},
		"storage is busy":  {Status: 409, Code: "STORAGE_STATE_ILLEGAL"},
		"hot-plug failure": {Status: 409, Code: "HOTPLUG_FAILED"},
	} {
		for operation, call := range changing {
			t.Run(name+" "+operation, func(t *testing.T) {
				c, sim := startCloud(t, simulator.Config{})
				server := sim.CreateServer(t, "node-1", testZone)
				volume := mustCreate(t, c, "pvc-1").ID
				if operation == "POST /server/{uuid}/storage/detach" {
					if err := c.Attach(t.Context(), volume, server); err != nil {
						t.Fatal(err)
					}
				}
				sim.ResetRequests()
				refusal.Operation = operation
				remove := sim.Inject(refusal)
				do := func(ctx context.Context) error { return call(ctx, c, volume, server) }
				err := leaveWhen(t, "the request is refused", func() bool { return sim.Requests().Of(operation) > 0 }, do)
				if err == nil {
					t.Fatal("it went well, although every request was refused")
				}
				c.work.idle(t)
				sent := sim.Requests().Of(operation)
				remove()
				if err := do(t.Context()); err != nil {
					t.Errorf("the retry: %v", err)
				}
				if now := sim.Requests().Of(operation); now != sent+1 {
					t.Errorf("%d requests by the call that was left, %d with the retry's", sent, now)
				}
			})
		}
	}
}

// idle waits until no work is under way.
func (w *workers) idle(t *testing.T) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.group.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("work that was left goes on")
	}
}

// The transport refuses a change for work that was left, before it is sent and after each pause; it goes on to read.
func TestTransportSendsNoChangeForWorkThatWasLeft(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		synctest.Test(t, func(t *testing.T) {
			transport, wire := newTestTransport(t, status(429, "Retry-After", "30"), status(200))
			callers, leave := context.WithCancel(t.Context())
			ctx := context.WithValue(t.Context(), attendedKey{}, callers)
			outcome := make(chan error)
			began := time.Now()
			go func() {
				_, err := roundTrip(t, transport, ctx, method)
				outcome <- err
			}()
			synctest.Wait()
			leave()
			if err := <-outcome; err != nil || len(wire.attempts) != 1 || time.Since(began) != 0 {
				t.Errorf("%s left during a pause: error %v after %d attempts and %s", method, err, len(wire.attempts), time.Since(began))
			}
			if _, err := roundTrip(t, transport, ctx, method); !errors.Is(err, errUnattended) || !neverSent(err) || mayPass(err) {
				t.Errorf("%s left before: error %v", method, err)
			}
			if code, err := roundTrip(t, transport, ctx, "GET"); code != 200 || err != nil {
				t.Errorf("GET: %d, %v", code, err)
			}
		})
	}
}

func TestACallerThatHasLeftBeginsNothing(t *testing.T) {
	f := newFlights[string](t.Context(), new(workers))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.do(ctx, "key", func(*work) (string, error) {
		t.Error("work was begun")
		return "", nil
	})
	wantKind(t, err, context.Canceled)
}
