package driver_test

import (
	"context"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// What is gone is NOT_FOUND to whoever wants to use it, and fine to whoever wants to be rid of it.
func TestWhatIsGoneIsNotFoundAndFineToBeRidOf(t *testing.T) {
	r := newController(t, simulator.Config{})
	server, gone := r.sim.CreateServer(t, "worker-1", zone), uuid.NewString()
	for what, call := range map[string]struct {
		do   func(ctx context.Context) error
		want codes.Code
	}{
		"ControllerPublishVolume": {func(ctx context.Context) error {
			return publication(gone, server, false)(ctx, r.controller)
		}, codes.NotFound},
		"ControllerUnpublishVolume": {func(ctx context.Context) error {
			return withdrawal(gone, server)(ctx, r.controller)
		}, codes.OK},
		"ControllerExpandVolume": {func(context.Context) error {
			_, err := r.expand(t, gone, gib, 0)
			return err
		}, codes.NotFound},
		"ControllerModifyVolume": {func(context.Context) error {
			return r.modify(t, gone, map[string]string{"labels": "team=storage"})
		}, codes.NotFound},
		"ControllerGetVolume": {func(ctx context.Context) error {
			_, err := r.controller.ControllerGetVolume(ctx, &csi.ControllerGetVolumeRequest{VolumeId: gone})
			return err
		}, codes.NotFound},
		"ValidateVolumeCapabilities": {func(ctx context.Context) error {
			_, err := r.controller.ValidateVolumeCapabilities(ctx, &csi.ValidateVolumeCapabilitiesRequest{
				VolumeId: gone, VolumeCapabilities: []*csi.VolumeCapability{writer()},
			})
			return err
		}, codes.NotFound},
		"DeleteVolume": {func(ctx context.Context) error {
			_, err := r.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: gone})
			return err
		}, codes.OK},
		"CreateSnapshot": {func(ctx context.Context) error {
			_, err := r.controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: gone})
			return err
		}, codes.NotFound},
		"GetSnapshot": {func(ctx context.Context) error {
			_, err := r.controller.GetSnapshot(ctx, &csi.GetSnapshotRequest{SnapshotId: gone})
			return err
		}, codes.NotFound},
		"DeleteSnapshot": {func(ctx context.Context) error {
			_, err := r.controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: gone})
			return err
		}, codes.OK},
	} {
		if err := call.do(callContext(t)); status.Code(err) != call.want {
			t.Errorf("%s: %v, want %s", what, err, call.want)
		}
	}
}

// Whether a list of the account is whole is not known: nothing that is asked for by its ID or name may depend on one.
func TestNothingIsConcludedFromAListOfTheAccount(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	for _, list := range []string{"GET /storage/normal", "GET /storage/private", "GET /storage/backup", "GET /server", "GET /ip_address"} {
		r.sim.Inject(simulator.Fault{Operation: list, Status: 403})
	}
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := r.publish(t, volume, server); err != nil {
		t.Error(err)
	}
	if _, err := r.expand(t, volume, 2*gib, 0); err != nil {
		t.Error(err)
	}
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	if err := r.unpublish(t, volume, server); err != nil {
		t.Error(err)
	}
	r.deleteVolume(t, volume)
	if ids, _ := r.listSnapshots(t, &csi.ListSnapshotsRequest{SnapshotId: snapshot}); len(ids) != 1 {
		t.Errorf("the snapshot is listed as %v", ids)
	}
	if _, err := r.controller.DeleteSnapshot(callContext(t), &csi.DeleteSnapshotRequest{SnapshotId: snapshot}); err != nil {
		t.Error(err)
	}
}

// A volume that is there and not ready yet is not told as made, to whoever asks how often.
func TestAVolumeThatIsStillBeingMadeIsNotTold(t *testing.T) {
	clock := simulator.NewManualClock()
	r := newController(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	volume := r.create(t, createRequest("original")).GetVolumeId()
	req := copyRequest("clone", 1, fromVolume(volume))
	for range 3 {
		r.sim.ResetRequests()
		polled := func() bool { return r.sim.Requests().Of("GET /storage/{uuid}") > 1 }
		err := leaveWhen(t, "the copy is looked at, and again", polled, func(ctx context.Context) error {
			for { // the call before may be on its way out
				if _, err := r.controller.CreateVolume(ctx, req); status.Code(err) != codes.Aborted {
					return err
				}
			}
		})
		wantCode(t, err, codes.Canceled)
	}
	clock.Advance(time.Hour)
	for {
		resp, err := r.controller.CreateVolume(callContext(t), req)
		if err != nil && mayTryAgain(err) {
			continue
		}
		if err != nil || resp.GetVolume().GetAccessibleTopology()[0].GetSegments()["region"] != zone {
			t.Errorf("made %v, %v", resp, err)
		}
		break
	}
	if n := len(r.disks(t)); n != 2 {
		t.Errorf("there are %d disks", n)
	}
}

// The API's own resizing of filesystems needs a partition and leaves a backup behind: raw block volumes and whole disks have
// none, and what it leaves is paid for.
func TestNoGrowthUsesTheResizingOfFilesystems(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	block := []*csi.VolumeCapability{blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)}
	req := createRequest("original")
	req.VolumeCapabilities = block
	volume := r.create(t, req).GetVolumeId()
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	for name, source := range map[string]*csi.VolumeContentSource{"restored": fromSnapshot(snapshot), "clone": fromVolume(volume)} {
		larger := copyRequest(name, 3, source)
		larger.VolumeCapabilities = block
		if made := r.create(t, larger); made.GetCapacityBytes() != 3*gib || r.storage(t, made.GetVolumeId()).Size != 3 {
			t.Errorf("%s: %v", name, made)
		}
	}
	if _, err := r.publish(t, volume, server); err != nil {
		t.Fatal(err)
	}
	grown, err := r.controller.ControllerExpandVolume(callContext(t), &csi.ControllerExpandVolumeRequest{
		VolumeId: volume, CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * gib}, VolumeCapability: block[0],
	})
	if err != nil || grown.GetCapacityBytes() != 2*gib || grown.GetNodeExpansionRequired() {
		t.Errorf("grown to %v, %v", grown, err)
	}
	if n := r.sim.Requests().Of("POST /storage/{uuid}/resize"); n != 0 {
		t.Errorf("filesystems were resized by the API %d times", n)
	}
	if ids, _ := r.listSnapshots(t, &csi.ListSnapshotsRequest{}); len(ids) != 1 {
		t.Errorf("there are backups %v, want the snapshot alone", ids)
	}
}
