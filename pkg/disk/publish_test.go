package disk_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

func stagedVolume(t *testing.T) (*machine, disk.PublishRequest) {
	t.Helper()
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	if err := stage(m, vol, "ext4"); err != nil {
		t.Fatal(err)
	}
	return m, disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path("target")}
}

func TestPublishAndUnpublish(t *testing.T) {
	m, req := stagedVolume(t)
	ctx := context.Background()
	for range 2 {
		if err := m.Publish(ctx, req); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(mountsOn(t, req.Path)); got != 1 {
		t.Fatalf("%d mounts at the target path, want 1", got)
	}
	if err := os.WriteFile(filepath.Join(req.Path, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.path("staging/file")); err != nil {
		t.Errorf("the file is not on the volume: %v", err)
	}
	run(t, "mount", "--bind", req.StagingPath, req.Path) // one more on top
	for range 2 {
		if err := m.Unpublish(ctx, req.Volume.ID, req.Path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(req.Path); !os.IsNotExist(err) {
		t.Errorf("the target path is still there: %v", err)
	}
}

func TestPublishReadOnly(t *testing.T) {
	m, req := stagedVolume(t)
	req.ReadOnly = true
	for range 2 {
		if err := m.Publish(context.Background(), req); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(req.Path, "file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to a read-only publication: %v", err)
	}
	if err := os.WriteFile(m.path("staging/file"), nil, 0o600); err != nil {
		t.Errorf("the staged filesystem became read-only too: %v", err)
	}
	req.ReadOnly = false
	if err := m.Publish(context.Background(), req); !errors.Is(err, disk.ErrConflict) {
		t.Errorf("publishing for writing what is published read-only: got %v", err)
	}
}

// A bind mount of an empty staging folder would put the data on the node's own disk.
func TestPublishRequiresTheStagedVolume(t *testing.T) {
	m, req := stagedVolume(t)
	ctx := context.Background()
	other, _ := m.attach(t, 64, nil)
	wrong := req
	wrong.Volume = other
	if err := m.Publish(ctx, wrong); !errors.Is(err, disk.ErrNotStaged) {
		t.Errorf("another volume is staged there: got %v", err)
	}
	if err := m.Unstage(ctx, req.Volume.ID, req.StagingPath); err != nil {
		t.Fatal(err)
	}
	if err := m.Publish(ctx, req); !errors.Is(err, disk.ErrNotStaged) {
		t.Errorf("nothing is staged: got %v", err)
	}
	if _, err := os.Lstat(req.Path); !os.IsNotExist(err) {
		t.Errorf("the target path was made: %v", err)
	}
}

func TestPublishSingleWriter(t *testing.T) {
	m, req := stagedVolume(t)
	req.SingleWriter = true
	for range 2 {
		if err := m.Publish(context.Background(), req); err != nil {
			t.Fatal(err)
		}
	}
	second := req
	second.Path = m.path("target 2")
	if err := m.Publish(context.Background(), second); !errors.Is(err, disk.ErrRefused) {
		t.Errorf("a second target of a single writer: got %v", err)
	}
	second.SingleWriter = false
	if err := m.Publish(context.Background(), second); err != nil {
		t.Errorf("a second target of many writers: %v", err)
	}
	if err := m.Unpublish(context.Background(), second.Volume.ID, second.Path); err != nil {
		t.Error(err)
	}
}

func TestPublishRefusesAPathThatIsInUse(t *testing.T) {
	m, req := stagedVolume(t)
	if err := os.Mkdir(req.Path, 0o750); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-t", "tmpfs", "tmpfs", req.Path)
	if err := m.Publish(context.Background(), req); !errors.Is(err, disk.ErrConflict) {
		t.Errorf("got %v", err)
	}
}

func TestUnpublishKeepsWhatIsNotEmpty(t *testing.T) {
	m := newMachine(t, time.Second)
	if err := os.MkdirAll(m.path("target/data"), 0o750); err != nil {
		t.Fatal(err)
	}
	id := "01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	if err := m.Unpublish(context.Background(), id, m.path("target")); err == nil {
		t.Error("a folder with data in it and nothing mounted on it was unpublished")
	}
	if _, err := os.Stat(m.path("target/data")); err != nil {
		t.Error(err)
	}
	// Where the node of a raw block volume was taken away, its user writes to the file below.
	if err := os.WriteFile(m.path("node"), []byte("data"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := m.Unpublish(context.Background(), id, m.path("node")); !errors.Is(err, disk.ErrRefused) {
		t.Errorf("a file with data in it: got %v", err)
	}
	if _, err := os.Stat(m.path("node")); err != nil {
		t.Error(err)
	}
	if err := m.Unpublish(context.Background(), id, m.path("no/such/path")); err != nil {
		t.Errorf("a path that does not exist: %v", err)
	}
}

func TestStats(t *testing.T) {
	m, req := stagedVolume(t)
	if err := m.Publish(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	stats, err := m.Stats(t.Context(), req.Volume.ID, req.Path)
	if err != nil {
		t.Fatal(err)
	}
	if stats.TotalBytes <= 0 || stats.TotalBytes > req.Volume.SizeBytes || stats.AvailableBytes <= 0 || stats.TotalInodes <= 0 {
		t.Errorf("stats: %+v", stats)
	}
	for name, path := range map[string]string{"no such path": m.path("none"), "not mounted": m.dir, "not the volume": "/proc"} {
		if _, err := m.Stats(t.Context(), req.Volume.ID, path); !errors.Is(err, disk.ErrNotMounted) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
