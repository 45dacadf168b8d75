package disk_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// A container that kept a mount of the volume must not keep the next Pod from starting.
func TestStageOfAVolumeThatAnotherMountNamespaceHas(t *testing.T) {
	for _, fsType := range []string{"ext2", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, fsType)
			vol, _ := m.attach(t, 320, nil)
			if err := stage(m, vol, fsType); err != nil {
				t.Fatal(err)
			}
			user := m.occupyStaging(t, true)
			if err := m.impatient(t).Unstage(t.Context(), vol.ID, m.path("staging")); !errors.Is(err, disk.ErrInUse) {
				t.Fatalf("unstaging: got %v", err)
			}
			if err := os.WriteFile(filepath.Join(user.folder, "file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := stage(m, vol, fsType); err != nil {
					t.Fatal(err)
				}
			}
			if data, err := os.ReadFile(m.path("staging/file")); err != nil || string(data) != "data" {
				t.Errorf("the file of the other mount is %q, %v", data, err)
			}
			// Read-only beside a writer cannot be but with btrfs, and says who the writer is.
			err := m.Stage(t.Context(), disk.StageRequest{Volume: vol, Path: m.path("read-only"), ReadOnly: true})
			if fsType == "btrfs" {
				err := os.WriteFile(m.path("read-only/file"), nil, 0o600)
				if !errors.Is(err, unix.EROFS) {
					t.Errorf("writing to what is staged read-only: %v", err)
				}
				run(t, "umount", m.path("read-only"))
			} else if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), user.name) {
				t.Errorf("read-only: got %v, want that %s uses it", err, user.name)
			}
			user.end()
			if err := m.unstage(vol); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStageAtASecondPath(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, fsType)
			vol, _ := m.attach(t, 320, nil)
			if err := stage(m, vol, fsType); err != nil {
				t.Fatal(err)
			}
			second := disk.StageRequest{Volume: vol, Path: m.path("second"), Filesystem: fsType}
			for range 2 {
				if err := m.Stage(t.Context(), second); err != nil {
					t.Fatal(err)
				}
			}
			publish := disk.PublishRequest{Volume: vol, StagingPath: second.Path, Path: m.path("target")}
			if err := m.Publish(t.Context(), publish); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(m.path("target/file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(m.path("staging/file")); err != nil || string(data) != "data" {
				t.Errorf("at the first path: %q, %v", data, err)
			}
			if _, err := m.Stats(t.Context(), vol.ID, second.Path); err != nil {
				t.Error(err)
			}
			if _, err := m.Grow(t.Context(), disk.GrowRequest{Volume: vol, Path: publish.Path}); err != nil {
				t.Error(err)
			}
			if err := m.Unpublish(t.Context(), vol.ID, publish.Path); err != nil {
				t.Error(err)
			}
			err := m.impatient(t).Unstage(t.Context(), vol.ID, second.Path)
			if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), "mounted at "+m.path("staging")) {
				t.Errorf("unstaging the second path: got %v, want where it is mounted still", err)
			}
			if err := m.unstage(vol); err != nil {
				t.Error(err)
			}
		})
	}
}

// A target that was left of an earlier attachment shows a disk that is not the volume's any more.
func TestPublishReplacesATargetOfAnEarlierAttachment(t *testing.T) {
	for name, c := range map[string]struct {
		stage, publish func(m *machine, vol disk.Volume) error
	}{
		"filesystem": {
			func(m *machine, vol disk.Volume) error { return stage(m, vol, "") },
			func(m *machine, vol disk.Volume) error {
				return m.Publish(t.Context(), disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path("target")})
			},
		},
		"raw block": {stageBlock, func(m *machine, vol disk.Volume) error { return m.publishBlock(vol, "target", nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			vol, _ := m.attach(t, 64, nil)
			if err := errors.Join(c.stage(m, vol), c.publish(m, vol)); err != nil {
				t.Fatal(err)
			}
			link, err := disk.LinkName(vol.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(m.deviceDir, link)); err != nil {
				t.Fatal(err)
			}
			m.attachFile(t, vol.ID, m.path(vol.ID+".img"))
			if err := c.stage(m, vol); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := c.publish(m, vol); err != nil {
					t.Fatal(err)
				}
			}
			staged := m.path("staging")
			if name == "raw block" {
				staged = m.path("staging/device-" + vol.ID)
			}
			var want, got unix.Stat_t
			if err := errors.Join(unix.Stat(staged, &want), unix.Stat(m.path("target"), &got)); err != nil {
				t.Fatal(err)
			}
			if got.Dev != want.Dev || got.Rdev != want.Rdev {
				t.Errorf("the target shows device %d (%d), %d (%d) is staged", got.Dev, got.Rdev, want.Dev, want.Rdev)
			}
		})
	}
}

// What has the disk for itself may be a program that repairs it by hand: it is named.
func TestStageOfADiskThatAProgramHasForItself(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	run(t, "mkfs.ext4", "-q", dev)
	end := occupy(t, dev)
	defer end()
	err := stage(m, vol, "ext4")
	who := fmt.Sprintf("process %d (", os.Getpid())
	if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), who) {
		t.Errorf("got %v, want that %s has it", err, who)
	}
	end()
	if err := stage(m, vol, "ext4"); err != nil {
		t.Error(err)
	}
}

// Kubelets put a loop device on the node of each raw block volume.
func TestErrorsNameTheLoopDeviceOfARawBlockVolume(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	if err := stageBlock(m, vol); err != nil {
		t.Fatal(err)
	}
	if err := m.publishBlock(vol, "target", nil); err != nil {
		t.Fatal(err)
	}
	loop := strings.TrimSpace(run(t, "losetup", "--find", "--show", m.path("target")))
	detached := false
	detach := func() {
		if !detached {
			detached = true
			run(t, "losetup", "--detach", loop)
		}
	}
	defer detach()
	err := m.Unpublish(t.Context(), vol.ID, m.path("target"))
	if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), loop) {
		t.Errorf("got %v, want %s", err, loop)
	}
	detach()
	for deadline := time.Now().Add(time.Minute); ; {
		err := m.Unpublish(context.Background(), vol.ID, m.path("target"))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if err := m.unstage(vol); err != nil {
		t.Error(err)
	}
}
