package disk_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// mount(8) follows a link at the path that it mounts at. The volume lay over whatever the link led to, once more with each try, and
// nothing took it down.
func TestVolumesAreNotMountedThroughLinks(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	ctx := context.Background()
	vol, _ := m.attach(t, 64, nil)
	raw, _ := m.attach(t, 64, nil)
	elsewhere, file := m.path("elsewhere"), m.path("file")
	if err := errors.Join(os.Mkdir(elsewhere, 0o700), os.WriteFile(file, nil, 0o600), os.Mkdir(m.path("kubelet"), 0o700),
		os.Symlink(elsewhere, m.path("link")), os.Symlink(file, m.path("filelink")), os.Symlink(m.path("nowhere"), m.path("dangling")),
		os.Symlink(m.path("kubelet"), m.path("root"))); err != nil {
		t.Fatal(err)
	}
	block := m.path("block")
	if err := m.StageBlock(ctx, disk.StageBlockRequest{Volume: raw, Path: block}); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{m.path("link"), m.path("dangling"), m.path("link") + "/"} {
		if err := m.Stage(ctx, disk.StageRequest{Volume: vol, Path: link}); !errors.Is(err, disk.ErrRefused) {
			t.Errorf("staged at %s: %v", link, err)
		}
	}
	if err := m.Stage(ctx, disk.StageRequest{Volume: vol, Path: m.path("staging")}); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{m.path("link"), m.path("dangling"), m.path("link") + "/"} {
		err := m.Publish(ctx, disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: link})
		if !errors.Is(err, disk.ErrRefused) {
			t.Errorf("published at %s: %v", link, err)
		}
	}
	for _, link := range []string{m.path("filelink"), m.path("dangling")} {
		err := m.PublishBlock(ctx, disk.PublishBlockRequest{Volume: raw, StagingPath: block, Path: link})
		if !errors.Is(err, disk.ErrRefused) {
			t.Errorf("published as a block device at %s: %v", link, err)
		}
	}
	for _, path := range []string{elsewhere, file, m.path("nowhere")} {
		if got := mountsOn(t, path); len(got) != 0 {
			t.Errorf("mounted at %s: %v", path, got)
		}
	}
	// The kubelet's own folder may be a link.
	target := m.path("root/pods/mount")
	for range 2 {
		if err := m.Publish(ctx, disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: target}); err != nil {
			t.Fatal(err)
		}
	}
	if got := mountsOn(t, m.path("kubelet/pods/mount")); len(got) != 1 {
		t.Errorf("%d mounts behind the link, want 1", len(got))
	}
	if err := errors.Join(m.Unpublish(ctx, vol.ID, target), m.unstage(vol), m.Unstage(ctx, raw.ID, block)); err != nil {
		t.Error(err)
	}
}
