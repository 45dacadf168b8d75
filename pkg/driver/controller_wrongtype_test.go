package driver_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// usesOfVolumes are the RPCs that take the ID of a volume, usesOfSnapshots those that take the ID of a snapshot, each with
// the answer for the UUID of a storage of another type.
var usesOfVolumes = map[string]use{
	"DeleteVolume": {codes.InvalidArgument, func(t *testing.T, r *rig, id, _ string) error {
		_, err := r.controller.DeleteVolume(callContext(t), &csi.DeleteVolumeRequest{VolumeId: id})
		return err
	}},
	"ControllerPublishVolume": {codes.NotFound, func(t *testing.T, r *rig, id, server string) error {
		_, err := r.publish(t, id, server)
		return err
	}},
	// It is not published there: that must not keep a VolumeAttachment from being deleted.
	"ControllerUnpublishVolume":            {codes.OK, func(t *testing.T, r *rig, id, server string) error { return r.unpublish(t, id, server) }},
	"ControllerUnpublishVolume everywhere": {codes.OK, func(t *testing.T, r *rig, id, _ string) error { return r.unpublish(t, id, "") }},
	"ControllerExpandVolume": {codes.NotFound, func(t *testing.T, r *rig, id, _ string) error {
		_, err := r.expand(t, id, 100*gib, 0)
		return err
	}},
	"ControllerModifyVolume": {codes.NotFound, func(t *testing.T, r *rig, id, _ string) error {
		return r.modify(t, id, map[string]string{"labels": "team=storage"})
	}},
	"ControllerGetVolume": {codes.NotFound, func(t *testing.T, r *rig, id, _ string) error {
		_, err := r.controller.ControllerGetVolume(callContext(t), &csi.ControllerGetVolumeRequest{VolumeId: id})
		return err
	}},
	"ValidateVolumeCapabilities": {codes.NotFound, func(t *testing.T, r *rig, id, _ string) error {
		_, err := r.controller.ValidateVolumeCapabilities(callContext(t), &csi.ValidateVolumeCapabilitiesRequest{
			VolumeId: id, VolumeCapabilities: []*csi.VolumeCapability{writer()},
		})
		return err
	}},
	"CreateSnapshot": {codes.NotFound, func(t *testing.T, r *rig, id, _ string) error {
		_, err := r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{Name: "s-" + id, SourceVolumeId: id})
		return err
	}},
	"CreateVolume from a volume": {codes.NotFound, func(t *testing.T, r *rig, id, _ string) error {
		_, err := r.controller.CreateVolume(callContext(t), copyRequest("v-"+id, 100, fromVolume(id)))
		return err
	}},
}

var usesOfSnapshots = map[string]use{
	"DeleteSnapshot": {codes.InvalidArgument, func(t *testing.T, r *rig, id, _ string) error {
		_, err := r.controller.DeleteSnapshot(callContext(t), &csi.DeleteSnapshotRequest{SnapshotId: id})
		return err
	}},
	"GetSnapshot": {codes.NotFound, func(t *testing.T, r *rig, id, _ string) error {
		_, err := r.controller.GetSnapshot(callContext(t), &csi.GetSnapshotRequest{SnapshotId: id})
		return err
	}},
	"CreateVolume from a snapshot": {codes.NotFound, func(t *testing.T, r *rig, id, _ string) error {
		_, err := r.controller.CreateVolume(callContext(t), copyRequest("s-"+id, 100, fromSnapshot(id)))
		return err
	}},
	"ListSnapshots by ID": {codes.OK, func(t *testing.T, r *rig, id, _ string) error {
		return r.wantNoSnapshots(t, &csi.ListSnapshotsRequest{SnapshotId: id})
	}},
	"ListSnapshots by source": {codes.OK, func(t *testing.T, r *rig, id, _ string) error {
		return r.wantNoSnapshots(t, &csi.ListSnapshotsRequest{SourceVolumeId: id})
	}},
}

type use struct {
	refusal codes.Code
	do      func(t *testing.T, r *rig, id, server string) error
}

func (r *rig) wantNoSnapshots(t *testing.T, req *csi.ListSnapshotsRequest) error {
	t.Helper()
	resp, err := r.controller.ListSnapshots(callContext(t), req)
	if len(resp.GetEntries()) > 0 {
		t.Errorf("listed are %v", resp.GetEntries())
	}
	return err
}

// account is everything that a call about the wrong storage could take or change.
func (r *rig) account(t *testing.T, server string) string {
	t.Helper()
	var found struct {
		Storages struct{ Storage []storage }
		Server   struct {
			Devices any `json:"storage_devices"`
		}
	}
	r.sim.Do(t, "GET", "/storage/private", "", &found)
	r.sim.Do(t, "GET", "/server/"+server, "", &found)
	return fmt.Sprintf("%+v\n%v", found.Storages.Storage, found.Server.Devices)
}

const (
	publicTemplate = "01000000-0000-4000-8000-000030240200"
	publicCDROM    = "01000000-0000-4000-8000-000030220101"
)

func TestUUIDOfAnotherTypeIsRefusedByEveryRPC(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	r.sim.Do(t, "POST", "/server/"+server+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
	r.sim.Do(t, "POST", "/server/"+server+"/storage/attach",
		`{"storage_device":{"type":"cdrom","storage":"`+publicCDROM+`"}}`, nil)
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	unsnapped := r.create(t, createRequest("pvc-2")).GetVolumeId()
	var made struct{ Storage storage }
	r.sim.Do(t, "POST", "/storage/"+volume+"/backup", `{"storage":{"title":"before the upgrade"}}`, &made)
	backup := made.Storage.UUID
	r.sim.Do(t, "POST", "/storage/"+volume+"/templatize", `{"storage":{"title":"golden image"}}`, &made)
	template := made.Storage.UUID

	all := maps.Clone(usesOfVolumes)
	maps.Copy(all, usesOfSnapshots)
	for what, test := range map[string]struct {
		id   string
		uses map[string]use
		gone bool // the ID names no storage: who wants to delete it has it so
	}{
		"backup given as a volume":   {id: backup, uses: usesOfVolumes},
		"volume given as a snapshot": {id: unsnapped, uses: usesOfSnapshots},
		"template":                   {id: template, uses: all},
		"public template":            {id: publicTemplate, uses: all},
		"CD-ROM in the server":       {id: publicCDROM, uses: all},
		"server":                     {id: server, uses: all, gone: true},
		"text that is not a UUID":    {id: "pvc-1", uses: all, gone: true},
		"UUID and a query":           {id: backup + "?backups=delete", uses: all, gone: true},
	} {
		t.Run(what, func(t *testing.T) {
			before := r.account(t, server)
			for rpc, use := range test.uses {
				want := use.refusal
				if test.gone && want == codes.InvalidArgument {
					want = codes.OK
				}
				if err := use.do(t, r, test.id, server); status.Code(err) != want {
					t.Errorf("%s: %v, want %s", rpc, err, want)
				}
			}
			if after := r.account(t, server); after != before {
				t.Errorf("the account was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// The system disk of a server is a disk like any volume. It stays where it is.
func TestSystemDiskOfAServerIsNeitherDeletedNorTakenAway(t *testing.T) {
	r := newController(t, simulator.Config{})
	server, other := r.sim.CreateServer(t, "worker-1", zone), r.sim.CreateServer(t, "worker-2", zone)
	disk := r.storagesNamed(t, "worker-1 system")[0].UUID
	before := r.account(t, server)
	for range 2 { // the first time this process knows nothing about the disk
		_, err := r.controller.DeleteVolume(callContext(t), &csi.DeleteVolumeRequest{VolumeId: disk})
		wantCode(t, err, codes.FailedPrecondition)
	}
	_, err := r.publish(t, disk, other)
	wantCode(t, err, codes.FailedPrecondition)
	if after := r.account(t, server); after != before {
		t.Errorf("the account was\n%s\nand is\n%s", before, after)
	}
}

// A disk that is marked as the one to boot from is never detached.
func TestBootDiskIsNotUnpublished(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	disk := r.create(t, createRequest("pvc-1")).GetVolumeId()
	r.sim.Do(t, "POST", "/server/"+server+"/storage/attach",
		`{"storage_device":{"type":"disk","address":"virtio","storage":"`+disk+`","boot_disk":"1"}}`, nil)
	before := r.account(t, server)
	wantCode(t, r.unpublish(t, disk, server), codes.FailedPrecondition)
	wantCode(t, r.unpublish(t, disk, ""), codes.FailedPrecondition)
	if after := r.account(t, server); after != before {
		t.Errorf("the account was\n%s\nand is\n%s", before, after)
	}
}

// A scheduled backup that Kubernetes names by its ID is a snapshot like any other.
func TestScheduledBackupIsASnapshot(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	var made struct{ Storage storage }
	r.sim.Do(t, "POST", "/storage/"+volume+"/backup", `{"storage":{"title":"Scheduled backup"}}`, &made)
	for rpc, use := range usesOfSnapshots {
		if rpc == "DeleteSnapshot" || rpc == "ListSnapshots by ID" || rpc == "ListSnapshots by source" {
			continue
		}
		if err := use.do(t, r, made.Storage.UUID, ""); err != nil {
			t.Errorf("%s: %v", rpc, err)
		}
	}
	if err := usesOfSnapshots["DeleteSnapshot"].do(t, r, made.Storage.UUID, ""); err != nil {
		t.Error(err)
	}
	if left := r.storagesNamed(t, "Scheduled backup"); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

// A process that never saw a volume looks at it once; what it made, published or listed needs no look.
func TestDeletionLooksOnlyAtVolumesNotSeenBefore(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	made := func(name string) string { return r.create(t, createRequest(name)).GetVolumeId() }
	for what, test := range map[string]struct {
		seen  func(r *rig, volume string)
		looks int
	}{
		"never seen": {func(*rig, string) {}, 1},
		"listed": {func(r *rig, _ string) {
			if _, err := r.controller.ListVolumes(callContext(t), &csi.ListVolumesRequest{}); err != nil {
				t.Fatal(err)
			}
		}, 0},
		"published and unpublished": {func(r *rig, volume string) {
			if _, err := r.publish(t, volume, server); err != nil {
				t.Fatal(err)
			}
			if err := r.unpublish(t, volume, server); err != nil {
				t.Fatal(err)
			}
		}, 0},
		"unpublished": {func(r *rig, volume string) {
			r.sim.Do(t, "POST", "/server/"+server+"/storage/attach",
				`{"storage_device":{"type":"disk","address":"virtio","storage":"`+volume+`"}}`, nil)
			if err := r.unpublish(t, volume, server); err != nil {
				t.Fatal(err)
			}
		}, 0},
	} {
		t.Run(what, func(t *testing.T) {
			volume := made(what)
			fresh := serve(t, r.sim, driver.Config{Mode: driver.ModeController, Cloud: newCloud(t, r.sim)})
			test.seen(fresh, volume)
			r.sim.ResetRequests()
			fresh.deleteVolume(t, volume)
			requests := r.sim.Requests()
			if looks := requests.Of("GET /storage/{uuid}"); looks != test.looks || requests.Of("DELETE /storage/{uuid}") != 1 {
				t.Errorf("%d looks, want %d: %v", looks, test.looks, requests)
			}
		})
	}
}
