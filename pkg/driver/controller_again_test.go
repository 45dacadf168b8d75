package driver_test

import (
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// A volume may have been grown, and its source too, before the answer to its creation gets through: it is the volume that
// was asked for as long as its size is in the range.
func TestAVolumeGrownSinceIsStillTheOneAskedFor(t *testing.T) {
	r := newController(t, simulator.Config{})
	original := r.create(t, createRequest("original")).GetVolumeId()
	clone := copyRequest("clone", 1, fromVolume(original))
	made := r.create(t, clone).GetVolumeId()
	if _, err := r.expand(t, original, 3*gib, 0); err != nil {
		t.Fatal(err)
	}
	if again := r.create(t, clone); again.GetVolumeId() != made || again.GetCapacityBytes() != gib {
		t.Errorf("after its source grew: %v", again)
	}
	req := createRequest("original")
	if again := r.create(t, req); again.GetVolumeId() != original || again.GetCapacityBytes() != 3*gib {
		t.Errorf("after it grew: %v", again)
	}
	req.CapacityRange.LimitBytes = 2 * gib
	_, err := r.controller.CreateVolume(callContext(t), req)
	wantCode(t, err, codes.AlreadyExists)
}

// The source may go while nobody finishes its copy: the copy is whole all the same, and the only one there is.
func TestAnUnfinishedCopyOutlivesItsSource(t *testing.T) {
	r := newController(t, simulator.Config{})
	original := r.create(t, createRequest("original")).GetVolumeId()
	req := copyRequest("clone", 2, fromVolume(original))
	remove := r.sim.Inject(simulator.Fault{Operation: "PUT /storage/{uuid}", Status: 503})
	_, err := r.controller.CreateVolume(callContext(t), req)
	remove()
	wantCode(t, err, codes.Unavailable)
	begun := r.disks(t)
	r.deleteVolume(t, original)
	made := r.create(t, req)
	left := r.disks(t)
	if len(begun) != 2 || len(left) != 1 || left[0].UUID != made.GetVolumeId() || left[0].Size != 2 || left[0].Title != "clone" {
		t.Errorf("made %v of %+v; left are %+v", made, begun, left)
	}
	_, err = r.controller.CreateVolume(callContext(t), copyRequest("another", 2, fromVolume(original)))
	wantCode(t, err, codes.NotFound)
}

// Such a copy is all that is left of its source: it is not given up because the request comes with another zone in front.
func TestTheLastCopyOfASourceIsKept(t *testing.T) {
	r := newController(t, simulator.Config{})
	original := r.create(t, createRequest("original")).GetVolumeId()
	req := copyRequest("clone", 1, fromVolume(original))
	req.AccessibilityRequirements = requisite("de-fra1", "nl-ams1")
	req.AccessibilityRequirements.Preferred = topologies("de-fra1", "nl-ams1")
	remove := r.sim.Inject(simulator.Fault{Operation: "PUT /storage/{uuid}", Status: 503})
	_, err := r.controller.CreateVolume(callContext(t), req)
	remove()
	wantCode(t, err, codes.Unavailable)
	r.deleteVolume(t, original)

	elsewhere := copyRequest("clone", 1, fromVolume(original))
	elsewhere.AccessibilityRequirements = requisite("nl-ams1")
	_, err = r.controller.CreateVolume(callContext(t), elsewhere)
	wantCode(t, err, codes.AlreadyExists)
	req.AccessibilityRequirements.Preferred = topologies("nl-ams1", "de-fra1")
	made := r.create(t, req)
	if left := r.disks(t); len(left) != 1 || left[0].Zone != "de-fra1" || left[0].UUID != made.GetVolumeId() {
		t.Errorf("made %v; left are %+v", made, left)
	}
}

// A StorageClass can be made anew under its name while a copy is unfinished: what cannot become what is asked for now makes
// room for what can.
func TestAnUnfinishedCopyOfAnotherKindMakesRoom(t *testing.T) {
	for what, parameters := range map[string]map[string]string{
		"tier": {"tier": "standard"}, "encryption": {"encryption": "data-at-rest"},
	} {
		t.Run(what, func(t *testing.T) {
			r := newController(t, simulator.Config{})
			req := copyRequest("clone", 1, fromVolume(r.create(t, createRequest("original")).GetVolumeId()))
			remove := r.sim.Inject(simulator.Fault{Operation: "PUT /storage/{uuid}", Status: 503})
			_, err := r.controller.CreateVolume(callContext(t), req)
			remove()
			wantCode(t, err, codes.Unavailable)
			req.Parameters = parameters
			made := r.create(t, req)
			if n := len(r.disks(t)); n != 2 {
				t.Errorf("there are %d disks after %v, want the original and its clone", n, made)
			}
		})
	}
}

// A backup that the API fails to make never becomes a snapshot, so that nobody would delete it.
func TestAFailedBackupMakesRoomForAnother(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	r.sim.Inject(simulator.Fault{Operation: "POST /storage/{uuid}/backup", Count: 1, EndsInError: true})
	req := &csi.CreateSnapshotRequest{Name: "snapshot-1", SourceVolumeId: volume}
	for {
		resp, err := r.controller.CreateSnapshot(callContext(t), req)
		if err != nil {
			wantCode(t, err, codes.Unavailable)
			break
		}
		if resp.GetSnapshot().GetReadyToUse() {
			t.Fatal("a backup in state error is ready")
		}
	}
	ready := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	if left := r.storagesNamed(t, "snapshot-1"); len(left) != 1 || left[0].UUID != ready {
		t.Errorf("left are %+v, want %s alone", left, ready)
	}
}

// What is no volume is not found, whatever is asked of it: a backup must not be attached, or confirmed to be a volume.
func TestOnlyDisksAreVolumes(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	snapshot := r.readySnapshot(t, "snapshot-1", r.create(t, createRequest("pvc-1")).GetVolumeId()).GetSnapshotId()
	_, err := r.publish(t, snapshot, server)
	wantCode(t, err, codes.NotFound)
	_, err = r.controller.ValidateVolumeCapabilities(callContext(t), &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: snapshot, VolumeCapabilities: []*csi.VolumeCapability{writer()},
	})
	wantCode(t, err, codes.NotFound)
	_, err = r.expand(t, snapshot, 2*gib, 0)
	wantCode(t, err, codes.NotFound)
	wantCode(t, r.modify(t, snapshot, map[string]string{"labels": "team=storage"}), codes.NotFound)
	if n := r.sim.Requests().Of("POST /server/{uuid}/storage/attach"); n != 0 {
		t.Errorf("%d attachments were asked for", n)
	}
}

// What can never be answered costs no call.
func TestBadPagesAreRefusedBeforeTheAccountIsListed(t *testing.T) {
	r := newController(t, simulator.Config{})
	r.sim.ResetRequests()
	_, err := r.controller.ListSnapshots(callContext(t), &csi.ListSnapshotsRequest{MaxEntries: -1})
	wantCode(t, err, codes.InvalidArgument)
	_, err = r.controller.ListVolumes(callContext(t), &csi.ListVolumesRequest{MaxEntries: -1})
	wantCode(t, err, codes.InvalidArgument)
	_, err = r.controller.ListSnapshots(callContext(t), &csi.ListSnapshotsRequest{StartingToken: "-1"})
	wantCode(t, err, codes.Aborted)
	_, err = r.controller.ListVolumes(callContext(t), &csi.ListVolumesRequest{StartingToken: "-1"})
	wantCode(t, err, codes.Aborted)
	if n := r.sim.Requests().Total(); n != 0 {
		t.Errorf("it took %d calls: %v", n, r.sim.Requests())
	}
}

// Growth does not depend on the backups that there are.
func TestGrowthOfAVolumeWithSnapshotsListsNoAccount(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	for _, name := range []string{"snapshot-1", "snapshot-2"} {
		r.readySnapshot(t, name, volume)
	}
	r.sim.ResetRequests()
	if _, err := r.expand(t, volume, 2*gib, 0); err != nil {
		t.Fatal(err)
	}
	if n := r.sim.Requests().Total(); n != 2 {
		t.Errorf("it took %d calls, want 2: %v", n, r.sim.Requests())
	}
}

// Somebody may keep a volume's backups after all, elsewhere and just now: what is deleted does not come back.
func TestBackupsAreDeletedOnlyOnTheVolumesOwnWordOfNow(t *testing.T) {
	r := newController(t, simulator.Config{})
	req := createRequest("pvc-1")
	req.Parameters = map[string]string{"backupsOnDelete": "delete"}
	volume := r.create(t, req).GetVolumeId()
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	r.deleteVolume(t, r.create(t, createRequest("pvc-2")).GetVolumeId()) // policies are known from now on
	r.sim.Do(t, "PUT", "/storage/"+volume, `{"storage":{"labels":[{"key":"csi-name","value":"pvc-1"},
		{"key":"csi-cluster","value":"test"},{"key":"csi-backups-on-delete","value":"keep"}]}}`, nil)
	r.deleteVolume(t, volume)
	if left, _ := r.listSnapshots(t, &csi.ListSnapshotsRequest{SourceVolumeId: volume}); !slices.Equal(left, []string{snapshot}) {
		t.Errorf("left are %v, want %s", left, snapshot)
	}
}
