package driver_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func (r *rig) publishReadOnly(t *testing.T, volume, node string, readOnly bool) (map[string]string, error) {
	t.Helper()
	resp, err := r.controller.ControllerPublishVolume(callContext(t), &csi.ControllerPublishVolumeRequest{
		VolumeId: volume, NodeId: node, VolumeCapability: writer(), Readonly: readOnly,
	})
	return resp.GetPublishContext(), err
}

func TestPublishReadOnlyIsRemembered(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	for _, readOnly := range []bool{true, false, true} {
		want := ""
		if readOnly {
			want = "true"
		}
		for range 2 {
			published, err := r.publishReadOnly(t, volume, server, readOnly)
			if err != nil || published["readonly"] != want {
				t.Fatalf("read-only %v: %v, %v", readOnly, published, err)
			}
		}
		_, err := r.publishReadOnly(t, volume, server, !readOnly)
		wantCode(t, err, codes.AlreadyExists)
		if err := r.unpublish(t, volume, server); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := r.controller.ControllerPublishVolume(callContext(t), &csi.ControllerPublishVolumeRequest{
		VolumeId: volume, NodeId: server, Readonly: true,
		VolumeCapability: blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER),
	})
	if err != nil || answer.GetPublishContext()["readonly"] != "true" {
		t.Errorf("a raw block volume read-only: %v, %v", answer, err)
	}
}

// Nodes that UpCloud's own driver registered have host names for IDs until the driver there is replaced.
func TestPublishByHostName(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	r.sim.CreateServer(t, "worker-1", "de-fra1") // of the same name in another zone
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	for range 2 {
		if _, err := r.publish(t, volume, "Worker-1"); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.storage(t, volume).Servers.Server; !slices.Equal(got, []string{server}) {
		t.Errorf("attached to %v, want %s", got, server)
	}
	// One that came after the list was read is found too; of two of a name none is guessed.
	newer := r.sim.CreateServer(t, "worker-2", zone)
	other := r.create(t, createRequest("pvc-2")).GetVolumeId()
	if _, err := r.publish(t, other, "worker-2"); err != nil {
		t.Fatal(err)
	}
	if got := r.storage(t, other).Servers.Server; !slices.Equal(got, []string{newer}) {
		t.Errorf("attached to %v, want %s", got, newer)
	}
	twin := r.sim.CreateServer(t, "worker-3", zone)
	second := r.sim.CreateServer(t, "worker-3", zone)
	_, err := r.publish(t, r.create(t, createRequest("pvc-3")).GetVolumeId(), "worker-3")
	wantCode(t, err, codes.FailedPrecondition)
	for _, id := range []string{twin, second} {
		if !strings.Contains(status.Convert(err).Message(), id) {
			t.Errorf("the error does not name %s: %v", id, err)
		}
	}
}

func TestPublishAndUnpublishInEveryStateOfTheServer(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	here, away := r.create(t, createRequest("here")).GetVolumeId(), r.create(t, createRequest("away")).GetVolumeId()
	if _, err := r.publish(t, here, server); err != nil {
		t.Fatal(err)
	}
	set := func(state string) {
		t.Helper()
		if err := r.sim.SetServerState(server, state); err != nil {
			t.Fatal(err)
		}
	}
	// Maintenance passes; it is waited for: see TestMaintenanceIsWaitedOut of pkg/cloud.
	set("error")
	_, err := r.publish(t, away, server)
	if wantCode(t, err, codes.FailedPrecondition); !strings.Contains(status.Convert(err).Message(), "state error") {
		t.Errorf("the state is not told: %v", err)
	}
	if _, err := r.publish(t, here, server); err != nil {
		t.Errorf("it is attached already: %v", err)
	}
	wantCode(t, r.unpublish(t, here, server), codes.FailedPrecondition)
	if got := r.storage(t, here).Servers.Server; !slices.Equal(got, []string{server}) {
		t.Errorf("told as failed, and attached to %v", got)
	}

	set("stopped")
	if err := r.unpublish(t, here, server); err != nil {
		t.Errorf("from a stopped server: %v", err)
	}
	if _, err := r.publish(t, away, server); err != nil {
		t.Errorf("to a stopped server: %v", err)
	}
	if err := r.sim.RemoveServer(server); err != nil {
		t.Fatal(err)
	}
	if err := r.unpublish(t, away, server); err != nil {
		t.Errorf("from a server that is gone: %v", err)
	}
	_, err = r.publish(t, away, server)
	wantCode(t, err, codes.NotFound)
}
