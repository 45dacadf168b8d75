package disk_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// temporaryIDs tells whether the kernel can have two btrfs with the same UUID mounted.
func temporaryIDs() bool {
	_, err := os.Stat("/sys/fs/btrfs/features/temp_fsid")
	return err == nil
}

// copyOf attaches a copy of a volume, as a clone or a restored snapshot is one.
func (m *machine) copyOf(t *testing.T, vol disk.Volume, sizeMiB int64) disk.Volume {
	t.Helper()
	run(t, "sync", m.devices[vol.ID])
	copied, _ := m.attach(t, sizeMiB, func(file string) {
		run(t, "dd", "if="+m.path(vol.ID+".img"), "of="+file, "bs=1M", "conv=notrunc,sparse", "status=none")
	})
	return copied
}

// Every filesystem has a UUID, and a copy has its origin's: the kernel must not take one for the other, nor refuse.
func TestACopyIsMountedBesideItsOrigin(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, fsType)
			vol, _ := m.attach(t, 320, nil)
			if err := stage(m, vol, fsType); err != nil {
				t.Fatal(err)
			}
			write := func(path, data string) {
				t.Helper()
				if err := os.WriteFile(m.path(path), []byte(data), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("staging/file", "both")
			run(t, "sync", "-f", m.path("staging"))
			copied := m.copyOf(t, vol, 400)
			err := m.Stage(context.Background(), disk.StageRequest{Volume: copied, Path: m.path("copy"), Origin: vol.ID, Filesystem: fsType})
			if fsType == "btrfs" && !temporaryIDs() {
				if !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), "btrfstune -m") {
					t.Fatalf("a kernel that cannot have both: got %v, want the remedy", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(m.path("copy/file")); err != nil || string(data) != "both" {
				t.Errorf("the copy's file: %q, %v", data, err)
			}
			write("copy/file", "the copy's")
			if data, err := os.ReadFile(m.path("staging/file")); err != nil || string(data) != "both" {
				t.Errorf("the origin's file: %q, %v", data, err)
			}
			if got := filesystemMiB(t, m.path("copy")); got < 325 {
				t.Errorf("the copy has %d MiB of its 400", got)
			}
			// Each is told from the other, though they have all but the device in common.
			if _, err := m.Stats(t.Context(), vol.ID, m.path("copy")); !errors.Is(err, disk.ErrNotMounted) {
				t.Errorf("the copy is taken for its origin: %v", err)
			}
			if _, err := m.Stats(t.Context(), copied.ID, m.path("copy")); err != nil {
				t.Error(err)
			}
			if err := m.Unstage(context.Background(), copied.ID, m.path("copy")); err != nil {
				t.Error(err)
			}
			if err := m.unstage(vol); err != nil {
				t.Error(err)
			}
		})
	}
}

// mkfs.btrfs fills the end of the disk with zeros, where other programs leave the marker alone.
func TestAnInterruptedBtrfsIsMadeAgain(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	requireFilesystem(t, "btrfs")
	vol, dev := m.attach(t, 320, nil)
	interrupt(t, m, vol, "btrfs")
	run(t, "dd", "if=/dev/zero", "of="+dev, "bs=1", "seek=65600", "count=8", "conv=notrunc", "status=none") // what it writes last
	if err := stage(m, vol, "btrfs"); err != nil {
		t.Fatal(err)
	}
}

// A whole btrfs may have been put to use by hand since its format was interrupted: it has no count of its mounts.
func TestAWholeBtrfsIsNotFormattedAgain(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	requireFilesystem(t, "btrfs")
	vol, dev := m.attach(t, 320, nil)
	interrupt(t, m, vol, "btrfs")
	if err := os.Mkdir(m.path("by-hand"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", dev, m.path("by-hand"))
	if err := os.WriteFile(m.path("by-hand/file"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "umount", m.path("by-hand"))
	for range 2 {
		if err := stage(m, vol, "btrfs"); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(m.path("staging/file")); err != nil || string(data) != "data" {
			t.Errorf("the file is %q, %v", data, err)
		}
		if err := m.unstage(vol); err != nil {
			t.Fatal(err)
		}
	}
}

// Between the list of mounts and the look at one of them it can be taken down, and its path removed: its disk is there still.
func TestABtrfsThatIsUnmountedMeanwhileHasNotLostItsDisk(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	requireFilesystem(t, "btrfs")
	vol, _ := m.attach(t, 320, nil)
	if err := stage(m, vol, "btrfs"); err != nil {
		t.Fatal(err)
	}
	mounts := mountsOn(t, m.path("staging"))
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.path("staging")); err != nil {
		t.Fatal(err)
	}
	if len(mounts) != 1 || m.DeviceGone(mounts[0]) {
		t.Errorf("the disk of %+v is taken to have left the node", mounts)
	}
}
