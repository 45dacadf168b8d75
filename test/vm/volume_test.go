//go:build linux

package vm

import (
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// volume is a volume of the account, and what is asked of it.
type volume struct {
	*rig
	id         string
	capability *csi.VolumeCapability
	context    map[string]string // of the volume
	published  map[string]string
	secrets    map[string]string // for staging
}

func writer(fsType string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType}},
	}
}

func rawBlock() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
}

// create makes a volume of 1 GiB, named after the test.
func (r *rig) create(t *testing.T, name string, c *csi.VolumeCapability, parameters map[string]string) *volume {
	t.Helper()
	resp, err := r.controller.CreateVolume(callContext(t), &csi.CreateVolumeRequest{
		Name: strings.ReplaceAll(t.Name(), "/", "-") + "-" + name, CapacityRange: &csi.CapacityRange{RequiredBytes: gib},
		VolumeCapabilities: []*csi.VolumeCapability{c}, Parameters: parameters,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &volume{rig: r, id: resp.GetVolume().GetVolumeId(), capability: c, context: resp.GetVolume().GetVolumeContext()}
}

// serial is what udev's link to the disk is named after.
func (v *volume) serial() string { return strings.ReplaceAll(v.id, "-", "")[:20] }
func (v *volume) link() string   { return "/dev/disk/by-id/virtio-" + v.serial() }

const kubelet = "/var/lib/kubelet"

func (v *volume) staging() string {
	return kubelet + "/plugins/kubernetes.io/csi/storage.csi.upcloud.com/" + v.serial() + "/globalmount"
}

func (v *volume) target(pod string) string {
	return kubelet + "/pods/" + pod + "/volumes/kubernetes.io~csi/" + v.serial() + "/mount"
}

func (v *volume) publish(t *testing.T) {
	t.Helper()
	resp, err := v.controller.ControllerPublishVolume(callContext(t), &csi.ControllerPublishVolumeRequest{
		VolumeId: v.id, NodeId: v.server, VolumeCapability: v.capability, VolumeContext: v.context,
	})
	if err != nil {
		t.Fatal(err)
	}
	v.published = resp.GetPublishContext()
}

func (v *volume) tryStage(t *testing.T) error {
	t.Helper()
	_, err := v.node.NodeStageVolume(callContext(t), &csi.NodeStageVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging(), VolumeCapability: v.capability, VolumeContext: v.context,
		PublishContext: v.published, Secrets: v.secrets,
	})
	return err
}

func (v *volume) stage(t *testing.T) {
	t.Helper()
	if err := v.tryStage(t); err != nil {
		t.Fatal(err)
	}
}

// stageInTheEnd repeats the call as the kubelet does, until it goes well.
func (v *volume) stageInTheEnd(t *testing.T) {
	t.Helper()
	ctx := callContext(t)
	for seen := ""; ; {
		err := v.tryStage(t)
		if err == nil {
			return
		}
		if err.Error() != seen {
			seen = err.Error()
			t.Logf("staging goes on: %v", err)
		}
		if ctx.Err() != nil || status.Code(err) == codes.InvalidArgument {
			t.Fatal(err)
		}
	}
}

func (v *volume) tryMount(t *testing.T, pod string, readOnly bool) error {
	t.Helper()
	_, err := v.node.NodePublishVolume(callContext(t), &csi.NodePublishVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging(), TargetPath: v.target(pod), VolumeCapability: v.capability,
		VolumeContext: v.context, PublishContext: v.published, Readonly: readOnly, Secrets: v.secrets,
	})
	return err
}

func (v *volume) mount(t *testing.T, pod string) {
	t.Helper()
	if err := v.tryMount(t, pod, false); err != nil {
		t.Fatal(err)
	}
}

// bring makes the volume appear in a pod.
func (v *volume) bring(t *testing.T, pod string) {
	t.Helper()
	v.publish(t)
	v.stage(t)
	v.mount(t, pod)
}

func (v *volume) unmount(t *testing.T, pod string) {
	t.Helper()
	if _, err := v.node.NodeUnpublishVolume(callContext(t), &csi.NodeUnpublishVolumeRequest{
		VolumeId: v.id, TargetPath: v.target(pod),
	}); err != nil {
		t.Fatal(err)
	}
}

func (v *volume) unstage(t *testing.T) {
	t.Helper()
	if err := v.tryUnstage(t); err != nil {
		t.Fatal(err)
	}
}

func (v *volume) tryUnstage(t *testing.T) error {
	t.Helper()
	_, err := v.node.NodeUnstageVolume(callContext(t), &csi.NodeUnstageVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging(),
	})
	return err
}

func (v *volume) unpublish(t *testing.T) {
	t.Helper()
	if _, err := v.controller.ControllerUnpublishVolume(callContext(t), &csi.ControllerUnpublishVolumeRequest{
		VolumeId: v.id, NodeId: v.server,
	}); err != nil {
		t.Fatal(err)
	}
}

// takeAway is the end of the volume's use on the machine; nothing of it is left there.
func (v *volume) takeAway(t *testing.T, pods ...string) {
	t.Helper()
	for _, pod := range pods {
		v.unmount(t, pod)
	}
	v.unstage(t)
	v.wantNothingMade(t, "unstaging")
	v.unpublish(t)
	v.wantGone(t)
}

// wantNothingMade checks that there is neither a mount of the volume nor a mapping.
func (v *volume) wantNothingMade(t *testing.T, after string) {
	t.Helper()
	if left := v.sh(t, "grep %s /proc/mounts || true; dmsetup ls --target crypt | grep %s || true", v.serial(), v.id); left != "" {
		t.Errorf("after %s there is:\n%s", after, left)
	}
}

// wantGone waits until the guest knows nothing of the disk any more.
func (v *volume) wantGone(t *testing.T) {
	t.Helper()
	v.until(t, "the disk is gone", "! cat /sys/block/vd*/serial 2>/dev/null | grep -q %s && ! [ -L %s ]", v.serial(), v.link())
}

func (v *volume) remove(t *testing.T) {
	t.Helper()
	if _, err := v.controller.DeleteVolume(callContext(t), &csi.DeleteVolumeRequest{VolumeId: v.id}); err != nil {
		t.Fatal(err)
	}
}

// grow makes the volume so many GiB large, disk and filesystem, while it is in use at the path: as the kubelet does, it asks the node
// only if the controller says that the node has something to do.
func (v *volume) grow(t *testing.T, size int64, path string) {
	t.Helper()
	if err := v.tryGrow(t, size, path); err != nil {
		t.Fatal(err)
	}
}

func (v *volume) tryGrow(t *testing.T, size int64, path string) error {
	t.Helper()
	capacity := &csi.CapacityRange{RequiredBytes: size * gib}
	grown, err := v.controller.ControllerExpandVolume(callContext(t), &csi.ControllerExpandVolumeRequest{
		VolumeId: v.id, CapacityRange: capacity, VolumeCapability: v.capability,
	})
	if err != nil {
		return err
	}
	if grown.GetCapacityBytes() != size*gib {
		t.Errorf("the controller's answer: %v", grown)
	}
	if !grown.GetNodeExpansionRequired() {
		return nil
	}
	_, err = v.node.NodeExpandVolume(callContext(t), &csi.NodeExpandVolumeRequest{
		VolumeId: v.id, VolumePath: path, StagingTargetPath: v.staging(), CapacityRange: capacity, VolumeCapability: v.capability,
		Secrets: v.secrets,
	})
	return err
}

func (v *volume) stats(t *testing.T, path string) *csi.NodeGetVolumeStatsResponse {
	t.Helper()
	resp, err := v.node.NodeGetVolumeStats(callContext(t), &csi.NodeGetVolumeStatsRequest{
		VolumeId: v.id, VolumePath: path, StagingTargetPath: v.staging(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// bytes is the capacity of the volume as its statistics tell it.
func (v *volume) bytes(t *testing.T, path string) int64 {
	t.Helper()
	for _, usage := range v.stats(t, path).GetUsage() {
		if usage.GetUnit() == csi.VolumeUsage_BYTES {
			return usage.GetTotal()
		}
	}
	t.Fatalf("no bytes in the statistics of %s", path)
	return 0
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
}
