package driver_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

func (m machine) stats(t *testing.T, volumeID, path string) (*csi.NodeGetVolumeStatsResponse, error) {
	t.Helper()
	return m.node.NodeGetVolumeStats(callContext(t), &csi.NodeGetVolumeStatsRequest{VolumeId: volumeID, VolumePath: path})
}

func TestNodeGetVolumeStats(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	m.bring(t, id, writer())
	if err := m.mount(t, id, "a", writer(), false); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{m.target("a"), m.staging(id)} {
		got, err := m.stats(t, id, path)
		if err != nil || len(got.GetUsage()) != 2 {
			t.Fatalf("stats: %v, %v", got, err)
		}
		bytes, inodes := got.GetUsage()[0], got.GetUsage()[1]
		if bytes.GetUnit() != csi.VolumeUsage_BYTES || bytes.GetTotal() <= 0 || bytes.GetTotal() > gib || bytes.GetAvailable() <= 0 {
			t.Errorf("bytes: %v", bytes)
		}
		if inodes.GetUnit() != csi.VolumeUsage_INODES || inodes.GetTotal() <= 0 || inodes.GetUsed()+inodes.GetAvailable() != inodes.GetTotal() {
			t.Errorf("inodes: %v", inodes)
		}
		if c := got.GetVolumeCondition(); c.GetAbnormal() || c.GetMessage() == "" {
			t.Errorf("condition: %v", c)
		}
	}
	_, err := m.stats(t, id, m.dir)
	wantCode(t, err, codes.NotFound)
	_, err = m.stats(t, "01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", m.target("a")) // another volume is there
	wantCode(t, err, codes.NotFound)
	m.takeAway(t, id, "a")
	_, err = m.stats(t, id, m.target("a"))
	wantCode(t, err, codes.NotFound)
}

func TestNodeGetVolumeStatsOfARawBlockVolume(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	c := blockCapability(anyWriter)
	id := m.begin(t, "pvc-1", c)
	got, err := m.stats(t, id, m.target("a"))
	if err != nil || len(got.GetUsage()) != 1 {
		t.Fatalf("stats: %v, %v", got, err)
	}
	if bytes := got.GetUsage()[0]; bytes.GetUnit() != csi.VolumeUsage_BYTES || bytes.GetTotal() != gib || bytes.GetUsed() != 0 {
		t.Errorf("bytes: %v, want the 1 GiB of the device", bytes)
	}
	m.takeAway(t, id, "a")
}

func TestConditionOfAVolumeWhoseDeviceHasGone(t *testing.T) {
	for name, c := range map[string]*csi.VolumeCapability{"filesystem": writer(), "raw block": blockCapability(anyWriter)} {
		t.Run(name, func(t *testing.T) {
			m := newMachines(t, "worker-1")[0]
			id := m.begin(t, "pvc-1", c)
			if err := m.unpublish(t, id, m.server); err != nil {
				t.Fatal(err)
			}
			got, err := m.stats(t, id, m.target("a"))
			if err != nil || !got.GetVolumeCondition().GetAbnormal() || got.GetVolumeCondition().GetMessage() == "" {
				t.Errorf("got %v, %v; want an abnormal condition", got, err)
			}
			m.takeAway(t, id, "a")
		})
	}
}

// The kernel can be asked to take a filesystem for damaged.
func TestConditionOfAFilesystemWithErrors(t *testing.T) {
	for name, c := range map[string]struct{ option, says string }{
		"noted":                    {"errors=continue", "errors on record"},
		"no more writes since one": {"errors=remount-ro", "takes no more writes"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachines(t, "worker-1")[0]
			id := m.create(t, createRequest("pvc-1")).GetVolumeId()
			capability := writer()
			capability.GetMount().MountFlags = []string{c.option}
			m.bring(t, id, capability)
			if err := m.mount(t, id, "a", capability, false); err != nil {
				t.Fatal(err)
			}
			trigger := filepath.Join("/sys/fs/ext4", filepath.Base(m.device(t, id)), "trigger_fs_error")
			if err := os.WriteFile(trigger, []byte("a test"), 0o200); err != nil {
				t.Skipf("the kernel cannot be asked for an error: %v", err)
			}
			for _, path := range []string{m.target("a"), m.staging(id)} {
				var got *csi.NodeGetVolumeStatsResponse
				eventually(t, "the condition says: "+c.says, func() (abnormal bool) { // the kernel writes it down a moment later
					var err error
					if got, err = m.stats(t, id, path); err != nil {
						t.Fatal(err)
					}
					return got.GetVolumeCondition().GetAbnormal() && strings.Contains(got.GetVolumeCondition().GetMessage(), c.says)
				})
				if len(got.GetUsage()) != 2 {
					t.Errorf("what can be measured is left out: %v", got)
				}
			}
			m.takeAway(t, id, "a")
		})
	}
}
