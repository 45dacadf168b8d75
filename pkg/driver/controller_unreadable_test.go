package driver_test

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// refusal lets an API answer 403 to requests of one path, as to a user who may not read that server or storage.
type refusal struct{ path atomic.Value }

func newRefusal(t *testing.T, sim *simulatortest.Server) (r *refusal, url string) {
	t.Helper()
	r = &refusal{}
	proxy := sim.Proxy(t)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if path, set := r.path.Load().(string); set && req.URL.Path == "/1.3"+path {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"error":{"error_code":"ACTION_FORBIDDEN","error_message":"The action is forbidden."}}`))
			return
		}
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(api.Close)
	return r, api.URL
}

func (r *restRig) listError(t *testing.T) error {
	t.Helper()
	_, err := r.controller.ListVolumes(callContext(t), &csi.ListVolumesRequest{})
	return err
}

// A server that cannot be read hides its volumes only: they are looked at themselves, and those of other servers are known as
// ever. Its volumes do not count as detached.
func TestServerThatCannotBeReadHidesNoVolume(t *testing.T) {
	for name, from := range map[string]int{"from the start": 0, "later": 1} {
		t.Run(name, func(t *testing.T) {
			sim := simulatortest.Start(t, simulator.Config{})
			places, servers := populate(t, sim, 3, 4)
			refusal, url := newRefusal(t, sim)
			r := newRestAt(t, sim, url)
			for range from {
				r.published(t)
			}
			broken := servers[0]
			refusal.path.Store("/server/" + broken)
			for range 12 {
				if got := r.published(t); !maps.EqualFunc(got, places, slices.Equal) {
					t.Fatalf("listed are %v, want %v", got, places)
				}
				r.clock.advance(reconcileSync)
			}
			for _, volume := range slices.Sorted(maps.Keys(places)) {
				detachByHand(t, sim, volume, places[volume][0])
				if took := r.noticedAfter(t, reconcileSync, volume); took > 10*time.Minute {
					t.Errorf("that volume %s of server %s was detached was noticed after %s (the broken server is %s)",
						volume, places[volume], took, broken)
				}
			}
		})
	}
}

// Where it cannot be known where a volume is, there is no list, as csi-attacher takes what is not listed for detached. But one
// storage that can never be read does not stop the list for ever.
func TestStorageThatCannotBeRead(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	places, servers := populate(t, sim, 2, 2)
	broken := makeDisk(t, sim, "broken")
	places[broken] = nil
	refusal, url := newRefusal(t, sim)
	refusal.path.Store("/storage/" + broken)
	r := newRestAt(t, sim, url)
	for passed := time.Duration(0); passed < 9*time.Minute; passed += reconcileSync {
		if err := r.listError(t); err == nil {
			t.Fatalf("after %s there is a list without the volume's place", passed)
		}
		r.clock.advance(reconcileSync)
	}
	r.clock.advance(reconcileSync)
	if got := r.published(t); !maps.EqualFunc(got, places, slices.Equal) {
		t.Errorf("listed are %v, want %v", got, places)
	}
	// When it can be read again, its place is known again.
	refusal.path.Store("")
	attachByHand(t, sim, broken, servers[0])
	if took := r.noticedAfter(t, reconcileSync, broken, servers[0]); took > 10*time.Minute {
		t.Errorf("that it was attached was noticed after %s", took)
	}
}

// While the API answers nothing about servers and storages, no volume is listed as detached.
func TestVolumesAreNotListedAsDetachedWhileTheAPIFails(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	places, _ := populate(t, sim, 10, 2)
	r := newRest(t, sim)
	r.published(t)
	fail := func() (heal func()) {
		servers := sim.Inject(simulator.Fault{Operation: "GET /server/{uuid}", Status: http.StatusForbidden})
		storages := sim.Inject(simulator.Fault{Operation: "GET /storage/{uuid}", Status: http.StatusForbidden})
		return func() { servers(); storages() }
	}
	heal := fail()
	for range 20 {
		r.clock.advance(reconcileSync)
		entries, err := r.controller.ListVolumes(callContext(t), &csi.ListVolumesRequest{})
		for _, entry := range entries.GetEntries() {
			if len(entry.GetStatus().GetPublishedNodeIds()) == 0 {
				t.Errorf("volume %s is listed as detached", entry.GetVolume().GetVolumeId())
			}
		}
		if err == nil && len(entries.GetEntries()) != len(places) {
			t.Errorf("%d volumes are listed, want %d", len(entries.GetEntries()), len(places))
		}
	}
	if err := newRest(t, sim).listError(t); err == nil {
		t.Error("a controller that knows nothing gave a list")
	}
	heal()
	r.clock.advance(reconcileSync)
	if got := r.published(t); !maps.EqualFunc(got, places, slices.Equal) {
		t.Errorf("afterwards listed are %v, want %v", got, places)
	}
}

// A list that takes longer than its caller waits goes on, and who asks again gets it.
func TestListVolumesGoesOnWhenItsCallerHasLeft(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	places, _ := populate(t, sim, 10, 2)
	proxy, asked, release := sim.Proxy(t), make(chan struct{}), make(chan struct{})
	begun := sync.OnceFunc(func() { close(asked) })
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/1.3/server/") {
			begun()
			<-release
		}
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(api.Close)
	r := newRestAt(t, sim, api.URL)
	sim.ResetRequests()
	ctx, leave := context.WithCancel(callContext(t))
	outcome := make(chan error)
	go func() {
		_, err := r.controller.ListVolumes(ctx, &csi.ListVolumesRequest{})
		outcome <- err
	}()
	<-asked
	leave()
	wantCode(t, <-outcome, codes.Canceled)
	close(release)
	if got := r.published(t); !maps.EqualFunc(got, places, slices.Equal) {
		t.Errorf("listed are %v, want %v", got, places)
	}
	if servers := sim.Requests().Of("GET /server/{uuid}"); servers != 10 {
		t.Errorf("10 servers were asked %d times", servers)
	}
}
