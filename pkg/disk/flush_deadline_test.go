package disk_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// Whoever asked has gone, and the volume may be detached all the same: the data must be on its disk.
func TestUnstageThatFailsAfterTheDeadlineHasWrittenEverythingToDisk(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	if err := stage(m, vol, "ext4"); err != nil {
		t.Fatal(err)
	}
	user := m.occupyStaging(t, true)
	node, err := disk.New(disk.Config{DeviceDir: m.deviceDir, DeviceTimeout: time.Second, ReleaseTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := node.Unstage(ctx, vol.ID, m.path("staging")); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	const mark = "written after the deadline"
	if err := os.WriteFile(filepath.Join(user.folder, mark), content(mark), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := node.Close(context.Background()); err != nil { // the work goes on to its end
		t.Fatal(err)
	}
	if !m.onDisk(t, vol, mark) {
		t.Error("what was written would be lost if the disk was detached now")
	}
}
