package disk_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

func requireCondition(t *testing.T, m *machine, vol disk.Volume, path, says string) {
	t.Helper()
	got, err := m.Condition(t.Context(), vol.ID, path)
	// ext4 counts its errors in the background.
	for deadline := time.Now().Add(time.Minute); err == nil && got.Abnormal != (says != "") && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
		got, err = m.Condition(t.Context(), vol.ID, path)
	}
	if err != nil || got.Abnormal != (says != "") || !strings.Contains(got.Message, says) || got.Message == "" {
		t.Errorf("the condition is %+v, %v, want one that says %q", got, err, says)
	}
}

func TestConditionOfAHealthyVolume(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		m := newMachine(t, 10*time.Second)
		requireFilesystem(t, fsType)
		vol, _ := m.attach(t, 320, nil)
		if err := stage(m, vol, fsType); err != nil {
			t.Fatal(err)
		}
		requireCondition(t, m, vol, m.path("staging"), "")
		readOnly := disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path("target"), ReadOnly: true}
		if err := m.Publish(context.Background(), readOnly); err != nil {
			t.Fatal(err)
		}
		requireCondition(t, m, vol, m.path("target"), "")
		for _, path := range []string{"none", "."} {
			if _, err := m.Condition(t.Context(), vol.ID, m.path(path)); !errors.Is(err, disk.ErrNotMounted) {
				t.Errorf("%s: got %v", path, err)
			}
		}
		if _, err := m.Condition(t.Context(), "01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", m.path("staging")); !errors.Is(err, disk.ErrNotMounted) {
			t.Errorf("another volume: got %v", err)
		}
	}
}

func TestConditionOfAReadOnlyVolumeIsNormal(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	run(t, "mkfs.ext4", "-q", dev)
	if err := m.Stage(context.Background(), disk.StageRequest{Volume: vol, Path: m.path("staging"), ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	requireCondition(t, m, vol, m.path("staging"), "")
}

// trigger makes the kernel find an error in the ext4 on a device.
func trigger(t *testing.T, dev string) {
	t.Helper()
	file := filepath.Join("/sys/fs/ext4", filepath.Base(dev), "trigger_fs_error")
	if err := os.WriteFile(file, []byte("test"), 0); err != nil {
		t.Skipf("needs a kernel that makes errors of ext4 on demand: %v", err)
	}
	// The kernel counts it a moment later.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		count, err := os.ReadFile(filepath.Join(filepath.Dir(file), "errors_count"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(count)) != "0" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the kernel did not count the error")
		}
	}
}

func TestConditionTellsOfErrorsOfExt4(t *testing.T) {
	for behaviour, says := range map[string]string{"continue": "errors on record", "remount-ro": "no more writes"} {
		t.Run(behaviour, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			vol, dev := m.attach(t, 64, nil)
			req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Options: []string{"errors=" + behaviour}}
			if err := m.Stage(context.Background(), req); err != nil {
				t.Fatal(err)
			}
			publish := disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path("target"), ReadOnly: true}
			if err := m.Publish(context.Background(), publish); err != nil {
				t.Fatal(err)
			}
			trigger(t, dev)
			if !showsReadOnly(t, m.path("staging")) {
				says = "errors on record"
			}
			for _, path := range []string{"staging", "target"} {
				requireCondition(t, m, vol, m.path(path), says)
			}
			if err := m.Unpublish(context.Background(), vol.ID, m.path("target")); err != nil {
				t.Fatal(err)
			}
			// The error is mended by the check before the next mount.
			if err := m.unstage(vol); err != nil {
				t.Fatal(err)
			}
			if err := m.Stage(context.Background(), req); err != nil {
				t.Fatal(err)
			}
			requireCondition(t, m, vol, m.path("staging"), "")
		})
	}
}

// showsReadOnly tells whether the kernel says of the filesystem at the path that it takes no more writes. Some before 6.15 do
// not: they refuse writes, and the options of the mount stay as they were.
func showsReadOnly(t *testing.T, path string) bool {
	t.Helper()
	for _, m := range mountsOn(t, path) {
		if slices.Contains(m.SuperOptions, "ro") || slices.Contains(m.SuperOptions, "emergency_ro") {
			return true
		}
	}
	return false
}

// An XFS that shut down answers every call with an error: that is told, and is no reason not to take it down.
func TestAnXFSThatShutDownIsToldAndTakenDown(t *testing.T) {
	if _, err := exec.LookPath("xfs_io"); err != nil {
		t.Skip("needs xfs_io")
	}
	m := newMachine(t, 10*time.Second)
	requireFilesystem(t, "xfs")
	vol, _ := m.attach(t, 320, nil)
	if err := stage(m, vol, "xfs"); err != nil {
		t.Fatal(err)
	}
	if err := m.Publish(context.Background(), disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path("target")}); err != nil {
		t.Fatal(err)
	}
	run(t, "xfs_io", "-x", "-c", "shutdown", m.path("staging"))
	for _, path := range []string{"staging", "target"} {
		requireCondition(t, m, vol, m.path(path), "shut down")
	}
	for range 2 {
		if err := m.Unpublish(context.Background(), vol.ID, m.path("target")); err != nil {
			t.Fatal(err)
		}
		if err := m.unstage(vol); err != nil {
			t.Fatal(err)
		}
	}
	if err := stage(m, vol, "xfs"); err != nil {
		t.Fatal(err)
	}
	requireCondition(t, m, vol, m.path("staging"), "")
}

func TestConditionTellsOfErrorsOfBtrfs(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	requireFilesystem(t, "btrfs")
	vol, _ := m.attach(t, 320, nil)
	if err := stage(m, vol, "btrfs"); err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	if err := os.WriteFile(m.path("staging/file"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	dev := m.devices[vol.ID]
	image, err := os.ReadFile(m.path(vol.ID + ".img"))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(image, content)
	if at < 0 {
		t.Fatal("the data is not on the disk")
	}
	device, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = device.WriteAt([]byte("spoilt"), int64(at))
	if err := errors.Join(err, device.Sync(), device.Close()); err != nil {
		t.Fatal(err)
	}
	if err := stage(m, vol, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(m.path("staging/file")); err == nil {
		t.Fatal("the spoilt file is read")
	}
	requireCondition(t, m, vol, m.path("staging"), "corruption_errs")
}

// A disk that was pulled leaves its mount behind. The test has a second driver that looks at a sysfs without the disk.
func TestConditionTellsThatTheDiskHasLeft(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	if err := stage(m, vol, "ext4"); err != nil {
		t.Fatal(err)
	}
	block, _ := m.attach(t, 64, nil)
	if err := m.StageBlock(context.Background(), disk.StageBlockRequest{Volume: block, Path: m.path("block")}); err != nil {
		t.Fatal(err)
	}
	req := disk.PublishBlockRequest{Volume: block, StagingPath: m.path("block"), Path: m.path("target")}
	if err := m.PublishBlock(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	requireCondition(t, m, block, m.path("target"), "")
	bare := m.without(t, "sys")
	for path, vol := range map[string]disk.Volume{"staging": vol, "target": block} {
		got, err := bare.Condition(t.Context(), vol.ID, m.path(path))
		if err != nil || !got.Abnormal || !strings.Contains(got.Message, "has left") {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	// And everything of it is taken down, also while somebody is in it.
	inside := exec.Command("sleep", "1000")
	inside.Dir = m.path("staging")
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = inside.Process.Kill()
		_ = inside.Wait()
	}()
	for range 2 {
		for _, err := range []error{
			bare.Unpublish(context.Background(), block.ID, m.path("target")),
			bare.Unstage(context.Background(), block.ID, m.path("block")),
			bare.Unstage(context.Background(), vol.ID, m.path("staging")),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	if left := mountsOn(t, m.path("staging")); len(left) > 0 {
		t.Errorf("still mounted: %+v", left)
	}
}

// without returns a driver on the same machine, to which all disks seem to have left.
func (m *machine) without(t *testing.T, sys string) *disk.Node {
	t.Helper()
	for _, dir := range []string{"dev/block", "block"} {
		if err := os.MkdirAll(m.path(filepath.Join(sys, dir)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	node, err := disk.New(disk.Config{DeviceDir: m.path("no-links"), SysDir: m.path(sys), DeviceTimeout: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Close(context.Background()) })
	return node
}
