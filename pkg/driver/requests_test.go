package driver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// newEverything runs a driver with all services and no disks.
func newEverything(t *testing.T) *rig {
	t.Helper()
	sim := simulatortest.Start(t, simulator.Config{})
	node, err := disk.New(disk.Config{DeviceDir: t.TempDir(), DeviceTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, sim, driver.Config{Mode: driver.ModeAll, Cloud: newCloud(t, sim), Disk: node, NodeID: uuid.NewString()})
}

// badRequest is one that can never succeed, and the name of the field that its INVALID_ARGUMENT has to tell.
type badRequest struct {
	name  string
	req   proto.Message
	field string
}

// TestBadRequestsNameTheField sends every kind of request with each required field left out, and with fields that make
// no sense.
func TestBadRequestsNameTheField(t *testing.T) {
	r := newEverything(t)
	id := r.create(t, createRequest("pvc-1")).GetVolumeId()
	r.sim.ResetRequests()
	var cases []badRequest
	cases = append(cases, badControllerRequests(id)...)
	cases = append(cases, badNodeRequests(id)...)
	for _, c := range cases {
		t.Run(string(c.req.ProtoReflect().Descriptor().Name())+" "+c.name, func(t *testing.T) {
			err := r.send(t, c.req)
			wantCode(t, err, codes.InvalidArgument)
			if message := status.Convert(err).Message(); !strings.HasPrefix(message, c.field) || len(message) < len(c.field)+5 {
				t.Errorf("the error does not begin with the field %s: %s", c.field, message)
			}
		})
	}
	calls := r.sim.Requests()
	delete(calls, "GET /storage/backup") // the shared list of ListSnapshots
	if len(calls) > 0 {
		t.Errorf("the API was asked for what can never succeed: %v", calls.Operations())
	}
}

// badCapabilities are capabilities that no volume can have, with the part that is to blame.
func badCapabilities() map[string]*csi.VolumeCapability {
	const writer = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	withGroup := mountCapability(writer, "ext4")
	withGroup.GetMount().VolumeMountGroup = "1000"
	withFlags := mountCapability(writer, "ext4")
	withFlags.GetMount().MountFlags = []string{"noatime", "remount"}
	return map[string]*csi.VolumeCapability{
		".access_mode":              {AccessType: blockCapability(writer).GetAccessType()},
		".access_type":              {AccessMode: &csi.VolumeCapability_AccessMode{Mode: writer}},
		".mount.fs_type":            mountCapability(writer, "ntfs"),
		".mount.mount_flags":        withFlags,
		".mount.volume_mount_group": withGroup,
	}
}

func badControllerRequests(id string) []badRequest {
	create := func(name, field string, change func(*csi.CreateVolumeRequest)) badRequest {
		req := createRequest("pvc-2")
		change(req)
		return badRequest{name, req, field}
	}
	publish := func(name, field string, change func(*csi.ControllerPublishVolumeRequest)) badRequest {
		req := &csi.ControllerPublishVolumeRequest{VolumeId: id, NodeId: uuid.NewString(), VolumeCapability: writer()}
		change(req)
		return badRequest{name, req, field}
	}
	cases := []badRequest{
		create("no name", "name", func(r *csi.CreateVolumeRequest) { r.Name = "" }),
		create("a name with control characters", "name", func(r *csi.CreateVolumeRequest) { r.Name = "pvc\x00\n" }),
		create("a long name", "name", func(r *csi.CreateVolumeRequest) { r.Name = strings.Repeat("x", 300) }),
		create("no capabilities", "volume_capabilities", func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = nil }),
		create("an empty capability", "volume_capabilities[1]", func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities = append(r.VolumeCapabilities, &csi.VolumeCapability{})
		}),
		create("unknown parameter", "parameters", func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"size": "1"} }),
		create("odd PVC name", "parameters", func(r *csi.CreateVolumeRequest) {
			r.Parameters = map[string]string{"csi.storage.k8s.io/pvc/name": "a\nb"}
		}),
		create("empty source", "volume_content_source", func(r *csi.CreateVolumeRequest) {
			r.VolumeContentSource = &csi.VolumeContentSource{}
		}),
		create("negative size", "capacity_range.required_bytes", func(r *csi.CreateVolumeRequest) {
			r.CapacityRange = &csi.CapacityRange{RequiredBytes: -1 << 63}
		}),
		create("negative limit", "capacity_range.limit_bytes", func(r *csi.CreateVolumeRequest) {
			r.CapacityRange = &csi.CapacityRange{LimitBytes: -1}
		}),
		{"no volume", &csi.DeleteVolumeRequest{}, "volume_id"},
		publish("no volume", "volume_id", func(r *csi.ControllerPublishVolumeRequest) { r.VolumeId = "" }),
		publish("no node", "node_id", func(r *csi.ControllerPublishVolumeRequest) { r.NodeId = "" }),
		publish("no capability", "volume_capability", func(r *csi.ControllerPublishVolumeRequest) { r.VolumeCapability = nil }),
		{"no volume", &csi.ControllerUnpublishVolumeRequest{}, "volume_id"},
		{"no volume", &csi.ValidateVolumeCapabilitiesRequest{VolumeCapabilities: []*csi.VolumeCapability{writer()}}, "volume_id"},
		{"no capabilities", &csi.ValidateVolumeCapabilitiesRequest{VolumeId: id}, "volume_capabilities"},
		{"an empty capability", &csi.ValidateVolumeCapabilitiesRequest{
			VolumeId: id, VolumeCapabilities: []*csi.VolumeCapability{{}},
		}, "volume_capabilities[0]"},
		{"no source", &csi.CreateSnapshotRequest{Name: "s"}, "source_volume_id"},
		{"no name", &csi.CreateSnapshotRequest{SourceVolumeId: id}, "name"},
		{"a name with control characters", &csi.CreateSnapshotRequest{Name: "\x1b", SourceVolumeId: id}, "name"},
		{"no snapshot", &csi.DeleteSnapshotRequest{}, "snapshot_id"},
		{"no snapshot", &csi.GetSnapshotRequest{}, "snapshot_id"},
		{"negative number", &csi.ListSnapshotsRequest{MaxEntries: -1}, "max_entries"},
	}
	for part, capability := range badCapabilities() {
		cases = append(cases,
			create("bad capability", "volume_capabilities[0]"+part, func(r *csi.CreateVolumeRequest) {
				r.VolumeCapabilities = []*csi.VolumeCapability{capability}
			}),
			publish("bad capability", "volume_capability"+part, func(r *csi.ControllerPublishVolumeRequest) {
				r.VolumeCapability = capability
			}))
	}
	return cases
}

func badNodeRequests(id string) []badRequest {
	stage := func(name, field string, change func(*csi.NodeStageVolumeRequest)) badRequest {
		req := &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: "/nowhere/staging", VolumeCapability: writer()}
		change(req)
		return badRequest{name, req, field}
	}
	publish := func(name, field string, change func(*csi.NodePublishVolumeRequest)) badRequest {
		req := &csi.NodePublishVolumeRequest{
			VolumeId: id, StagingTargetPath: "/nowhere/staging", TargetPath: "/nowhere/target", VolumeCapability: writer(),
		}
		change(req)
		return badRequest{name, req, field}
	}
	cases := []badRequest{
		stage("no volume", "volume_id", func(r *csi.NodeStageVolumeRequest) { r.VolumeId = "" }),
		stage("odd volume", "volume_id", func(r *csi.NodeStageVolumeRequest) { r.VolumeId = "../../etc" }),
		stage("no path", "staging_target_path", func(r *csi.NodeStageVolumeRequest) { r.StagingTargetPath = "" }),
		stage("no capability", "volume_capability", func(r *csi.NodeStageVolumeRequest) { r.VolumeCapability = nil }),
		stage("odd size", "publish_context", func(r *csi.NodeStageVolumeRequest) {
			r.PublishContext = map[string]string{"size": "ten"}
		}),
		{"no volume", &csi.NodeUnstageVolumeRequest{StagingTargetPath: "/nowhere"}, "volume_id"},
		{"no path", &csi.NodeUnstageVolumeRequest{VolumeId: id}, "staging_target_path"},
		publish("no volume", "volume_id", func(r *csi.NodePublishVolumeRequest) { r.VolumeId = "" }),
		publish("no path", "target_path", func(r *csi.NodePublishVolumeRequest) { r.TargetPath = "" }),
		publish("no capability", "volume_capability", func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = nil }),
		publish("an inline volume", "volume_context", func(r *csi.NodePublishVolumeRequest) {
			r.VolumeContext = map[string]string{"csi.storage.k8s.io/ephemeral": "true"}
		}),
		{"no volume", &csi.NodeUnpublishVolumeRequest{TargetPath: "/nowhere"}, "volume_id"},
		{"no path", &csi.NodeUnpublishVolumeRequest{VolumeId: id}, "target_path"},
		{"no volume", &csi.NodeGetVolumeStatsRequest{VolumePath: "/nowhere"}, "volume_id"},
		{"no path", &csi.NodeGetVolumeStatsRequest{VolumeId: id}, "volume_path"},
	}
	for _, path := range []string{"relative/path", "/", "/..", ".", "/a\x00b"} {
		cases = append(cases,
			stage("path "+path, "staging_target_path", func(r *csi.NodeStageVolumeRequest) { r.StagingTargetPath = path }),
			publish("staging path "+path, "staging_target_path", func(r *csi.NodePublishVolumeRequest) { r.StagingTargetPath = path }),
			publish("path "+path, "target_path", func(r *csi.NodePublishVolumeRequest) { r.TargetPath = path }),
			badRequest{"path " + path, &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: path}, "staging_target_path"},
			badRequest{"path " + path, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: path}, "target_path"},
		)
	}
	for part, capability := range badCapabilities() {
		cases = append(cases,
			stage("bad capability", "volume_capability"+part, func(r *csi.NodeStageVolumeRequest) { r.VolumeCapability = capability }),
			publish("bad capability", "volume_capability"+part, func(r *csi.NodePublishVolumeRequest) { r.VolumeCapability = capability }))
	}
	return cases
}

// send makes the call that a request is for.
func (r *rig) send(t *testing.T, req proto.Message) error {
	t.Helper()
	method := strings.TrimSuffix(string(req.ProtoReflect().Descriptor().Name()), "Request")
	service := "csi.v1.Controller"
	if strings.HasPrefix(method, "Node") {
		service = "csi.v1.Node"
	}
	return r.conn.Invoke(callContext(t), "/"+service+"/"+method, req, new(csi.ProbeResponse))
}
