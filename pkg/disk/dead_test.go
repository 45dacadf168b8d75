package disk_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// shutDown makes the kernel give up a filesystem, as it does after an error of the disk.
func shutDown(t *testing.T, path string) {
	t.Helper()
	if _, err := exec.LookPath("xfs_io"); err != nil {
		t.Skip("needs xfs_io")
	}
	run(t, "xfs_io", "-x", "-c", "shutdown", path) // an ioctl of XFS that ext4 has, too
}

// dying are ways in which a filesystem ends.
var dying = []struct {
	name, fsType string
	options      []string
	kill         func(t *testing.T, m *machine, vol disk.Volume)
}{
	{"xfs shut down", "xfs", nil, func(t *testing.T, m *machine, _ disk.Volume) { shutDown(t, m.path("staging")) }},
	{"ext4 shut down", "ext4", nil, func(t *testing.T, m *machine, _ disk.Volume) { shutDown(t, m.path("staging")) }},
	{"ext4 made read-only", "ext4", []string{"errors=remount-ro"}, func(t *testing.T, m *machine, vol disk.Volume) {
		trigger(t, m.devices[vol.ID])
		// Before 6.15 the kernel says so by its count of errors only, which it keeps in the background.
		requireCondition(t, m, vol, m.path("staging"), "no more writes")
	}},
}

// dead stages a filesystem, writes a file, and lets the kernel give it up.
func eachDeadFilesystem(t *testing.T, test func(t *testing.T, m *machine, req disk.StageRequest, die func())) {
	for _, c := range dying {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, c.fsType)
			vol, _ := m.attach(t, 320, nil)
			req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: c.fsType, Options: c.options}
			if err := m.Stage(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(m.path("staging/file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "sync", "-f", m.path("staging/file"))
			test(t, m, req, func() { c.kill(t, m, vol) })
		})
	}
}

// requireAlive writes at the path, and reads what was written before the filesystem died.
func requireAlive(t *testing.T, path string) {
	t.Helper()
	if data, err := os.ReadFile(filepath.Join(path, "file")); err != nil || string(data) != "data" {
		t.Errorf("the file at %s is %q, %v", path, data, err)
	}
	if err := os.WriteFile(filepath.Join(path, "new"), []byte("new"), 0o600); err != nil {
		t.Errorf("writing at %s: %v", path, err)
	}
	run(t, "sync", "-f", path)
}

func TestStageMountsADeadFilesystemAgain(t *testing.T) {
	eachDeadFilesystem(t, func(t *testing.T, m *machine, req disk.StageRequest, die func()) {
		die()
		for range 2 {
			if err := m.Stage(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			requireAlive(t, req.Path)
		}
	})
}

// The kubelet publishes a staged volume to the next Pod without staging it again.
func TestPublishMountsADeadFilesystemAgain(t *testing.T) {
	eachDeadFilesystem(t, func(t *testing.T, m *machine, req disk.StageRequest, die func()) {
		publish := disk.PublishRequest{Volume: req.Volume, StagingPath: req.Path, Path: m.path("target"), Options: req.Options}
		die()
		for range 2 {
			if err := m.Publish(t.Context(), publish); err != nil {
				t.Fatal(err)
			}
			requireAlive(t, publish.Path)
		}
		shutDown(t, req.Path) // once more, with a target that was left behind
		if err := m.Publish(t.Context(), publish); err != nil {
			t.Fatal(err)
		}
		requireAlive(t, publish.Path)
		if mounts := mountsOn(t, req.Path); len(mounts) != 1 {
			t.Errorf("%d mounts at the staging path", len(mounts))
		}
	})
}

func TestADeadFilesystemInUseIsRefusedWithItsUsers(t *testing.T) {
	eachDeadFilesystem(t, func(t *testing.T, m *machine, req disk.StageRequest, die func()) {
		first := disk.PublishRequest{Volume: req.Volume, StagingPath: req.Path, Path: m.path("first")}
		if err := m.Publish(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		next := disk.PublishRequest{Volume: req.Volume, StagingPath: req.Path, Path: m.path("next"), Options: req.Options}
		requireRefused := func(node *disk.Node, user string) {
			t.Helper()
			for what, err := range map[string]error{"stage": node.Stage(t.Context(), req), "publish": node.Publish(t.Context(), next)} {
				if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), user) || !strings.Contains(err.Error(), "after an error") {
					t.Errorf("%s: got %v, want the reason and %s", what, err, user)
				}
			}
		}
		inside := m.occupyStaging(t, false)
		die()
		requireRefused(m.Node, "mounted at "+first.Path) // another Pod's, which goes first
		if err := m.Unpublish(t.Context(), first.Volume.ID, first.Path); err != nil {
			t.Fatal(err)
		}
		requireRefused(m.Node, inside.name)
		inside.end()
		elsewhere := m.occupyStaging(t, true)
		requireRefused(m.impatient(t), elsewhere.name)
		if err := unix.Unmount(req.Path, 0); err != nil { // the driver died in between: it is dead elsewhere only
			t.Fatal(err)
		}
		if err := m.impatient(t).Stage(t.Context(), req); !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), elsewhere.name) {
			t.Errorf("staging what is dead elsewhere: got %v, want %s", err, elsewhere.name)
		}
		elsewhere.end()
		if err := m.Stage(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if err := m.Publish(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		requireAlive(t, next.Path)
	})
}

func TestADeadFilesystemStagedReadOnlyIsMountedAgain(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	requireFilesystem(t, "xfs")
	vol, _ := m.attach(t, 320, nil)
	if err := stage(m, vol, "xfs"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path("staging/file"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	if err := stageReadOnly(m, vol, "staging", ""); err != nil {
		t.Fatal(err)
	}
	shutDown(t, m.path("staging"))
	publish := disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path("target"), ReadOnly: true}
	if err := m.Publish(t.Context(), publish); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(m.path("target/file")); err != nil || string(data) != "data" {
		t.Errorf("the file is %q, %v", data, err)
	}
}
