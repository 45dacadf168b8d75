package disk_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// An ID that is no volume's can name any file of the machine, when it is made a part of a path.
func TestUnstageOfAnIDThatIsAPathTouchesNothing(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	precious := m.path("precious")
	if err := os.WriteFile(precious, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(m.path("staging/device-x"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"x/../../precious", "/../../precious", "../../precious"} {
		if err := m.Unstage(context.Background(), id, m.path("staging")); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if _, err := os.Stat(precious); err != nil {
			t.Fatalf("unstaging volume %s removed a file that is not the driver's: %v", id, err)
		}
	}
}

// A raw block volume gets its device written to by whoever has it: not beside a filesystem that is mounted, wherever.
func TestAVolumeIsNotStagedBothAsAFilesystemAndAsRawBlock(t *testing.T) {
	ctx := context.Background()
	for _, path := range []string{"staging", "elsewhere"} {
		t.Run("raw block at "+path, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			vol, _ := m.attach(t, 64, nil)
			if err := stage(m, vol, "ext4"); err != nil {
				t.Fatal(err)
			}
			err := m.StageBlock(ctx, disk.StageBlockRequest{Volume: vol, Path: m.path(path)})
			if !errors.Is(err, disk.ErrConflict) || !strings.Contains(err.Error(), m.path("staging")) {
				t.Errorf("got %v, want ErrConflict with the path of the filesystem", err)
			}
			if files, err := filepath.Glob(m.path("*/device-*")); err != nil || len(files) > 0 {
				t.Errorf("a node was made: %v, %v", files, err)
			}
			if err := m.unstage(vol); err != nil {
				t.Fatal(err)
			}
			if err := m.StageBlock(ctx, disk.StageBlockRequest{Volume: vol, Path: m.path(path)}); err != nil {
				t.Errorf("after it was unstaged: %v", err)
			}
			if err := m.Unstage(ctx, vol.ID, m.path(path)); err != nil {
				t.Error(err)
			}
		})
		t.Run("filesystem at "+path, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			vol, dev := m.attach(t, 64, nil)
			if err := stageBlock(m, vol); err != nil {
				t.Fatal(err)
			}
			before := fingerprint(t, dev, m.path(vol.ID+".img"))
			as := disk.StageRequest{Volume: vol, Path: m.path(path)}
			if err := m.Stage(ctx, as); !errors.Is(err, disk.ErrConflict) || !strings.Contains(err.Error(), m.path("staging")) {
				t.Errorf("got %v, want ErrConflict with the path of the device", err)
			}
			if len(mountsOn(t, as.Path)) > 0 || fingerprint(t, dev, m.path(vol.ID+".img")) != before {
				t.Error("the volume was formatted, or mounted")
			}
			if err := m.unstage(vol); err != nil {
				t.Fatal(err)
			}
			if err := m.Stage(ctx, as); err != nil {
				t.Errorf("after it was unstaged: %v", err)
			}
			if err := m.Unstage(ctx, vol.ID, as.Path); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whoever gets an error takes the volume for not staged, and may have it detached next.
func TestAStageThatFailsAfterMountingLeavesNoMount(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	requireFilesystem(t, "xfs")
	vol, dev := m.attach(t, 400, nil)
	if err := stage(m, vol, "xfs"); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	vol = m.enlarge(t, vol, dev, 800)
	folder, path := t.TempDir(), os.Getenv("PATH")
	if err := os.WriteFile(filepath.Join(folder, "xfs_growfs"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder+":"+path)
	if err := stage(m, vol, "xfs"); err == nil || !strings.Contains(err.Error(), "xfs_growfs") {
		t.Fatalf("got %v, want that of xfs_growfs", err)
	}
	if left := mountsOn(t, m.path("staging")); len(left) > 0 {
		t.Errorf("it is mounted still: %+v", left)
	}
	t.Setenv("PATH", path)
	if err := stage(m, vol, "xfs"); err != nil {
		t.Fatal(err)
	}
	// What is staged is left alone, as it is in use.
	vol = m.enlarge(t, vol, dev, 1200)
	t.Setenv("PATH", folder+":"+path)
	if err := stage(m, vol, "xfs"); err == nil {
		t.Error("the failed growth is not told")
	}
	if len(mountsOn(t, m.path("staging"))) != 1 {
		t.Error("a volume that was staged before was taken down")
	}
	t.Setenv("PATH", path)
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
}
