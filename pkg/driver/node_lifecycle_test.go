package driver_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

const (
	sharing    = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	exclusive  = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	anyWriter  = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	readerMode = csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
)

// The node plugin may be restarted between any two calls: what the one began, the next one goes on with, from what the
// machine shows alone.
func TestPluginRestartBetweenEveryTwoCalls(t *testing.T) {
	for name, c := range map[string]*csi.VolumeCapability{
		"ext4": mountCapability(anyWriter, "ext4"), "xfs": mountCapability(anyWriter, "xfs"),
		"btrfs": mountCapability(anyWriter, "btrfs"), "block": blockCapability(anyWriter),
	} {
		t.Run(name, func(t *testing.T) {
			needsMkfs(t, c)
			m := newMachines(t, "worker-1")[0]
			req := createRequest("pvc-1")
			req.VolumeCapabilities = []*csi.VolumeCapability{c}
			id := m.create(t, req).GetVolumeId()
			published, err := m.publish(t, id, m.server)
			if err != nil {
				t.Fatal(err)
			}
			stage := func() error { return m.stage(t, id, c, published) }
			mount := func() error { return m.mount(t, id, "a", c, false) }
			stats := func() error {
				_, err := m.node.NodeGetVolumeStats(callContext(t), &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: m.target("a")})
				return err
			}
			grow := func() error {
				_, err := m.node.NodeExpandVolume(callContext(t), &csi.NodeExpandVolumeRequest{VolumeId: id, VolumePath: m.target("a"),
					StagingTargetPath: m.staging(id), VolumeCapability: c, CapacityRange: &csi.CapacityRange{RequiredBytes: gib}})
				return err
			}
			unmount := func() error { return m.unmount(t, id, "a") }
			unstage := func() error { return m.unstage(t, id) }
			for n, call := range []func() error{stage, stage, mount, mount, stats, grow, grow, stats, unmount, unmount, unstage, unstage} {
				if err := call(); err != nil {
					t.Fatalf("call %d: %v", n, err)
				}
				m.restart(t)
			}
			if err := m.unpublish(t, id, m.server); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The table of NodePublishVolume in the CSI specification: T is the target path, P what is asked for.
func TestSecondPublish(t *testing.T) {
	for name, make := range map[string]func(csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability{
		"filesystem": func(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
			return mountCapability(mode, "")
		},
		"raw block": blockCapability,
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachines(t, "worker-1")[0]
			req := createRequest("pvc-1")
			req.VolumeCapabilities = []*csi.VolumeCapability{make(sharing)}
			id := m.create(t, req).GetVolumeId()
			m.bring(t, id, make(sharing))
			for _, c := range []struct {
				name                            string
				mode                            csi.VolumeCapability_AccessMode_Mode
				other, elsewhere, elsewhereElse codes.Code
			}{
				{"SINGLE_NODE_SINGLE_WRITER", exclusive, codes.AlreadyExists, codes.FailedPrecondition, codes.FailedPrecondition},
				{"SINGLE_NODE_MULTI_WRITER", sharing, codes.AlreadyExists, codes.OK, codes.OK},
				{"SINGLE_NODE_WRITER", anyWriter, codes.AlreadyExists, codes.OK, codes.OK},
			} {
				capability := make(c.mode)
				if err := m.mount(t, id, "a", capability, false); err != nil {
					t.Fatal(err)
				}
				if name == "raw block" {
					// The kernel makes a device read-only for all who have it open: a second way beside the first cannot be.
					c.elsewhereElse = codes.FailedPrecondition
				}
				for _, second := range []struct {
					name, pod string
					readOnly  bool
					want      codes.Code
				}{
					{"T1=T2, P1=P2", "a", false, codes.OK},
					{"T1=T2, P1!=P2", "a", true, c.other},
					{"T1!=T2, P1=P2", "b", false, c.elsewhere},
					{"T1!=T2, P1!=P2", "c", true, c.elsewhereElse},
				} {
					if err := m.mount(t, id, second.pod, capability, second.readOnly); codeOf(err) != second.want {
						t.Errorf("%s, %s: %v, want %s", c.name, second.name, err, second.want)
					}
				}
				if err := errors.Join(m.unmount(t, id, "a"), m.unmount(t, id, "b"), m.unmount(t, id, "c")); err != nil {
					t.Fatal(err)
				}
			}
			m.takeAway(t, id, "never")
		})
	}
}

func TestRawBlockVolume(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	c := blockCapability(anyWriter)
	id := m.begin(t, "pvc-1", c)
	device, err := os.OpenFile(m.target("a"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := device.WriteAt([]byte("data"), gib/2); err != nil {
		t.Error(err)
	}
	device.Close()
	stats, err := m.node.NodeGetVolumeStats(callContext(t), &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: m.target("a")})
	if err != nil || len(stats.GetUsage()) != 1 || stats.GetUsage()[0].GetTotal() != gib {
		t.Errorf("stats: %v, %v", stats, err)
	}
	m.takeAway(t, id, "a")
}

func TestRawBlockVolumeReadOnly(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	for name, ask := range map[string]struct {
		mode     csi.VolumeCapability_AccessMode_Mode
		readOnly bool
	}{"by the Pod": {anyWriter, true}, "by the access mode": {readerMode, false}} {
		c := blockCapability(ask.mode)
		req := createRequest(name)
		req.VolumeCapabilities = []*csi.VolumeCapability{c}
		id := m.create(t, req).GetVolumeId()
		m.bring(t, id, c)
		if err := m.mount(t, id, "a", c, ask.readOnly); err != nil {
			t.Fatal(err)
		}
		if err := writeDevice(m.target("a")); err == nil {
			t.Errorf("read-only %s: it can be written to", name)
		}
		head, err := os.Open(m.target("a"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := head.Read(make([]byte, 512)); err != nil {
			t.Errorf("read-only %s: it cannot be read: %v", name, err)
		}
		head.Close()
		m.takeAway(t, id, "a")
	}
}

// writeDevice writes to a device past the kernel's cache.
func writeDevice(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("data")); err != nil {
		return err
	}
	return unix.Fsync(fd)
}

// Cleaning up is fine twice, out of order, after a device went away under its mounts, and where nothing ever was.
func TestCleanup(t *testing.T) {
	whole := t // drivers live as long as it, not as a part
	for name, c := range map[string]*csi.VolumeCapability{"filesystem": writer(), "raw block": blockCapability(anyWriter)} {
		m := newMachines(t, "worker-1")[0]
		clean := func(t *testing.T, id string) {
			t.Helper()
			for _, path := range []string{m.target("a"), m.staging(id)} {
				if mountOptions(t, path) != nil {
					t.Errorf("%s is mounted still", path)
				}
			}
			if _, err := os.Lstat(m.target("a")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the target path is there still: %v", err)
			}
			if err := m.unpublish(t, id, m.server); err != nil {
				t.Error(err)
			}
		}
		t.Run(name+", twice", func(t *testing.T) {
			id := m.begin(t, t.Name(), c)
			if err := errors.Join(m.unmount(t, id, "a"), m.unmount(t, id, "a"), m.unstage(t, id), m.unstage(t, id)); err != nil {
				t.Error(err)
			}
			clean(t, id)
		})
		t.Run(name+", out of order", func(t *testing.T) {
			id := m.begin(t, t.Name(), c)
			patience := m.release
			m.release = time.Millisecond // nobody will let go of it
			m.restart(whole)
			// A filesystem that is mounted elsewhere must not be said to be ready for its detachment.
			if err := m.unstage(t, id); err != nil {
				wantCode(t, err, codes.FailedPrecondition)
			} else if c.GetMount() != nil {
				t.Error("unstaged while it is published")
			}
			m.release = patience
			m.restart(whole)
			if err := errors.Join(m.unmount(t, id, "a"), m.unstage(t, id)); err != nil {
				t.Error(err)
			}
			clean(t, id)
		})
		t.Run(name+", after the device has gone", func(t *testing.T) {
			id := m.begin(t, t.Name(), c)
			if err := m.unpublish(t, id, m.server); err != nil { // detached by force, under the mounts
				t.Fatal(err)
			}
			m.restart(whole)
			if err := errors.Join(m.unmount(t, id, "a"), m.unstage(t, id)); err != nil {
				t.Error(err)
			}
			clean(t, id)
		})
		t.Run(name+", where nothing ever was", func(t *testing.T) {
			id := m.create(t, createRequest(t.Name())).GetVolumeId()
			if err := errors.Join(m.unmount(t, id, "never"), m.unstage(t, id)); err != nil {
				t.Error(err)
			}
			if err := os.MkdirAll(m.target("empty"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(m.unmount(t, id, "empty"), m.unmount(t, id, "empty")); err != nil {
				t.Error(err)
			}
		})
	}
}

// What somebody put into the folder of a target path, while nothing was mounted there, is not deleted with it.
func TestUnpublishKeepsWhatIsInTheFolder(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	file := filepath.Join(m.target("a"), "file")
	if err := errors.Join(os.MkdirAll(m.target("a"), 0o700), os.WriteFile(file, []byte("data"), 0o600)); err != nil {
		t.Fatal(err)
	}
	_ = m.unmount(t, id, "a")
	if _, err := os.Stat(file); err != nil {
		t.Errorf("it was deleted: %v", err)
	}
}

func needsMkfs(t *testing.T, c *csi.VolumeCapability) {
	t.Helper()
	if fsType := c.GetMount().GetFsType(); fsType != "" {
		if _, err := exec.LookPath("mkfs." + fsType); err != nil {
			t.Skip(err)
		}
	}
}
