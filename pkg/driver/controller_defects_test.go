package driver_test

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// A look that fails must not read as a volume of size 0 or as none at all: the first would be a final error for a fault
// that passes, the second another disk.
func TestALookThatFailsIsNeitherFinalNorNothing(t *testing.T) {
	for _, operation := range []string{"GET /storage", "GET /storage/{uuid}", "GET /storage/normal"} {
		t.Run(operation, func(t *testing.T) {
			r := newController(t, simulator.Config{})
			source := r.create(t, createRequest("source")).GetVolumeId()
			req := copyRequest("new", 2, fromVolume(source))
			remove := r.sim.Inject(simulator.Fault{Operation: operation, Status: 500})
			_, err := r.controller.CreateVolume(callContext(t), req)
			remove()
			wantCode(t, err, codes.Unavailable)
			r.create(t, req)
			if found := r.disks(t); len(found) != 2 {
				t.Errorf("there are %d disks, want the source and its copy", len(found))
			}
		})
	}
}

// While a snapshot is being made, a volume made of it waits; it is not made of half of it.
func TestRestoreWaitsForItsSnapshot(t *testing.T) {
	clock := simulator.NewManualClock()
	r := newController(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	volume := r.create(t, createRequest("original")).GetVolumeId()
	snapshot := r.snapshot(t, "snapshot-1", volume)
	if snapshot.GetReadyToUse() {
		t.Fatal("the snapshot is ready at once: nothing to wait for")
	}
	done := make(chan error, 1)
	go func() {
		_, err := r.controller.CreateVolume(callContext(t), copyRequest("restored", 1, fromSnapshot(snapshot.GetSnapshotId())))
		done <- err
	}()
	if err := advanceUntil(t, clock, done); err != nil {
		t.Error(err)
	}
	if n := r.sim.Requests()["POST /storage/{uuid}/clone"]; n.Requests-n.Failed != 1 {
		t.Errorf("clones: %+v", n)
	}
}

// Snapshots that UpCloud's own driver made have their name as title, and no labels.
func TestASnapshotOfUpCloudsOwnDriverIsTakenOver(t *testing.T) {
	const name = "snapshot-0e5c2f8a-7d1b-4c3e-9a6f-2b4d6e8f0a1c"
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	var made struct{ Storage storage }
	r.sim.Do(t, "POST", "/storage/"+volume+"/backup", `{"storage":{"title":"`+name+`"}}`, &made)
	// Beside it, backups of other titles, made by a rule or by hand.
	for _, title := range []string{"On-demand", "daily", "daily", "daily", "daily", "daily"} {
		r.sim.Do(t, "GET", "/storage/"+volume, "", nil) // the source is online again
		r.sim.Do(t, "POST", "/storage/"+volume+"/backup", `{"storage":{"title":"`+title+`"}}`, nil)
	}
	if got := r.readySnapshot(t, name, volume); got.GetSnapshotId() != made.Storage.UUID {
		t.Errorf("got %v, want the backup %s that is there", got, made.Storage.UUID)
	}
	if n := r.sim.Requests().Of("POST /storage/{uuid}/backup"); n != 7 {
		t.Errorf("another backup was made: %d", n)
	}
	if ids, _ := r.listSnapshots(t, &csi.ListSnapshotsRequest{SourceVolumeId: volume}); len(ids) != 7 {
		t.Errorf("%d snapshots are listed, want all that a volume can be made of", len(ids))
	}
}

// The API refuses what it cannot do for want of credits or room: the volume does not become smaller for it, and no half
// of it stays behind.
func TestACopyThatCannotBeFinishedIsGoneOnWith(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("original")).GetVolumeId()
	req := copyRequest("clone", 5, fromVolume(volume))
	remove := r.sim.Inject(simulator.Fault{Operation: "PUT /storage/{uuid}", Status: 402, Code: "INSUFFICIENT_CREDITS"})
	for range 3 {
		// No final error: Kubernetes would forget a disk that is there.
		_, err := r.controller.CreateVolume(callContext(t), req)
		if status.Code(err) != codes.Unavailable {
			t.Errorf("got %v, want an error after which Kubernetes asks again", err)
		}
	}
	remove()
	made := r.create(t, req)
	if found := r.disks(t); len(found) != 2 || made.GetCapacityBytes() != 5*gib {
		t.Errorf("made %v; there are %+v", made, found)
	}
}
