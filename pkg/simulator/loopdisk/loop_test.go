//go:build linux

package loopdisk

import (
	"os"
	"path/filepath"
	"testing"
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
