package driver_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func fromSnapshot(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id},
	}}
}

func fromVolume(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id},
	}}
}

func copyRequest(name string, sizeGiB int64, source *csi.VolumeContentSource) *csi.CreateVolumeRequest {
	req := createRequest(name)
	req.CapacityRange.RequiredBytes = sizeGiB * gib
	req.VolumeContentSource = source
	return req
}

// disks lists all disks of the account but those of servers.
func (r *rig) disks(t *testing.T) (found []storage) {
	t.Helper()
	var answer struct{ Storages struct{ Storage []storage } }
	r.sim.Do(t, "GET", "/storage/normal", "", &answer)
	for _, s := range answer.Storages.Storage {
		if !strings.HasSuffix(s.Title, " system") {
			found = append(found, s)
		}
	}
	return found
}

func TestRestoreAndCloneAlsoToALargerSize(t *testing.T) {
	r := newController(t, simulator.Config{Profile: simulator.Fast})
	volume := r.create(t, createRequest("original")).GetVolumeId()
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	for name, req := range map[string]*csi.CreateVolumeRequest{
		"restored":        copyRequest("restored", 1, fromSnapshot(snapshot)),
		"restored larger": copyRequest("restored larger", 3, fromSnapshot(snapshot)),
		"clone":           copyRequest("clone", 1, fromVolume(volume)),
		"clone larger":    copyRequest("clone larger", 2, fromVolume(volume)),
		"no size":         copyRequest("no size", 0, fromSnapshot(snapshot)),
	} {
		made := r.create(t, req)
		want := max(req.GetCapacityRange().GetRequiredBytes(), gib)
		shown := r.storage(t, made.GetVolumeId())
		if made.GetCapacityBytes() != want || int64(shown.Size)*gib != want {
			t.Errorf("%s: %d bytes told, %d GiB made, want %d bytes", name, made.GetCapacityBytes(), shown.Size, want)
		}
		if made.GetContentSource() == nil || shown.Title != name || shown.labels()["csi-name"] != name {
			t.Errorf("%s: told %v, made %+v", name, made, shown)
		}
		if again := r.create(t, req); again.GetVolumeId() != made.GetVolumeId() {
			t.Errorf("%s: the retry made another", name)
		}
	}
	if n := len(r.disks(t)); n != 6 {
		t.Errorf("there are %d disks, want 6", n)
	}
}

// A disk that is a copy is never formatted: the node has to be told.
func TestPublishOfACopyTellsItsSource(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	volume := r.create(t, createRequest("original")).GetVolumeId()
	clone := r.create(t, copyRequest("clone", 1, fromVolume(volume))).GetVolumeId()
	published, err := r.publish(t, clone, server)
	if err != nil || published["origin"] != volume {
		t.Errorf("published with %v, %v", published, err)
	}
}

func TestCopySizesFollowTheirSource(t *testing.T) {
	r := newController(t, simulator.Config{})
	req := createRequest("original")
	req.CapacityRange.RequiredBytes = 10 * gib
	volume := r.create(t, req).GetVolumeId()
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()

	req = copyRequest("limited", 5, fromSnapshot(snapshot))
	req.CapacityRange.LimitBytes = 6 * gib
	_, err := r.controller.CreateVolume(callContext(t), req)
	wantCode(t, err, codes.OutOfRange)
	made := r.create(t, copyRequest("no limit", 5, fromSnapshot(snapshot)))
	if made.GetCapacityBytes() != 10*gib || r.storage(t, made.GetVolumeId()).Size != 10 {
		t.Errorf("without a limit: %v", made)
	}
}

func TestCopiesAreRefusedThatAreNotThoseAskedFor(t *testing.T) {
	r := newController(t, simulator.Config{})
	a, b := r.create(t, createRequest("a")).GetVolumeId(), r.create(t, createRequest("b")).GetVolumeId()
	snapshot := r.readySnapshot(t, "snapshot-1", a).GetSnapshotId()
	r.create(t, copyRequest("clone", 1, fromVolume(a)))
	for what, req := range map[string]*csi.CreateVolumeRequest{
		"another source": copyRequest("clone", 1, fromVolume(b)),
		"a snapshot":     copyRequest("clone", 1, fromSnapshot(snapshot)),
		"larger":         copyRequest("clone", 2, fromVolume(a)),
		"empty":          createRequest("clone"),
		"a copy":         copyRequest("b", 1, fromVolume(a)),
	} {
		_, err := r.controller.CreateVolume(callContext(t), req)
		if status.Code(err) != codes.AlreadyExists {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, source := range map[string]*csi.VolumeContentSource{
		"a volume as a snapshot": fromSnapshot(a), "a snapshot as a volume": fromVolume(snapshot),
		"no such snapshot": fromSnapshot("none"), "no such volume": fromVolume("01000000-0000-4000-8000-000000000000"),
	} {
		_, err := r.controller.CreateVolume(callContext(t), copyRequest("new", 1, source))
		if status.Code(err) != codes.NotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestACopyOutlivesItsSource(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("original")).GetVolumeId()
	req := copyRequest("clone", 2, fromVolume(volume))
	clone := r.create(t, req)
	if _, err := r.controller.DeleteVolume(callContext(t), &csi.DeleteVolumeRequest{VolumeId: volume}); err != nil {
		t.Fatal(err)
	}
	if again := r.create(t, req); again.GetVolumeId() != clone.GetVolumeId() || again.GetCapacityBytes() != 2*gib {
		t.Errorf("the retry got %v", again)
	}
	req.CapacityRange.RequiredBytes = 3 * gib
	_, err := r.controller.CreateVolume(callContext(t), req)
	wantCode(t, err, codes.AlreadyExists)
}

func TestCloneOfAVolumeInUseIsRefusedWithTheRemedy(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	volume := r.create(t, createRequest("original")).GetVolumeId()
	if _, err := r.publish(t, volume, server); err != nil {
		t.Fatal(err)
	}
	_, err := r.controller.CreateVolume(callContext(t), copyRequest("clone", 1, fromVolume(volume)))
	wantCode(t, err, codes.FailedPrecondition)
	if !strings.Contains(status.Convert(err).Message(), "make a snapshot") {
		t.Errorf("the remedy is not told: %v", err)
	}
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	r.create(t, copyRequest("clone", 1, fromSnapshot(snapshot)))
}

// A deadline that ends during the copy must not strand a small copy that nobody finishes or deletes.
func TestDeadlineDuringTheCopyIsGoneOnFromByAFreshProcess(t *testing.T) {
	clock := simulator.NewManualClock()
	r := newController(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	volume := r.create(t, createRequest("original")).GetVolumeId()
	req := copyRequest("clone", 20, fromVolume(volume))
	copying := func() bool { return r.sim.Requests().Of("POST /storage/{uuid}/clone") > 0 }
	err := leaveWhen(t, "the copy has begun", copying, func(ctx context.Context) error {
		_, err := r.controller.CreateVolume(ctx, req)
		return err
	})
	wantCode(t, err, codes.Canceled)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	fresh := serve(t, r.sim, driver.Config{Mode: driver.ModeController, Cloud: newCloud(t, r.sim)})
	clock.Advance(time.Hour)
	made := fresh.create(t, req)
	shown := r.storage(t, made.GetVolumeId())
	if shown.Size != 20 || shown.Title != "clone" || made.GetCapacityBytes() != 20*gib {
		t.Errorf("told %v, made %+v", made, shown)
	}
	if found := r.disks(t); len(found) != 2 {
		t.Errorf("there are %d disks, want the original and its clone: %+v", len(found), found)
	}
}

func TestTwentyIdenticalClonesAreOne(t *testing.T) {
	r := newController(t, simulator.Config{Profile: simulator.Fast})
	volume := r.create(t, createRequest("original")).GetVolumeId()
	outcome := make(chan error)
	for range 20 {
		go func() {
			_, err := r.controller.CreateVolume(callContext(t), copyRequest("clone", 2, fromVolume(volume)))
			outcome <- err
		}()
	}
	for range 20 {
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	}
	if n := len(r.disks(t)); n != 2 {
		t.Errorf("there are %d disks, want 2", n)
	}
}

// A disk of somebody's that has the volume's name as its title is not taken for it, and not touched.
func TestAForeignDiskOfTheSameTitleIsLeftAlone(t *testing.T) {
	r := newController(t, simulator.Config{})
	r.sim.Do(t, "POST", "/storage", `{"storage":{"size":"5","tier":"maxiops","title":"clone","zone":"fi-hel1"}}`, nil)
	volume := r.create(t, createRequest("original")).GetVolumeId()
	r.create(t, copyRequest("clone", 1, fromVolume(volume)))
	if found := r.storagesNamed(t, "clone"); len(found) != 2 {
		t.Errorf("disks called clone: %+v", found)
	}
}
