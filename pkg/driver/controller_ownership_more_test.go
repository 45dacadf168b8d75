package driver_test

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// A PersistentVolume that names the system disk of the node that its Pod runs on was published, and then detached.
func TestSystemDiskOfTheNodeIsRefusedByEveryRPC(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone) // whose system disk the API does not mark
	r := newOwner(t, sim, nil)
	disk := r.storagesNamed(t, "worker-1 system")[0].UUID
	before := r.account(t, server)
	for name, column := range usesOfOrigins(nothing) {
		if err := column.use.do(t, r, disk, server); status.Code(err) != column.use.refusal {
			t.Errorf("%s: %v, want %s", name, err, column.use.refusal)
		}
	}
	err := r.unpublish(t, disk, server)
	wantCode(t, err, codes.FailedPrecondition)
	if err != nil && !strings.Contains(err.Error(), "boots from") {
		t.Errorf("the error does not say that it is the system disk: %v", err)
	}
	wantCode(t, r.unpublish(t, disk, ""), codes.FailedPrecondition)
	if after := r.account(t, server); after != before {
		t.Errorf("the account was\n%s\nand is\n%s", before, after)
	}
}

// A data disk that a person attached to a node is in use there. Nothing that a PersistentVolume says makes it a volume.
func TestDiskAttachedByHandIsNotPublished(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server, other := sim.CreateServer(t, "worker-1", zone), sim.CreateServer(t, "web", zone)
	r := newOwner(t, sim, nil)
	disk := makeStorage(t, sim, "data", nil)
	attachByHand(t, sim, disk, server)
	for _, node := range []string{server, other} {
		_, err := r.publish(t, disk, node)
		wantCode(t, err, codes.FailedPrecondition)
	}
	sim.Do(t, "PUT", "/storage/"+disk, `{"storage":{"labels":[{"key":"csi-import","value":"`+ownUID+`"}]}}`, nil)
	if _, err := r.publish(t, disk, server); err != nil {
		t.Errorf("labelled for import: %v", err)
	}
}

// csi-attacher asks to unpublish also what it was refused to publish. Only what it has recorded as attached was this driver's, and
// is detached: an earlier version, or UpCloud's own driver, attached it and left no label.
func TestDiskAttachedByHandIsDetachedOnlyWhereKubernetesAttachedIt(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone)
	recorded, failing := map[string]bool{}, true
	r := newOwner(t, sim, func(c *cloud.Config) {
		c.AttachedBefore = func(_ context.Context, volume string) (bool, error) {
			if failing {
				return false, errors.New("the API server does not answer")
			}
			return recorded[volume], nil
		}
	})
	disk := makeStorage(t, sim, "data", nil)
	attachByHand(t, sim, disk, server)
	wantCode(t, r.unpublish(t, disk, server), codes.Unavailable)
	failing = false
	wantCode(t, r.unpublish(t, disk, server), codes.FailedPrecondition)
	_, err := r.publish(t, disk, server)
	wantCode(t, err, codes.FailedPrecondition)
	if servers := r.storage(t, disk).Servers.Server; len(servers) != 1 {
		t.Fatalf("it is attached to %v", servers)
	}
	recorded[disk] = true
	if _, err := r.publish(t, disk, server); err != nil {
		t.Errorf("a publication that is repeated after an upgrade: %v", err)
	}
	if err := r.unpublish(t, disk, server); err != nil {
		t.Error(err)
	}
	if servers := r.storage(t, disk).Servers.Server; len(servers) != 0 {
		t.Errorf("it is attached to %v", servers)
	}
}

// A retry finds a disk made by hand attached, as the first try had it attached: its label tells that.
func TestStaticVolumeIsPublishedAgainByItsLabel(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone)
	r := newOwner(t, sim, nil)
	disk := makeStorage(t, sim, "data", nil)
	for range 2 {
		if _, err := r.publish(t, disk, server); err != nil {
			t.Fatal(err)
		}
	}
	if label := r.storage(t, disk).labels()[cloud.LabelAttachedBy]; label != ownUID {
		t.Errorf("%s is %q", cloud.LabelAttachedBy, label)
	}
	// Another cluster does not detach what this one attached.
	stranger := newCloudOf(t, sim, "other")
	if err := stranger.SetClusterUID(otherUID); err != nil {
		t.Fatal(err)
	}
	theirs := serve(t, sim, driver.Config{Mode: driver.ModeController, Cloud: stranger})
	wantCode(t, theirs.unpublish(t, disk, server), codes.FailedPrecondition)
	if err := r.unpublish(t, disk, server); err != nil {
		t.Error(err)
	}
}

// A volume of another cluster that is attached to the node stays attached; its own cluster, and the one that handed it over, detach it.
func TestVolumeOfAnotherClusterIsNotDetached(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone)
	r := newOwner(t, sim, nil)
	theirs := makeStorage(t, sim, "", map[string]string{"csi-name": "a", "csi-cluster-uid": otherUID})
	handedOver := makeStorage(t, sim, "", map[string]string{"csi-name": "a", "csi-cluster-uid": ownUID, "csi-import": otherUID})
	attachByHand(t, sim, theirs, server)
	attachByHand(t, sim, handedOver, server)
	for _, node := range []string{server, ""} {
		err := r.unpublish(t, theirs, node)
		wantCode(t, err, codes.FailedPrecondition)
	}
	_, err := r.publish(t, theirs, server)
	wantCode(t, err, codes.FailedPrecondition)
	if servers := r.storage(t, theirs).Servers.Server; len(servers) != 1 {
		t.Errorf("it is attached to %v", servers)
	}
	if err := r.unpublish(t, handedOver, server); err != nil {
		t.Error(err)
	}
}

// Two clusters may have one name, or none. A volume that another cluster made is not the result of a request for its name, nor deleted
// as a second storage of one volume.
func TestVolumeOfAnotherClusterWithTheSameNameIsNotAdopted(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	r := newOwner(t, sim, nil)
	labels := map[string]string{"csi-name": "data", "csi-cluster": "test", "csi-cluster-uid": otherUID}
	theirs := []string{makeStorage(t, sim, "data", labels), makeStorage(t, sim, "data", labels)}
	volume := r.create(t, createRequest("data")).GetVolumeId()
	if again := r.create(t, createRequest("data")).GetVolumeId(); again != volume {
		t.Errorf("the retry returned %s and not %s", again, volume)
	}
	for _, id := range theirs {
		if id == volume || r.storage(t, id).labels()["csi-cluster-uid"] != otherUID {
			t.Errorf("storage %s was adopted or changed: %v", id, r.storage(t, id))
		}
	}
}

// A driver that has not learned its cluster's UID yet cannot tell whose a volume is. It must not say that it is gone or refused.
func TestUnknownUIDLeavesTheAnswerOpen(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone)
	account := newCloudOf(t, sim, "")
	r := serve(t, sim, driver.Config{Mode: driver.ModeController, Cloud: account})
	volume := makeStorage(t, sim, "", map[string]string{"csi-name": "a", "csi-cluster-uid": ownUID})
	before := r.account(t, server)
	for name, column := range usesOfOrigins(nothing) {
		if err := column.use.do(t, r, volume, server); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v, want %s", name, err, codes.Unavailable)
		}
	}
	if after := r.account(t, server); after != before {
		t.Errorf("the account was\n%s\nand is\n%s", before, after)
	}
	if err := account.SetClusterUID(ownUID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.publish(t, volume, server); err != nil {
		t.Error(err)
	}
}

// Whose a backup is decides who may restore and delete it: its labels, its title, or the volume that it is of.
func TestOriginOfABackupDecidesWhatMayBeDoneToIt(t *testing.T) {
	own, others := map[string]string{"csi-name": "a", "csi-cluster-uid": ownUID}, map[string]string{"csi-name": "a", "csi-cluster-uid": otherUID}
	for name, test := range map[string]struct {
		volume          map[string]string
		gone            bool // the volume
		title, labels   string
		restore, delete bool
	}{
		"this cluster": {volume: own, labels: `{"key":"csi-snapshot-name","value":"s"},{"key":"csi-cluster-uid","value":"` + ownUID + `"}`,
			restore: true, delete: true},
		"another cluster": {volume: own, labels: `{"key":"csi-snapshot-name","value":"s"},{"key":"csi-cluster-uid","value":"` + otherUID + `"}`},
		"another cluster, imported": {volume: others, labels: `{"key":"csi-cluster-uid","value":"` + otherUID + `"},{"key":"csi-import","value":"` +
			ownUID + `"}`, restore: true, delete: true},
		"by hand, of a volume of this cluster":       {volume: own, title: "before the upgrade", restore: true, delete: true},
		"by hand, of a volume of another cluster":    {volume: others, title: "before the upgrade"},
		"by hand, of another disk":                   {title: "before the upgrade", restore: true},
		"by hand, of a disk that is gone":            {gone: true, title: "before the upgrade", restore: true},
		"UpCloud's own driver":                       {title: "snapshot-" + ownUID, restore: true, delete: true},
		"UpCloud's own driver, of another's volume":  {volume: others, title: "snapshot-" + ownUID},
		"UpCloud's own driver, of a volume now gone": {gone: true, title: "snapshot-" + ownUID, restore: true, delete: true},
		"begun by another cluster":                   {volume: others, title: "s (CSI snapshot of " + ownUID + " for other)"},
	} {
		t.Run(name, func(t *testing.T) {
			sim := simulatortest.Start(t, simulator.Config{})
			r := newOwner(t, sim, nil)
			volume := makeStorage(t, sim, "data", test.volume)
			var made struct{ Storage storage }
			sim.Do(t, "POST", "/storage/"+volume+"/backup", `{"storage":{"title":"`+cmp.Or(test.title, "s")+`"}}`, &made)
			backup := made.Storage.UUID
			if test.labels != "" {
				sim.Do(t, "PUT", "/storage/"+backup, `{"storage":{"labels":[`+test.labels+`]}}`, nil)
			}
			if test.gone {
				sim.Do(t, "DELETE", "/storage/"+volume+"?backups=keep", "", nil)
			}
			_, err := r.controller.CreateVolume(callContext(t), copyRequest("restored", 100, fromSnapshot(backup)))
			wantRight(t, "restore", err, test.restore)
			_, err = r.controller.DeleteSnapshot(callContext(t), &csi.DeleteSnapshotRequest{SnapshotId: backup})
			wantRight(t, "delete", err, test.delete)
			wantLeft := 0
			if !test.delete {
				wantLeft = 1
			}
			var left struct{ Storages struct{ Storage []storage } }
			sim.Do(t, "GET", "/storage/backup", "", &left)
			if len(left.Storages.Storage) != wantLeft {
				t.Errorf("left are %v", left.Storages.Storage)
			}
		})
	}
}

func wantRight(t *testing.T, what string, err error, allowed bool) {
	t.Helper()
	switch {
	case allowed && err != nil:
		t.Errorf("%s: %v", what, err)
	case !allowed && (status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "csi-import="+ownUID)):
		t.Errorf("%s: %v, want %s and the label that allows it", what, err, codes.FailedPrecondition)
	}
}
