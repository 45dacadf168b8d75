package driver_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// Names that people choose, as Nomad passes them on: they give the same ones to other things.

const chosenName = "before the upgrade"

func (r *rig) backUp(t *testing.T, volume, title string) string {
	t.Helper()
	var made struct{ Storage storage }
	r.sim.Do(t, "POST", "/storage/"+volume+"/backup", `{"storage":{"title":"`+title+`"}}`, &made)
	r.sim.Do(t, "GET", "/storage/"+volume, "", nil) // the volume is online again
	return made.Storage.UUID
}

func storageExists(t *testing.T, sim *simulatortest.Server, id string) bool {
	t.Helper()
	status, _ := sim.Raw(t, "GET", "/storage/"+id, "")
	return status == 200
}

func TestASnapshotOfAChosenNameLeavesBackupsOfThatTitleAlone(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	byHand := []string{r.backUp(t, volume, chosenName), r.backUp(t, volume, chosenName)}
	snapshot := r.readySnapshot(t, chosenName, volume).GetSnapshotId()
	if slices.Contains(byHand, snapshot) {
		t.Errorf("backup %s was taken over", snapshot)
	}
	if made := r.storage(t, snapshot); made.Title != chosenName || made.labels()["csi-snapshot-name"] != chosenName {
		t.Errorf("the snapshot is titled %q and has labels %v", made.Title, made.labels())
	}
	if again := r.snapshot(t, chosenName, volume).GetSnapshotId(); again != snapshot {
		t.Errorf("the retry got %s, want %s", again, snapshot)
	}
	if _, err := r.controller.DeleteSnapshot(callContext(t), &csi.DeleteSnapshotRequest{SnapshotId: snapshot}); err != nil {
		t.Error(err)
	}
	for _, id := range byHand {
		switch {
		case !storageExists(t, r.sim, id):
			t.Errorf("backup %s is gone", id)
		case len(r.storage(t, id).labels()) > 0:
			t.Errorf("backup %s got labels %v", id, r.storage(t, id).labels())
		}
	}
}

// encrypted makes an encrypted volume and a snapshot of it, which is asked for once.
func encryptedAndSnapshot(t *testing.T, r *rig) (volume, snapshot string) {
	t.Helper()
	req := createRequest("encrypted")
	req.Parameters = map[string]string{"nodeEncryption": "luks2"}
	volume = r.create(t, req).GetVolumeId()
	snapshot = r.snapshot(t, chosenName, volume).GetSnapshotId()
	r.sim.Do(t, "GET", "/storage/"+snapshot, "", nil) // it is online by now
	return volume, snapshot
}

func TestASnapshotThatIsAskedForOnceGetsItsLabelsWhenItIsCopied(t *testing.T) {
	r := newController(t, simulator.Config{})
	_, snapshot := encryptedAndSnapshot(t, r)
	_, err := r.controller.CreateVolume(callContext(t), copyRequest("copy", 1, fromSnapshot(snapshot)))
	wantCode(t, err, codes.InvalidArgument)
	if labels := r.storage(t, snapshot).labels(); labels["csi-snapshot-name"] != chosenName || labels["csi-node-encryption"] != "luks2" {
		t.Errorf("labels are %v", labels)
	}
}

func TestASnapshotThatIsAskedForOnceGetsItsLabelsWhenItIsListed(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume, snapshot := encryptedAndSnapshot(t, r)
	if ids, _ := r.listSnapshots(t, &csi.ListSnapshotsRequest{}); !slices.Equal(ids, []string{snapshot}) {
		t.Errorf("listed are %v, want %s", ids, snapshot)
	}
	made := r.storage(t, snapshot)
	if labels := made.labels(); labels["csi-snapshot-name"] != chosenName || labels["csi-node-encryption"] != "luks2" || made.Title != chosenName {
		t.Errorf("title %q, labels %v", made.Title, made.labels())
	}
	r.sim.ResetRequests()
	r.listSnapshots(t, &csi.ListSnapshotsRequest{})
	if n := r.sim.Requests().Total() - r.sim.Requests().Of("GET /storage/backup"); n != 0 {
		t.Errorf("the next list asks %d times more: %v", n, r.sim.Requests())
	}
	if again := r.snapshot(t, chosenName, volume).GetSnapshotId(); again != snapshot {
		t.Errorf("asked for again, it is %s, want %s", again, snapshot)
	}
}

func (r *rig) detachEverywhere(t *testing.T, volume string) {
	t.Helper()
	if err := r.unpublish(t, volume, ""); err != nil {
		t.Fatal(err)
	}
}

func TestAVolumeInUseIsNoResultOfAnotherRequestOfItsChosenName(t *testing.T) {
	for name, use := range map[string]func(r *rig, volume, server string){
		"attached": func(r *rig, volume, server string) {
			if _, err := r.publish(t, volume, server); err != nil {
				t.Fatal(err)
			}
		},
		"attached before": func(r *rig, volume, server string) {
			if _, err := r.publish(t, volume, server); err != nil {
				t.Fatal(err)
			}
			r.detachEverywhere(t, volume)
		},
		"attached by hand, published and unpublished": func(r *rig, volume, server string) {
			attachByHand(t, r.sim, volume, server)
			if _, err := r.publish(t, volume, server); err != nil {
				t.Fatal(err)
			}
			r.detachEverywhere(t, volume)
		},
		"attached by another program": func(r *rig, volume, server string) {
			r.sim.Do(t, "POST", "/server/"+server+"/storage/attach",
				`{"storage_device":{"type":"disk","address":"virtio","storage":"`+volume+`"}}`, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newController(t, simulator.Config{})
			server := r.sim.CreateServer(t, "worker-1", zone)
			volume := r.create(t, createRequest("data")).GetVolumeId()
			if again := r.create(t, createRequest("data")).GetVolumeId(); again != volume {
				t.Errorf("the retry got %s, want %s", again, volume)
			}
			use(r, volume, server)
			_, err := r.controller.CreateVolume(callContext(t), createRequest("data"))
			wantCode(t, err, codes.AlreadyExists)
			for _, word := range []string{volume, "NAMESPACE-ID", "register"} {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not mention %s: %v", word, err)
				}
			}
		})
	}
}

// A volume that is attached elsewhere may be free a moment after the look: it must not be attached without the label that it is in use.
func TestAVolumeOfAChosenNameIsNotAttachedWithoutItsLabel(t *testing.T) {
	r := newController(t, simulator.Config{})
	server, other := r.sim.CreateServer(t, "worker-1", zone), r.sim.CreateServer(t, "worker-2", zone)
	volume := r.create(t, createRequest("data")).GetVolumeId()
	attachByHand(t, r.sim, volume, other)
	r.sim.ResetRequests()
	_, err := r.publish(t, volume, server)
	wantCode(t, err, codes.FailedPrecondition)
	if err == nil || !strings.Contains(err.Error(), other) {
		t.Errorf("the error does not say where it is attached: %v", err)
	}
	if n := r.sim.Requests().Of("POST /server/{uuid}/storage/attach"); n != 0 {
		t.Errorf("%d attachments were asked for, though the volume has no label yet", n)
	}
	detachByHand(t, r.sim, volume, other)
	if _, err := r.publish(t, volume, server); err != nil {
		t.Fatal(err)
	}
	if labels := r.storage(t, volume).labels(); labels["csi-used"] != "yes" {
		t.Errorf("labels are %v", labels)
	}
}

// Kubernetes may repeat a request very late: another provisioner becomes the leader, and its cache is old.
func TestAVolumeOfAUniqueNameIsFoundAgainThoughItIsInUse(t *testing.T) {
	const name = "pvc-0e5c2f8a-7d1b-4c3e-9a6f-2b4d6e8f0a1c"
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	volume := r.create(t, createRequest(name)).GetVolumeId()
	r.sim.ResetRequests()
	if _, err := r.publish(t, volume, server); err != nil {
		t.Fatal(err)
	}
	if n := r.sim.Requests().Total(); n != 2 {
		t.Errorf("publishing it took %d calls, want 2: %v", n, r.sim.Requests())
	}
	r.sim.ResetRequests()
	if again := r.create(t, createRequest(name)).GetVolumeId(); again != volume {
		t.Errorf("the retry got %s, want %s", again, volume)
	}
	if n := r.sim.Requests().Total(); n != 1 {
		t.Errorf("the retry took %d calls, want 1: %v", n, r.sim.Requests())
	}
	r.detachEverywhere(t, volume)
	if again := r.create(t, createRequest(name)).GetVolumeId(); again != volume {
		t.Errorf("after its use, the retry got %s, want %s", again, volume)
	}
}
