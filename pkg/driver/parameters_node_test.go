package driver_test

import (
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// stageWith stages with what the controller told of the volume.
func (m machine) stageWith(t *testing.T, volume *csi.Volume, c *csi.VolumeCapability, secrets map[string]string) error {
	t.Helper()
	published, err := m.publish(t, volume.GetVolumeId(), m.server)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.node.NodeStageVolume(callContext(t), &csi.NodeStageVolumeRequest{
		VolumeId: volume.GetVolumeId(), StagingTargetPath: m.staging(volume.GetVolumeId()), VolumeCapability: c,
		PublishContext: published, VolumeContext: volume.GetVolumeContext(), Secrets: secrets,
	})
	return err
}

func TestMkfsOptionsOfTheStorageClassReachMkfs(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	req := createRequest("pvc-1")
	req.Parameters = map[string]string{"mkfsOptions": "-N 1024  -L database"}
	volume := m.create(t, req)
	if err := m.stageWith(t, volume, writer(), nil); err != nil {
		t.Fatal(err)
	}
	text := output(t, "dumpe2fs", "-h", m.device(t, volume.GetVolumeId()))
	for _, want := range []string{"Filesystem volume name:   database", "Inode count:              1024"} {
		if !strings.Contains(text, want) {
			t.Errorf("the filesystem has not %q: %s", want, text)
		}
	}
	m.takeAway(t, volume.GetVolumeId())
}

func TestMkfsOptionsThatCannotBeAreRefusedBeforeThereIsAVolume(t *testing.T) {
	r := newController(t, simulator.Config{})
	for _, options := range []string{"/dev/vda", "-d /etc", "-F", "-Eoffset=4096", "--no-such", "-N"} {
		req := createRequest("pvc-1")
		req.Parameters = map[string]string{"mkfsOptions": options}
		_, err := r.controller.CreateVolume(callContext(t), req)
		if wantCode(t, err, codes.InvalidArgument); err != nil && !strings.Contains(err.Error(), "mkfsOptions") {
			t.Errorf("%q: the error does not name the parameter: %v", options, err)
		}
	}
	if left := r.storagesNamed(t, "pvc-1"); len(left) != 0 {
		t.Errorf("storages were made: %v", left)
	}
	// Options are for the filesystem that is asked for; a raw block volume has none, and may be of the same class.
	for fsType, want := range map[string]codes.Code{"ext4": codes.OK, "xfs": codes.InvalidArgument} {
		req := createRequest("pvc-" + fsType)
		req.VolumeCapabilities[0].GetMount().FsType = fsType
		req.Parameters = map[string]string{"mkfsOptions": "-N 1024"}
		_, err := r.controller.CreateVolume(callContext(t), req)
		wantCode(t, err, want)
	}
	req := createRequest("pvc-block")
	req.VolumeCapabilities = []*csi.VolumeCapability{blockCapability(anyWriter)}
	req.Parameters = map[string]string{"mkfsOptions": "-N 1024"}
	r.create(t, req)
}

// A PersistentVolume keeps what its volume was made with: every answer to the same request says the same.
func TestVolumeContextIsTheSameEachTime(t *testing.T) {
	r := newController(t, simulator.Config{})
	req := createRequest("pvc-1")
	req.Parameters = map[string]string{"mkfsOptions": " -N  1024 ", "tier": "standard"}
	want := map[string]string{"mkfsOptions": "-N 1024"}
	for range 2 {
		if diff := cmp.Diff(want, r.create(t, req).GetVolumeContext()); diff != "" {
			t.Error(diff)
		}
	}
	if told := r.create(t, createRequest("pvc-2")).GetVolumeContext(); len(told) != 0 {
		t.Errorf("a volume without parameters of the node has the context %v", told)
	}
}
