package driver_test

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// fuzz sends whatever bytes decode as a request of its type, and holds the answer against what no request may bring
// about: a panic, INTERNAL or UNKNOWN, or a disk in the account that has no name.
func fuzz[Req proto.Message](f *testing.F, empty func() Req, seeds []Req, call func(*testing.T, *rig, Req) error) {
	for _, seed := range append(seeds, empty()) {
		bytes, err := proto.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes)
	}
	f.Fuzz(func(t *testing.T, bytes []byte) {
		req := empty()
		if proto.Unmarshal(bytes, req) != nil {
			t.Skip("no request of this type")
		}
		r := newController(t, simulator.Config{})
		volume := r.create(t, createRequest("there")).GetVolumeId()
		err := call(t, r, req)
		switch status.Code(err) {
		case codes.Internal, codes.Unknown, codes.DataLoss, codes.Unimplemented:
			t.Errorf("%v\nanswered to %v", err, req)
		}
		if r.storage(t, volume).UUID != volume {
			t.Errorf("a volume is gone after %v", req)
		}
		for _, disk := range r.disks(t) {
			if disk.labels()["csi-name"] == "" {
				t.Errorf("disk %+v has no name, after %v", disk, req)
			}
		}
	})
}

const someID = "01a5568f-4766-4ce7-abf5-7d257892a5c5"

func FuzzCreateVolume(f *testing.F) {
	full := copyRequest("new", 3, fromSnapshot(someID))
	full.Parameters = map[string]string{"tier": "hdd", "encryption": "data-at-rest", "labels": "a=b", "backupInterval": "daily"}
	full.MutableParameters = map[string]string{"backupTime": "0430", "backupRetention": "3", "backupsOnDelete": "keep"}
	full.AccessibilityRequirements = &csi.TopologyRequirement{
		Requisite: []*csi.Topology{{Segments: map[string]string{"region": zone}}}, Preferred: []*csi.Topology{nil, {}},
	}
	fuzz(f, func() *csi.CreateVolumeRequest { return &csi.CreateVolumeRequest{} },
		[]*csi.CreateVolumeRequest{createRequest("new"), copyRequest("new", 1, fromVolume(someID)), full},
		func(t *testing.T, r *rig, req *csi.CreateVolumeRequest) error {
			_, err := r.controller.CreateVolume(callContext(t), req)
			return err
		})
}

func FuzzDeleteVolume(f *testing.F) {
	fuzz(f, func() *csi.DeleteVolumeRequest { return &csi.DeleteVolumeRequest{} },
		[]*csi.DeleteVolumeRequest{{VolumeId: someID}, {VolumeId: "../server"}},
		func(t *testing.T, r *rig, req *csi.DeleteVolumeRequest) error {
			_, err := r.controller.DeleteVolume(callContext(t), req)
			return err
		})
}

func FuzzControllerPublishVolume(f *testing.F) {
	fuzz(f, func() *csi.ControllerPublishVolumeRequest { return &csi.ControllerPublishVolumeRequest{} },
		[]*csi.ControllerPublishVolumeRequest{{VolumeId: someID, NodeId: someID, VolumeCapability: writer(), Readonly: true},
			{VolumeId: someID, NodeId: "worker-1/../..", VolumeCapability: &csi.VolumeCapability{}}},
		func(t *testing.T, r *rig, req *csi.ControllerPublishVolumeRequest) error {
			_, err := r.controller.ControllerPublishVolume(callContext(t), req)
			return err
		})
}

func FuzzControllerUnpublishVolume(f *testing.F) {
	fuzz(f, func() *csi.ControllerUnpublishVolumeRequest { return &csi.ControllerUnpublishVolumeRequest{} },
		[]*csi.ControllerUnpublishVolumeRequest{{VolumeId: someID}, {VolumeId: someID, NodeId: "worker-1"}},
		func(t *testing.T, r *rig, req *csi.ControllerUnpublishVolumeRequest) error {
			_, err := r.controller.ControllerUnpublishVolume(callContext(t), req)
			return err
		})
}

func FuzzValidateVolumeCapabilities(f *testing.F) {
	fuzz(f, func() *csi.ValidateVolumeCapabilitiesRequest { return &csi.ValidateVolumeCapabilitiesRequest{} },
		[]*csi.ValidateVolumeCapabilitiesRequest{{VolumeId: someID, VolumeCapabilities: []*csi.VolumeCapability{writer(), nil}}},
		func(t *testing.T, r *rig, req *csi.ValidateVolumeCapabilitiesRequest) error {
			_, err := r.controller.ValidateVolumeCapabilities(callContext(t), req)
			return err
		})
}

func FuzzListVolumes(f *testing.F) {
	fuzz(f, func() *csi.ListVolumesRequest { return &csi.ListVolumesRequest{} },
		[]*csi.ListVolumesRequest{{MaxEntries: -1, StartingToken: "-1"}, {MaxEntries: 1, StartingToken: "YWZ0ZXI6MDE"}},
		func(t *testing.T, r *rig, req *csi.ListVolumesRequest) error {
			_, err := r.controller.ListVolumes(callContext(t), req)
			return err
		})
}

func FuzzGetCapacity(f *testing.F) {
	fuzz(f, func() *csi.GetCapacityRequest { return &csi.GetCapacityRequest{} },
		[]*csi.GetCapacityRequest{{Parameters: map[string]string{"tier": "hdd"}, AccessibleTopology: &csi.Topology{}}},
		func(t *testing.T, r *rig, req *csi.GetCapacityRequest) error {
			_, err := r.controller.GetCapacity(callContext(t), req)
			return err
		})
}

func FuzzControllerGetVolume(f *testing.F) {
	fuzz(f, func() *csi.ControllerGetVolumeRequest { return &csi.ControllerGetVolumeRequest{} },
		[]*csi.ControllerGetVolumeRequest{{VolumeId: someID}},
		func(t *testing.T, r *rig, req *csi.ControllerGetVolumeRequest) error {
			_, err := r.controller.ControllerGetVolume(callContext(t), req)
			return err
		})
}

func FuzzControllerExpandVolume(f *testing.F) {
	fuzz(f, func() *csi.ControllerExpandVolumeRequest { return &csi.ControllerExpandVolumeRequest{} },
		[]*csi.ControllerExpandVolumeRequest{{VolumeId: someID, CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 62, LimitBytes: 1}},
			{VolumeId: someID, CapacityRange: &csi.CapacityRange{LimitBytes: 1<<63 - 1}}},
		func(t *testing.T, r *rig, req *csi.ControllerExpandVolumeRequest) error {
			_, err := r.controller.ControllerExpandVolume(callContext(t), req)
			return err
		})
}

func FuzzControllerModifyVolume(f *testing.F) {
	fuzz(f, func() *csi.ControllerModifyVolumeRequest { return &csi.ControllerModifyVolumeRequest{} },
		[]*csi.ControllerModifyVolumeRequest{{VolumeId: someID, MutableParameters: map[string]string{
			"labels": "a=b,,c=d", "backupInterval": "mon", "backupTime": "2400", "backupRetention": "-1"}}},
		func(t *testing.T, r *rig, req *csi.ControllerModifyVolumeRequest) error {
			_, err := r.controller.ControllerModifyVolume(callContext(t), req)
			return err
		})
}

func FuzzCreateSnapshot(f *testing.F) {
	fuzz(f, func() *csi.CreateSnapshotRequest { return &csi.CreateSnapshotRequest{} },
		[]*csi.CreateSnapshotRequest{{Name: "new", SourceVolumeId: someID, Parameters: map[string]string{"a": "b"}},
			{Name: "new\x00", SourceVolumeId: someID, Parameters: map[string]string{"csi.storage.k8s.io/volumesnapshot/name": "\n"}}},
		func(t *testing.T, r *rig, req *csi.CreateSnapshotRequest) error {
			_, err := r.controller.CreateSnapshot(callContext(t), req)
			return err
		})
}

func FuzzDeleteSnapshot(f *testing.F) {
	fuzz(f, func() *csi.DeleteSnapshotRequest { return &csi.DeleteSnapshotRequest{} },
		[]*csi.DeleteSnapshotRequest{{SnapshotId: someID}},
		func(t *testing.T, r *rig, req *csi.DeleteSnapshotRequest) error {
			_, err := r.controller.DeleteSnapshot(callContext(t), req)
			return err
		})
}

func FuzzListSnapshots(f *testing.F) {
	fuzz(f, func() *csi.ListSnapshotsRequest { return &csi.ListSnapshotsRequest{} },
		[]*csi.ListSnapshotsRequest{{SnapshotId: someID}, {SourceVolumeId: someID}, {MaxEntries: -1}, {StartingToken: "0"}},
		func(t *testing.T, r *rig, req *csi.ListSnapshotsRequest) error {
			_, err := r.controller.ListSnapshots(callContext(t), req)
			return err
		})
}

func FuzzGetSnapshot(f *testing.F) {
	fuzz(f, func() *csi.GetSnapshotRequest { return &csi.GetSnapshotRequest{} },
		[]*csi.GetSnapshotRequest{{SnapshotId: someID}},
		func(t *testing.T, r *rig, req *csi.GetSnapshotRequest) error {
			_, err := r.controller.GetSnapshot(callContext(t), req)
			return err
		})
}
