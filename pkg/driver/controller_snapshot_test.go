package driver_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func (r *rig) snapshot(t *testing.T, name, volume string) *csi.Snapshot {
	t.Helper()
	resp, err := r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetSnapshot()
}

// readySnapshot asks again until the snapshot can be used, as external-snapshotter does.
func (r *rig) readySnapshot(t *testing.T, name, volume string) *csi.Snapshot {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		snapshot := r.snapshot(t, name, volume)
		if snapshot.GetReadyToUse() {
			return snapshot
		}
		if time.Now().After(deadline) {
			t.Fatalf("snapshot %s is not ready after a minute", name)
		}
	}
}

func (r *rig) listSnapshots(t *testing.T, req *csi.ListSnapshotsRequest) (ids []string, next string) {
	t.Helper()
	resp, err := r.controller.ListSnapshots(callContext(t), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range resp.GetEntries() {
		ids = append(ids, entry.GetSnapshot().GetSnapshotId())
	}
	return ids, resp.GetNextToken()
}

func TestSnapshotIsReadyOnlyWhenOnline(t *testing.T) {
	clock := simulator.NewManualClock()
	r := newController(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	r.sim.ResetRequests()
	begun := r.snapshot(t, "snapshot-1", volume)
	if begun.GetReadyToUse() || begun.GetSourceVolumeId() != volume || begun.GetSizeBytes() != gib || begun.GetCreationTime() == nil {
		t.Errorf("the answer at once is %v", begun)
	}
	if n := r.sim.Requests().Total(); n != 3 {
		t.Errorf("it took %d calls, want 3: %v", n, r.sim.Requests())
	}
	r.sim.ResetRequests()
	if again := r.snapshot(t, "snapshot-1", volume); again.GetReadyToUse() || again.GetSnapshotId() != begun.GetSnapshotId() {
		t.Errorf("the retry got %v", again)
	}
	if n := r.sim.Requests().Total(); n != 1 {
		t.Errorf("the retry took %d calls, want 1: %v", n, r.sim.Requests())
	}

	clock.Advance(time.Hour)
	ready := r.snapshot(t, "snapshot-1", volume)
	if !ready.GetReadyToUse() || ready.GetSnapshotId() != begun.GetSnapshotId() {
		t.Errorf("when it is online the answer is %v", ready)
	}
	labels := r.storage(t, ready.GetSnapshotId()).labels()
	if labels["csi-snapshot-name"] != "snapshot-1" || labels["csi-cluster"] != "test" {
		t.Errorf("labels are %v", labels)
	}
	got, err := r.controller.GetSnapshot(callContext(t), &csi.GetSnapshotRequest{SnapshotId: ready.GetSnapshotId()})
	if err != nil || !got.GetSnapshot().GetReadyToUse() {
		t.Errorf("reading it: %v, %v", got, err)
	}
}

func TestSnapshotOfAnAttachedVolumeOutlivesIt(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := r.publish(t, volume, server); err != nil {
		t.Fatal(err)
	}
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	if err := r.unpublish(t, volume, server); err != nil {
		t.Fatal(err)
	}
	if _, err := r.controller.DeleteVolume(callContext(t), &csi.DeleteVolumeRequest{VolumeId: volume}); err != nil {
		t.Fatal(err)
	}
	// The retry of a snapshot that was made does not need its volume.
	if again := r.snapshot(t, "snapshot-1", volume); again.GetSnapshotId() != snapshot || !again.GetReadyToUse() {
		t.Errorf("after its volume is gone, the snapshot is %v", again)
	}
	if ids, _ := r.listSnapshots(t, &csi.ListSnapshotsRequest{SourceVolumeId: volume}); len(ids) != 1 || ids[0] != snapshot {
		t.Errorf("snapshots of the volume that is gone: %v", ids)
	}
}

func TestSnapshotNameStandsForOneVolume(t *testing.T) {
	r := newController(t, simulator.Config{})
	a, b := r.create(t, createRequest("a")).GetVolumeId(), r.create(t, createRequest("b")).GetVolumeId()
	r.snapshot(t, "snapshot-1", a)
	for _, what := range []string{"begun", "named"} {
		_, err := r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{Name: "snapshot-1", SourceVolumeId: b})
		if wantCode(t, err, codes.AlreadyExists); t.Failed() {
			t.Fatalf("when the first is %s", what)
		}
		r.readySnapshot(t, "snapshot-1", a)
	}
	_, err := r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: "not-a-volume"})
	wantCode(t, err, codes.NotFound)
	_, err = r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: "01000000-0000-4000-8000-000000000000"})
	wantCode(t, err, codes.NotFound)
	_, err = r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{
		Name: "s", SourceVolumeId: a, Parameters: map[string]string{"fast": "yes"},
	})
	wantCode(t, err, codes.InvalidArgument)
}

func TestTwentyIdenticalSnapshotsAreOne(t *testing.T) {
	r := newController(t, simulator.Config{Profile: simulator.Fast})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	outcome := make(chan string)
	for range 20 {
		go func() {
			resp, err := r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: volume})
			if err != nil {
				outcome <- err.Error()
				return
			}
			outcome <- resp.GetSnapshot().GetSnapshotId()
		}()
	}
	first := <-outcome
	for range 19 {
		if got := <-outcome; got != first {
			t.Errorf("callers got %s and %s", first, got)
		}
	}
	if n := r.sim.Requests().Of("POST /storage/{uuid}/backup"); n != 1 {
		t.Errorf("%d backups were made", n)
	}
}

// An error of the API must not read as "gone": the backup would stay for ever, and be billed.
func TestDeleteSnapshotTakesNoErrorForGone(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	for _, operation := range []string{"GET /storage/{uuid}", "DELETE /storage/{uuid}"} {
		for _, fault := range []simulator.Fault{{Drop: true}, {Status: 503}, {Status: 403}} {
			fault.Operation = operation
			remove := r.sim.Inject(fault)
			_, err := r.controller.DeleteSnapshot(callContext(t), &csi.DeleteSnapshotRequest{SnapshotId: snapshot})
			remove()
			if err == nil {
				t.Fatalf("%+v: the snapshot counts as deleted", fault)
			}
		}
	}
	for range 2 { // the second time it is gone
		if _, err := r.controller.DeleteSnapshot(callContext(t), &csi.DeleteSnapshotRequest{SnapshotId: snapshot}); err != nil {
			t.Error(err)
		}
	}
	if status, _ := r.sim.Raw(t, "GET", "/storage/"+snapshot, ""); status != 404 {
		t.Errorf("the backup answers %d", status)
	}
}

func TestOnlyBackupsAreSnapshots(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	_, err := r.controller.DeleteSnapshot(callContext(t), &csi.DeleteSnapshotRequest{SnapshotId: volume})
	wantCode(t, err, codes.InvalidArgument)
	if r.storage(t, volume).UUID != volume {
		t.Error("deleting a snapshot took a volume with it")
	}
	if ids, _ := r.listSnapshots(t, &csi.ListSnapshotsRequest{SnapshotId: volume}); len(ids) != 0 {
		t.Errorf("a volume is listed as a snapshot: %v", ids)
	}
	_, err = r.controller.GetSnapshot(callContext(t), &csi.GetSnapshotRequest{SnapshotId: volume})
	wantCode(t, err, codes.NotFound)
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	_, err = r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{Name: "of a backup", SourceVolumeId: snapshot})
	wantCode(t, err, codes.NotFound)
}

func TestSnapshotPagesStayRightWhileSnapshotsComeAndGo(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	stays := map[string]int{}
	for i := range 9 {
		stays[r.readySnapshot(t, fmt.Sprint("stays-", i), volume).GetSnapshotId()] = 0
	}
	token := ""
	for page := 0; ; page++ {
		ids, next := r.listSnapshots(t, &csi.ListSnapshotsRequest{MaxEntries: 2, StartingToken: token})
		for _, id := range ids {
			if _, counted := stays[id]; counted {
				stays[id]++
			}
		}
		if token = next; token == "" {
			break
		}
		// What the token names may go, and others come.
		r.readySnapshot(t, fmt.Sprint("comes-", page), volume)
		if _, counted := stays[ids[len(ids)-1]]; !counted || page == 1 {
			last := ids[len(ids)-1]
			if _, err := r.controller.DeleteSnapshot(callContext(t), &csi.DeleteSnapshotRequest{SnapshotId: last}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for id, seen := range stays {
		if seen != 1 {
			t.Errorf("snapshot %s was listed %d times", id, seen)
		}
	}
	for _, token := range []string{"0", "-1", "nonsense", "YWZ0ZXI6"} {
		_, err := r.controller.ListSnapshots(callContext(t), &csi.ListSnapshotsRequest{StartingToken: token})
		wantCode(t, err, codes.Aborted)
	}
	_, err := r.controller.ListSnapshots(callContext(t), &csi.ListSnapshotsRequest{MaxEntries: -1})
	wantCode(t, err, codes.InvalidArgument)
}

func TestSnapshotOfABusyVolumeWaits(t *testing.T) {
	clock := simulator.NewManualClock()
	r := newController(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	r.snapshot(t, "first", volume)
	done := make(chan error, 1)
	go func() {
		_, err := r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{Name: "second", SourceVolumeId: volume})
		done <- err
	}()
	if err := advanceUntil(t, clock, done); err != nil {
		t.Error(err)
	}
	if n := r.sim.Requests()["POST /storage/{uuid}/backup"]; n.Requests-n.Failed != 2 {
		t.Errorf("backups: %+v", n)
	}
}

// Backups that the API makes by itself when it resizes a filesystem are no snapshots of anybody's.
func TestResizeBackupsAreNoSnapshots(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	r.sim.Do(t, "POST", "/storage/"+volume+"/backup", `{"storage":{"title":"Resize Backup"}}`, nil)
	if ids, _ := r.listSnapshots(t, &csi.ListSnapshotsRequest{}); len(ids) != 0 {
		t.Errorf("listed: %v", ids)
	}
}

func TestSnapshotsOfAnotherClusterAreNotListed(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	other := serve(t, r.sim, driver.Config{Mode: driver.ModeController, Cloud: newCloudOf(t, r.sim, "other")})
	if ids, _ := other.listSnapshots(t, &csi.ListSnapshotsRequest{}); len(ids) != 0 {
		t.Errorf("another cluster lists %v, which is %s", ids, snapshot)
	}
}
