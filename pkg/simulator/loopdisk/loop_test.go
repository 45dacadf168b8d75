//go:build linux

package loopdisk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A number that a disk's loop device had may be anybody's when it is looked at again.
func TestALoopDeviceThatIsSomebodyElsesByNowIsLeftAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make loop devices")
	}
	image, another := filepath.Join(t.TempDir(), "a.img"), filepath.Join(t.TempDir(), "b.img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := attachLoop(image)
	if err != nil {
		t.Skipf("needs loop devices: %v", err)
	}
	defer func() {
		if err := l.pull(); err != nil {
			t.Error(err)
		}
	}()
	if err := pullNumber(l.number, another); err != nil {
		t.Error(err)
	}
	if taken, err := adoptLoop(l.number, another); err == nil {
		t.Errorf("it was taken over: %v", taken.release())
	}
	if got := backingFile(l.number); got != image {
		t.Fatalf("the device is of %q, want %s", got, image)
	}
	if _, err := l.file.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Errorf("the disk was pulled: %v", err)
	}
}

// The read-only state of a disk that was pulled must not come to the next disk of the same device.
func TestDiskIsWritableAtADeviceThatWasReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make loop devices")
	}
	image := filepath.Join(t.TempDir(), "a.img")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	for range attempts {
		former, err := attachLoop(image)
		if err != nil {
			t.Skipf("needs loop devices: %v", err)
		}
		err = unix.IoctlSetPointerInt(int(former.file.Fd()), unix.BLKROSET, 1)
		if err := errors.Join(err, former.pull()); err != nil {
			t.Fatal(err)
		}
		next, err := configure(former.number, backing)
		if errors.Is(err, unix.EBUSY) { // another program was faster
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		readOnly, err := unix.IoctlGetInt(int(next.file.Fd()), unix.BLKROGET)
		if err := errors.Join(err, next.pull()); err != nil {
			t.Fatal(err)
		}
		if readOnly != 0 {
			t.Errorf("%s is read-only", next.path)
		}
		return
	}
	t.Skip("other programs take loop devices as fast as they come")
}
