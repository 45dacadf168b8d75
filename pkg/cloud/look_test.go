package cloud

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// detachThrottled detaches the volume at slot virtio:1 while the API refuses the first request and asks for a pause, in which
// someone else changes the server's disks.
func detachThrottled(t *testing.T, meanwhile func(sim *simulatortest.Server, server, volume, other string)) (
	err error, again func() error, disks func() []string, volume, other string,
) {
	t.Helper()
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	volume, other = mustCreate(t, c, "wanted").ID, makeTwin(t, sim, "other")
	if err := c.Attach(t.Context(), volume, server); err != nil {
		t.Fatal(err)
	}
	const detachment = "POST /server/{uuid}/storage/detach"
	sim.Inject(simulator.Fault{Operation: detachment, Status: 429, RetryAfter: time.Second, Count: 1})
	outcome := make(chan error, 1)
	go func() { outcome <- c.Detach(t.Context(), volume, server) }()
	eventually(t, "the detachment is throttled", func() bool { return sim.Requests()[detachment].Failed == 1 })
	sim.Do(t, "POST", "/server/"+server+"/storage/detach", `{"storage_device":{"address":"virtio:1"}}`, nil)
	meanwhile(sim, server, volume, other)
	again = func() error { return c.Detach(t.Context(), volume, server) }
	return <-outcome, again, func() []string { return disksOf(t, sim, server) }, volume, other
}

func attachAt(t *testing.T, sim *simulatortest.Server, server, storage, address string) {
	t.Helper()
	sim.Do(t, "POST", "/server/"+server+"/storage/attach",
		`{"storage_device":{"type":"disk","address":"`+address+`","storage":"`+storage+`"}}`, nil)
}

func TestThrottledDetachmentLeavesWhatCameToItsAddress(t *testing.T) {
	err, _, disks, _, other := detachThrottled(t, func(sim *simulatortest.Server, server, _, other string) {
		attachAt(t, sim, server, other, "virtio:1")
	})
	if err != nil {
		t.Errorf("the volume is detached, by someone else, and the detachment failed: %v", err)
	}
	if got := disks(); !slices.Equal(got, []string{other}) {
		t.Errorf("disks left are %v, want %s", got, other)
	}
}

// The attachment that the detachment began with is gone. Whether the new one shall go too, the caller has to say.
func TestThrottledDetachmentLeavesALaterAttachmentOfTheVolume(t *testing.T) {
	err, again, disks, volume, other := detachThrottled(t, func(sim *simulatortest.Server, server, volume, other string) {
		attachAt(t, sim, server, other, "virtio:1")
		attachAt(t, sim, server, volume, "virtio:2")
	})
	wantKind(t, err, ErrUnavailable, volume, "virtio:1", "virtio:2")
	if got := disks(); !slices.Equal(got, []string{other, volume}) {
		t.Errorf("disks are %v, want %s and %s", got, other, volume)
	}
	if err := again(); err != nil {
		t.Errorf("asked for once more: %v", err)
	}
	if got := disks(); !slices.Equal(got, []string{other}) {
		t.Errorf("disks left are %v, want %s", got, other)
	}
}

// The transport repeats nothing that names a place, whatever the method and the reason.
func TestTransportSendsWhatNamesAPlaceOnce(t *testing.T) {
	for name, test := range map[string]struct {
		answer    func(*http.Request) (*http.Response, error)
		lookAgain bool // it certainly had no effect
		uncertain bool
	}{
		"throttled":         {status(429, "Retry-After", "1"), true, false},
		"no connection":     {brokenBeforeSending, true, false},
		"old credentials":   {status(401), true, false},
		"broken connection": {brokenAfterSending, false, true},
		"no answer in time": {silent, false, true},
		"unavailable":       {status(503), false, true},
		"refusal":           {status(409), false, false},
	} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			t.Run(name+" "+method, func(t *testing.T) {
				dir := t.TempDir()
				writeSecret(t, dir, map[string]string{"token": "old"})
				c := newCloud(t, Config{CredentialsDir: dir, BaseURL: "http://api.example"})
				writeSecret(t, dir, map[string]string{"token": "new"})
				wire := &wire{script: []func(*http.Request) (*http.Response, error){test.answer}}
				transport := c.http.Transport.(*transport)
				transport.base, transport.timeout = wire, 10*time.Millisecond
				err := c.call(withLook(t.Context(), time.Now()), method, "/storage/"+unknownID, nil, nil)
				if err == nil || lookAgain(err) != test.lookAgain || uncertain(err) != test.uncertain {
					t.Errorf("got %v: look again %t, uncertain %t; want %t, %t", err, lookAgain(err), uncertain(err),
						test.lookAgain, test.uncertain)
				}
				if got := len(wire.attempts); got != 1 {
					t.Errorf("%d attempts, want 1", got)
				}
			})
		}
	}
}

// A look is of no use any more when the request has been held back for long.
func TestTransportSendsNothingOnTheStrengthOfAnOldLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, wire := newTestTransport(t, status(200))
		transport.throttle.pauseFor(2 * lookAge)
		_, err := roundTrip(t, transport, withLook(t.Context(), time.Now()), "POST")
		if !errors.Is(err, errOldLook) || !mayPass(err) || len(wire.attempts) != 0 {
			t.Errorf("error %v after %d attempts", err, len(wire.attempts))
		}
		if _, err := roundTrip(t, transport, withLook(t.Context(), time.Now()), "POST"); err != nil || len(wire.attempts) != 1 {
			t.Errorf("error %v after %d attempts, although the look is recent", err, len(wire.attempts))
		}
	})
}

const testVolumeID = "01b1f3a2-5c7d-4e9f-8a6b-3c2d1e0f9a8b"

// However many requests wait for their turn, a detachment follows its look at once: else it would never be sent.
func TestDetachmentAmongManyRequestsIsSentWhileItsLookIsRecent(t *testing.T) {
	for name, config := range map[string]Config{
		"few a second":    {RequestsPerSecond: 1, Burst: 1},
		"few at one time": {RequestsPerSecond: 1000, Burst: 1000, Concurrency: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config.Token, config.BaseURL = "t", "http://api.example"
				c, err := New(config)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				var detachments atomic.Int32
				c.http.Transport.(*transport).base = answers(func(r *http.Request) string {
					time.Sleep(time.Second)
					switch {
					case r.Method == http.MethodPost:
						detachments.Add(1)
						return `{"server":{"uuid":"` + unknownID + `","state":"started"}}`
					case strings.HasPrefix(r.URL.Path, "/1.3/server/"):
						return `{"server":{"uuid":"` + unknownID + `","state":"started","storage_devices":{"storage_device":[` +
							`{"address":"virtio:1","storage":"` + testVolumeID + `","type":"disk","labels":[{"key":"csi-name","value":"pvc-1"}]}]}}}`
					}
					return "{}"
				})
				ctx, leave := context.WithCancel(t.Context())
				var others sync.WaitGroup
				defer others.Wait()
				defer leave()
				for range 20 { // each asks again as soon as it has an answer
					others.Go(func() {
						for ctx.Err() == nil {
							_ = c.call(ctx, http.MethodGet, "/account", nil, nil) // its outcome does not matter
						}
					})
				}
				synctest.Wait()
				if err := c.Detach(t.Context(), testVolumeID, unknownID); err != nil || detachments.Load() != 1 {
					t.Errorf("%d detachments sent, error %v", detachments.Load(), err)
				}
			})
		})
	}
}

// answers is a network whose API answers every request with status 200.
type answers func(*http.Request) (body string)

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	sentTo(r)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: newBody([]byte(a(r))), Request: r}, nil
}
