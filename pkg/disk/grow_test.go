package disk_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// enlarge makes an attached disk larger, as the API does.
func (m *machine) enlarge(t *testing.T, vol disk.Volume, dev string, sizeMiB int64) disk.Volume {
	t.Helper()
	if err := os.Truncate(m.path(vol.ID+".img"), sizeMiB*mib); err != nil {
		t.Fatal(err)
	}
	run(t, "losetup", "--set-capacity", dev)
	vol.SizeBytes = sizeMiB * mib
	return vol
}

func (m *machine) grow(vol disk.Volume) (int64, error) {
	return m.Grow(context.Background(), disk.GrowRequest{Volume: vol, Path: m.path("staging")})
}

// filesystemMiB is how much the filesystem at path has room for, as users see it.
func filesystemMiB(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize / mib
}

func TestGrowMakesAMountedFilesystemAsLargeAsItsDisk(t *testing.T) {
	for _, fsType := range []string{"ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, fsType)
			if strings.HasPrefix(fsType, "ext") && !disk.MayGrowMountedExt() {
				t.Skip("needs CAP_SYS_RESOURCE, without which the kernel grows no mounted ext filesystem")
			}
			vol, dev := m.attach(t, 320, nil)
			if err := stage(m, vol, fsType); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(m.path("staging/file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			before := filesystemMiB(t, m.path("staging"))
			vol = m.enlarge(t, vol, dev, 640)
			for range 2 { // the second time there is nothing to do
				if size, err := m.grow(vol); err != nil || size != 640*mib {
					t.Fatalf("grown to %d bytes, %v", size, err)
				}
			}
			if after := filesystemMiB(t, m.path("staging")); after < before+280 {
				t.Errorf("the filesystem has %d MiB, it had %d", after, before)
			}
			if data, err := os.ReadFile(m.path("staging/file")); err != nil || string(data) != "data" {
				t.Errorf("file after growing: %q, %v", data, err)
			}
		})
	}
}

func TestGrowTakesThePartitionOfUpCloudsOwnDriverAlong(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 400, func(file string) { writeGPT(t, file, 1) })
	run(t, "mkfs.xfs", "-q", dev+"p1")
	if err := stage(m, vol, "xfs"); err != nil {
		t.Fatal(err)
	}
	vol = m.enlarge(t, vol, dev, 800)
	for range 2 {
		if size, err := m.grow(vol); err != nil || size != 800*mib {
			t.Fatalf("grown to %d bytes, %v", size, err)
		}
	}
	if got := filesystemMiB(t, m.path("staging")); got < 700 {
		t.Errorf("the filesystem has %d MiB", got)
	}
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Log("no sfdisk to check the partition table with")
		return
	}
	if out := run(t, "sfdisk", "--verify", dev); !strings.Contains(out, "No errors detected") {
		t.Errorf("sfdisk finds in the table: %s", out)
	}
	if err := m.Unstage(context.Background(), vol.ID, m.path("staging")); err != nil {
		t.Fatal(err)
	}
	if err := stage(m, vol, "xfs"); err != nil {
		t.Errorf("after growing it is not mounted: %v", err)
	}
}

func TestGrowNeverChangesAPartitionTableThatIsNotWhole(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, func(file string) { writeGPT(t, file, 1) })
	run(t, "mkfs.ext4", "-q", dev+"p1")
	if err := stage(m, vol, "ext4"); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte{0xff}, 512+60); err != nil { // within the GUID of the disk
		t.Fatal(err)
	}
	vol = m.enlarge(t, vol, dev, 256)
	_, err = m.grow(vol)
	if !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("got %v, want a refusal that names the checksum", err)
	}
}

// A restored volume may be larger than its snapshot: nobody calls for the growth of a filesystem but the mount.
func TestStageGrowsACopyThatIsLargerThanItsSource(t *testing.T) {
	for name, layout := range map[string]func(t *testing.T, m *machine) (disk.Volume, string){
		"whole disk": func(t *testing.T, m *machine) (disk.Volume, string) {
			vol, dev := m.attach(t, 64, nil)
			run(t, "mkfs.ext4", "-q", dev)
			return vol, dev
		},
		"partition": func(t *testing.T, m *machine) (disk.Volume, string) {
			vol, dev := m.attach(t, 64, func(file string) { writeGPT(t, file, 1) })
			run(t, "mkfs.ext4", "-q", dev+"p1")
			return vol, dev
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			vol, dev := layout(t, m)
			vol = m.enlarge(t, vol, dev, 256)
			err := m.Stage(context.Background(), disk.StageRequest{
				Volume: vol, Path: m.path("staging"), Origin: "01000000-0000-4000-8000-000000000000",
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := filesystemMiB(t, m.path("staging")); got < 200 {
				t.Errorf("the filesystem has %d MiB", got)
			}
		})
	}
}

func TestGrowWaitsForTheDiskAndSaysWhatItSees(t *testing.T) {
	m := newMachine(t, time.Minute)
	vol, dev := m.attach(t, 320, nil)
	if err := stage(m, vol, "xfs"); err != nil {
		t.Fatal(err)
	}
	larger := vol
	larger.SizeBytes = 640 * mib
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := m.Grow(ctx, disk.GrowRequest{Volume: larger, Path: m.path("staging")})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), dev) {
		t.Errorf("got %v, want a deadline that names %s", err, dev)
	}

	grown := make(chan error, 1)
	go func() {
		_, err := m.grow(larger)
		grown <- err
	}()
	m.enlarge(t, vol, dev, 640)
	if err := <-grown; err != nil {
		t.Error(err)
	}
}

// An expansion that the node could not do is made up for when the volume is mounted next.
func TestStageGrowsAfterAnInterruptedExpansion(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	if err := stage(m, vol, "ext4"); err != nil {
		t.Fatal(err)
	}
	if err := m.Unstage(context.Background(), vol.ID, m.path("staging")); err != nil {
		t.Fatal(err)
	}
	vol = m.enlarge(t, vol, dev, 256)
	if err := stage(m, vol, "ext4"); err != nil {
		t.Fatal(err)
	}
	if got := filesystemMiB(t, m.path("staging")); got < 200 {
		t.Errorf("the filesystem has %d MiB", got)
	}
}

func TestGrowOfWhatIsNotTheVolume(t *testing.T) {
	m := newMachine(t, time.Second)
	vol, dev := m.attach(t, 64, nil)
	if err := stage(m, vol, "ext4"); err != nil {
		t.Fatal(err)
	}
	other := disk.Volume{ID: "01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"}
	for what, req := range map[string]disk.GrowRequest{
		"another volume":  {Volume: other, Path: m.path("staging")},
		"nothing mounted": {Volume: vol, Path: m.dir},
		"no such path":    {Volume: vol, Path: m.path("none")},
		"no UUID":         {Volume: disk.Volume{ID: "vol"}, Path: m.path("staging")},
		"another disk":    {Volume: other, Path: dev},
	} {
		if _, err := m.Grow(context.Background(), req); !errors.Is(err, disk.ErrNotMounted) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A raw block device has nothing to grow.
	vol = m.enlarge(t, vol, dev, 128)
	if size, err := m.Grow(context.Background(), disk.GrowRequest{Volume: vol, Path: dev}); err != nil || size != 128*mib {
		t.Errorf("raw block: %d, %v", size, err)
	}
}
