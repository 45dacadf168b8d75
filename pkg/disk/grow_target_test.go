package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// A volume that is staged for writing grows, wherever the caller's path leads: to a target published read-only, or to a folder in
// the volume that is bind-mounted. Nomad does not say where it is staged.
func TestGrowOfATargetThatCannotBeWrittenTo(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		for name, make := range map[string]func(t *testing.T, m *machine, publish disk.PublishRequest) (path string){
			"read-only target": func(_ *testing.T, _ *machine, publish disk.PublishRequest) string { return publish.Path },
			"subPath": func(t *testing.T, m *machine, publish disk.PublishRequest) string {
				for _, dir := range []string{filepath.Join(publish.StagingPath, "sub"), m.path("sub")} {
					if err := os.Mkdir(dir, 0o750); err != nil {
						t.Fatal(err)
					}
				}
				run(t, "mount", "--bind", filepath.Join(publish.StagingPath, "sub"), m.path("sub"))
				return m.path("sub")
			},
		} {
			t.Run(fsType+", "+name, func(t *testing.T) {
				m := newMachine(t, 10*time.Second)
				requireFilesystem(t, fsType)
				if fsType == "ext4" && !disk.MayGrowMountedExt() {
					t.Skip("needs CAP_SYS_RESOURCE, without which the kernel grows no mounted ext filesystem")
				}
				vol, dev := m.attach(t, 320, nil)
				if err := stage(m, vol, fsType); err != nil {
					t.Fatal(err)
				}
				publish := disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path("target"), ReadOnly: true}
				if err := m.Publish(t.Context(), publish); err != nil {
					t.Fatal(err)
				}
				path := make(t, m, publish)
				size := int64(320)
				for _, staging := range []string{publish.StagingPath, "", m.path("no/such/path")} {
					before := filesystemMiB(t, path)
					size += 320
					vol = m.enlarge(t, vol, dev, size)
					_, err := m.Grow(t.Context(), disk.GrowRequest{Volume: vol, Path: path, StagingPath: staging})
					if err != nil {
						t.Fatal(err)
					}
					if after := filesystemMiB(t, path); after < before+280 {
						t.Errorf("the filesystem has %d MiB, it had %d", after, before)
					}
				}
			})
		}
	}
}

// What is read-only everywhere is not the caller's to change.
func TestGrowOfWhatIsStagedReadOnlyChangesNothing(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 320, nil)
	if err := stage(m, vol, "xfs"); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-o", "remount,bind,ro", m.path("staging"))
	vol = m.enlarge(t, vol, dev, 640)
	if _, err := m.grow(vol); !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), "read-only everywhere") {
		t.Errorf("got %v, want a refusal", err)
	}
}

// The kernel says no more than "Permission denied".
func TestGrowOfAnExtWithErrorsSaysWhatToDo(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Options: []string{"errors=continue"}}
	if err := m.Stage(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	trigger(t, dev)
	vol = m.enlarge(t, vol, dev, 256)
	_, err := m.grow(vol)
	if !errors.Is(err, disk.ErrRefused) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, word := range []string{"1 since it was last repaired", "Delete the Pods"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	// What it says to do helps.
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	req.Volume = vol
	if err := m.Stage(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if got := filesystemMiB(t, m.path("staging")); got < 200 {
		t.Errorf("the filesystem has %d MiB", got)
	}
}

// Two PersistentVolumes may name one storage, and only one of them its size: what can never come is not waited for as long as a disk
// that is being attached.
func TestGrowBeyondTheStorageIsRefusedWithItsCause(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	if err := stage(m, vol, "ext4"); err != nil {
		t.Fatal(err)
	}
	node, err := disk.New(disk.Config{DeviceDir: m.deviceDir, DeviceTimeout: time.Hour, ResizeTimeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	vol.SizeBytes = 128 * mib
	_, err = node.Grow(t.Context(), disk.GrowRequest{Volume: vol, Path: m.path("staging")})
	if !errors.Is(err, disk.ErrNotGrown) {
		t.Fatalf("got %v", err)
	}
	for _, word := range []string{dev, "67108864 bytes", "134217728", "two PersistentVolumes"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}
