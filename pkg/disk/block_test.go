package disk_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

func stageBlock(m *machine, vol disk.Volume) error {
	return m.StageBlock(context.Background(), disk.StageBlockRequest{Volume: vol, Path: m.path("staging")})
}

func (m *machine) publishBlock(vol disk.Volume, target string, change func(*disk.PublishBlockRequest)) error {
	req := disk.PublishBlockRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path(target)}
	if change != nil {
		change(&req)
	}
	return m.PublishBlock(context.Background(), req)
}

func readOnly(req *disk.PublishBlockRequest) { req.ReadOnly = true }
func single(req *disk.PublishBlockRequest)   { req.SingleWriter = true }

func TestPublishBlock(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	ctx := context.Background()
	vol, dev := m.attach(t, 64, nil)
	before := fingerprint(t, dev, m.path(vol.ID+".img"))
	for range 2 {
		if err := stageBlock(m, vol); err != nil {
			t.Fatal(err)
		}
		if err := m.publishBlock(vol, "devices/target", single); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.publishBlock(vol, "devices/second", single); !errors.Is(err, disk.ErrRefused) {
		t.Errorf("a second target of a single writer: got %v", err)
	}
	stats, err := m.Stats(t.Context(), vol.ID, m.path("devices/target"))
	if err != nil || !stats.Block || stats.TotalBytes != vol.SizeBytes {
		t.Errorf("stats of %s: %+v, %v", dev, stats, err)
	}
	other, _ := m.attach(t, 64, nil)
	if err := stageBlock(m, other); err != nil {
		t.Fatal(err)
	}
	if err := m.publishBlock(other, "devices/target", nil); !errors.Is(err, disk.ErrConflict) {
		t.Errorf("another device at the same path: got %v", err)
	}
	for range 2 {
		if err := m.Unpublish(ctx, vol.ID, m.path("devices/target")); err != nil {
			t.Fatal(err)
		}
		if err := m.Unstage(ctx, vol.ID, m.path("staging")); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"devices/target", "staging/device-" + vol.ID} {
		if _, err := os.Lstat(m.path(path)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	if after := fingerprint(t, dev, m.path(vol.ID+".img")); after != before {
		t.Error("a raw block volume was written to")
	}
}

// The path of a device that is not staged could be any disk's by now, or the encrypted side of the volume's.
func TestPublishBlockRequiresTheStagedVolume(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	if err := m.publishBlock(vol, "target", nil); !errors.Is(err, disk.ErrNotStaged) {
		t.Errorf("not staged: got %v", err)
	}
	if err := stageBlock(m, vol); err != nil {
		t.Fatal(err)
	}
	other, otherDev := m.attach(t, 64, nil)
	node := m.path("staging/device-" + other.ID)
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "--bind", m.devices[vol.ID], node)
	if err := m.publishBlock(other, "target", nil); !errors.Is(err, disk.ErrNotStaged) {
		t.Errorf("another volume's device staged in place of %s: got %v", otherDev, err)
	}
}

// A read-only bind mount of a device node alone stops nobody from writing to the device.
func TestAReadOnlyBlockVolumeTakesNoWrites(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	if err := stageBlock(m, vol); err != nil {
		t.Fatal(err)
	}
	writable := func(target string) bool {
		file, err := os.OpenFile(m.path(target), os.O_RDWR, 0)
		if err != nil {
			return false
		}
		_, err = file.WriteAt([]byte("data"), 0)
		return errors.Join(err, file.Sync(), file.Close()) == nil
	}
	for range 2 {
		if err := m.publishBlock(vol, "a", readOnly); err != nil {
			t.Fatal(err)
		}
	}
	if writable("a") {
		t.Error("written to through a read-only publication")
	}
	if err := m.publishBlock(vol, "a", nil); !errors.Is(err, disk.ErrConflict) {
		t.Errorf("published read-only, for writing asked: got %v", err)
	}
	if err := m.publishBlock(vol, "b", nil); !errors.Is(err, disk.ErrRefused) {
		t.Errorf("for writing beside a read-only publication: got %v", err)
	}
	if err := m.publishBlock(vol, "b", readOnly); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"a", "b"} {
		if err := m.Unpublish(context.Background(), vol.ID, m.path(target)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.publishBlock(vol, "a", nil); err != nil {
		t.Fatal(err)
	}
	if !writable("a") {
		t.Error("not writable after the read-only publications have gone")
	}
	if err := m.publishBlock(vol, "b", readOnly); !errors.Is(err, disk.ErrRefused) {
		t.Errorf("read-only beside a publication for writing: got %v", err)
	}
}

// A node plugin that died between protecting the device and publishing it leaves it protected.
func TestWriteProtectionThatWasLeftBehindIsTakenOff(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	run(t, "blockdev", "--setro", dev)
	if err := stage(m, vol, "ext4"); err != nil {
		t.Errorf("as a filesystem: %v", err)
	}
	block, blockDev := m.attach(t, 64, nil)
	run(t, "blockdev", "--setro", blockDev)
	if err := stageBlock(m, block); err != nil {
		t.Fatal(err)
	}
	if err := m.publishBlock(block, "a", nil); err != nil {
		t.Fatal(err)
	}
	if got := run(t, "blockdev", "--getro", blockDev); got != "0\n" {
		t.Errorf("published for writing, and protected from it: %s", got)
	}
}
