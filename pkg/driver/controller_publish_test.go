package driver_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func TestControllerPublishAndUnpublish(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	other := r.sim.CreateServer(t, "worker-2", zone)
	id := r.create(t, createRequest(claimName(1))).GetVolumeId()

	for _, calls := range []int{2, 1} { // the second time there is nothing to do
		r.sim.ResetRequests()
		context, err := r.publish(t, id, server)
		if err != nil {
			t.Fatal(err)
		}
		serial := strings.ReplaceAll(id, "-", "")[:20]
		if context["serial"] != serial || context["size"] != strconv.FormatInt(gib, 10) {
			t.Errorf("publish context %v, want serial %s and 1 GiB", context, serial)
		}
		if counts := r.sim.Requests(); counts.Total() > calls {
			t.Errorf("%d calls, want %d at most: %v", counts.Total(), calls, counts)
		}
	}
	if got := r.storage(t, id).Servers.Server; len(got) != 1 || got[0] != server {
		t.Errorf("attached to %v, want %s", got, server)
	}

	_, err := r.publish(t, id, other)
	if wantCode(t, err, codes.FailedPrecondition); err != nil && !strings.Contains(err.Error(), server) {
		t.Errorf("the error does not name the server that has the volume: %v", err)
	}
	if err := r.unpublish(t, id, other); err != nil {
		t.Errorf("unpublishing where it is not: %v", err)
	}
	if got := r.storage(t, id).Servers.Server; len(got) != 1 || got[0] != server {
		t.Errorf("unpublishing elsewhere left it attached to %v, want %s", got, server)
	}
	for range 2 {
		r.sim.ResetRequests()
		if err := r.unpublish(t, id, server); err != nil {
			t.Fatal(err)
		}
		if counts := r.sim.Requests(); counts.Total() > 2 {
			t.Errorf("%d calls, want 2 at most: %v", counts.Total(), counts)
		}
	}
	if got := r.storage(t, id).Servers.Server; len(got) != 0 {
		t.Errorf("still attached to %v", got)
	}
}

func TestControllerPublishErrors(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	gone := r.sim.CreateServer(t, "worker-2", zone)
	r.sim.Do(t, "POST", "/server/"+gone+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
	r.sim.Do(t, "DELETE", "/server/"+gone+"?storages=1", "", nil)
	id := r.create(t, createRequest("pvc-1")).GetVolumeId()
	cases := []struct {
		name, volume, node string
		code               codes.Code
	}{
		{"no volume", "", server, codes.InvalidArgument},
		{"no node", id, "", codes.InvalidArgument},
		{"unknown volume", uuid.NewString(), server, codes.NotFound},
		{"an ID that names no volume", "pvc-1", server, codes.NotFound},
		{"unknown server", id, uuid.NewString(), codes.NotFound},
		{"vanished server", id, gone, codes.NotFound},
		{"a host name of no server", id, "worker-3", codes.NotFound},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := r.publish(t, c.volume, c.node)
			wantCode(t, err, c.code)
		})
	}
}

func TestControllerPublishToAFullServer(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	var err error
	published := 0
	for ; err == nil && published < 20; published++ {
		id := r.create(t, createRequest("pvc-"+strconv.Itoa(published))).GetVolumeId()
		_, err = r.publish(t, id, server)
	}
	wantCode(t, err, codes.ResourceExhausted)
	if full := published - 1; full != 15 { // 16 devices, one of them the system disk
		t.Errorf("the server took %d volumes, want 15", full)
	}
}

func TestControllerUnpublishEverywhere(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	id := r.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := r.publish(t, id, server); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.unpublish(t, id, ""); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.storage(t, id).Servers.Server; len(got) != 0 {
		t.Errorf("still attached to %v", got)
	}
}

func TestControllerUnpublishFromAStoppedServer(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	id := r.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := r.publish(t, id, server); err != nil {
		t.Fatal(err)
	}
	r.sim.Do(t, "POST", "/server/"+server+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
	if err := r.unpublish(t, id, server); err != nil {
		t.Fatal(err)
	}
	if got := r.storage(t, id).Servers.Server; len(got) != 0 {
		t.Errorf("still attached to %v", got)
	}
}

func TestControllerUnpublishFromAVanishedServer(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	id := r.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := r.publish(t, id, server); err != nil {
		t.Fatal(err)
	}
	r.sim.Do(t, "POST", "/server/"+server+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
	r.sim.Do(t, "DELETE", "/server/"+server, "", nil)
	if err := r.unpublish(t, id, server); err != nil {
		t.Fatal(err)
	}
	if err := r.unpublish(t, uuid.NewString(), server); err != nil {
		t.Errorf("a volume that is gone: %v", err)
	}
}

// A detachment goes on when its caller has left. A publish that came meanwhile must not take the volume for attached: it
// would be mounted, and then pulled.
func TestPublishAfterADetachmentThatWasLeft(t *testing.T) {
	for name, readOnly := range map[string]bool{"for writing": false, "read-only": true} {
		t.Run(name, func(t *testing.T) { publishAfterALeftDetachment(t, readOnly) })
	}
}

func publishAfterALeftDetachment(t *testing.T, readOnly bool) {
	const detach = "POST /server/{uuid}/storage/detach"
	clock := simulator.NewManualClock()
	r := newController(t, simulator.Config{Clock: clock})
	server := r.sim.CreateServer(t, "worker-1", zone)
	id := r.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := r.publish(t, id, server); err != nil {
		t.Fatal(err)
	}
	r.sim.Inject(simulator.Fault{Operation: detach, Latency: time.Minute, Count: 1})
	r.sim.ResetRequests()
	before := clock.Pending()
	held := func() bool { return clock.Pending() > before }
	err := leaveWhen(t, "the detachment is on its way", held, func(ctx context.Context) error {
		_, err := r.controller.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: id, NodeId: server})
		return err
	})
	wantCode(t, err, codes.Canceled)

	published := make(chan error, 1)
	go func() { published <- r.publishUntilHeard(t, id, server, readOnly) }()
	if err := advanceUntil(t, clock, published); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the detachment comes", func() bool {
		clock.Advance(time.Second)
		return r.sim.Requests().Of(detach) > 0
	})
	if got := r.storage(t, id).Servers.Server; !slices.Equal(got, []string{server}) {
		t.Errorf("published, and attached to %v", got)
	}
	if _, err := r.publishReadOnly(t, id, server, readOnly); err != nil {
		t.Errorf("the retry: %v", err)
	}
}

// publishUntilHeard publishes again as long as another operation on the volume is in flight.
func (r *rig) publishUntilHeard(t *testing.T, id, server string, readOnly bool) error {
	t.Helper()
	for {
		if _, err := r.publishReadOnly(t, id, server, readOnly); codeOf(err) != codes.Aborted {
			return err
		}
	}
}

// Volumes that UpCloud's own driver attached have the host name of their server for a node ID.
func TestControllerUnpublishByHostName(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	id := r.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := r.publish(t, id, server); err != nil {
		t.Fatal(err)
	}
	if err := r.unpublish(t, id, "another-host"); err == nil {
		t.Error("OK for a host name that is none of the server's, while the volume is attached")
	}
	if err := r.unpublish(t, id, "worker-1"); err != nil {
		t.Fatal(err)
	}
	if got := r.storage(t, id).Servers.Server; len(got) != 0 {
		t.Errorf("still attached to %v", got)
	}
}
