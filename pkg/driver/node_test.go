package driver_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"k8s.io/mount-utils"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/loopdisk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// machine is a simulated server with real disks, and the driver on it.
type machine struct {
	*rig
	config driver.Config
	server string
	dir    string
	byID   string // folder of the links to the server's disks
	// timeout is how long a device is waited for.
	timeout time.Duration
	// release is how long an unstaged device's users are waited for: long, as on a busy machine the kernel takes its time.
	release time.Duration
}

// restart ends the driver on the machine and starts it anew: nothing is left to it but what the machine shows.
func (m *machine) restart(t *testing.T) {
	t.Helper()
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	m.start(t)
}

func (m *machine) start(t *testing.T) {
	t.Helper()
	node, err := disk.New(disk.Config{DeviceDir: m.byID, DeviceTimeout: m.timeout, ReleaseTimeout: m.release})
	if err != nil {
		t.Fatal(err)
	}
	m.config.Disk = node
	m.rig = serve(t, m.sim, m.config)
}

// newMachines makes a simulated account with real disks, and servers in it that each run the driver.
func newMachines(t *testing.T, hostnames ...string) []machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make loop devices and to mount")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("needs loop devices: no /dev/loop-control")
	}
	for _, program := range []string{"blkid", "mkfs.ext4", "mkfs.xfs", "e2fsck"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	dir := shortDir(t)
	disks, err := loopdisk.New(filepath.Join(dir, "sim"))
	if err != nil {
		t.Fatal(err)
	}
	sim := simulatortest.Start(t, simulator.Config{Disks: disks})
	account := newCloud(t, sim)
	var machines []machine
	for _, hostname := range hostnames {
		server := sim.CreateServer(t, hostname, zone)
		m := machine{
			rig: &rig{sim: sim}, timeout: time.Second, release: time.Minute, server: server, dir: filepath.Join(dir, hostname),
			byID:   filepath.Join(dir, "sim", "servers", server, "by-id"),
			config: driver.Config{Mode: driver.ModeAll, Cloud: account, NodeID: server},
		}
		m.start(t)
		machines = append(machines, m)
	}
	t.Cleanup(func() { unmountBelow(t, dir) })
	return machines
}

func unmountBelow(t *testing.T, dir string) {
	t.Helper()
	mounts, err := mount.ParseMountInfo("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if !strings.HasPrefix(mounts[i].MountPoint, dir+"/") {
			continue
		}
		if out, err := exec.Command("umount", mounts[i].MountPoint).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}
}

func (m machine) staging(volumeID string) string { return filepath.Join(m.dir, "staging", volumeID) }
func (m machine) target(pod string) string       { return filepath.Join(m.dir, "pods", pod, "mount") }

func (m machine) stage(t *testing.T, volumeID string, c *csi.VolumeCapability, published map[string]string) error {
	t.Helper()
	_, err := m.node.NodeStageVolume(callContext(t), &csi.NodeStageVolumeRequest{
		VolumeId: volumeID, StagingTargetPath: m.staging(volumeID), VolumeCapability: c, PublishContext: published,
	})
	return err
}

func (m machine) mount(t *testing.T, volumeID, pod string, c *csi.VolumeCapability, readOnly bool) error {
	t.Helper()
	_, err := m.node.NodePublishVolume(callContext(t), &csi.NodePublishVolumeRequest{
		VolumeId: volumeID, StagingTargetPath: m.staging(volumeID), TargetPath: m.target(pod),
		VolumeCapability: c, Readonly: readOnly,
	})
	return err
}

// begin makes a volume and mounts it for the Pod a.
func (m machine) begin(t *testing.T, name string, c *csi.VolumeCapability) (volumeID string) {
	t.Helper()
	req := createRequest(name)
	req.VolumeCapabilities = []*csi.VolumeCapability{c}
	volumeID = m.create(t, req).GetVolumeId()
	m.bring(t, volumeID, c)
	if err := m.mount(t, volumeID, "a", c, false); err != nil {
		t.Fatal(err)
	}
	return volumeID
}

func (m machine) unmount(t *testing.T, volumeID, pod string) error {
	t.Helper()
	_, err := m.node.NodeUnpublishVolume(callContext(t), &csi.NodeUnpublishVolumeRequest{
		VolumeId: volumeID, TargetPath: m.target(pod),
	})
	return err
}

func (m machine) unstage(t *testing.T, volumeID string) error {
	t.Helper()
	_, err := m.node.NodeUnstageVolume(callContext(t), &csi.NodeUnstageVolumeRequest{
		VolumeId: volumeID, StagingTargetPath: m.staging(volumeID),
	})
	return err
}

// take detaches the volume from wherever it is used on the machine.
func (m machine) takeAway(t *testing.T, volumeID string, pods ...string) {
	t.Helper()
	var errs []error
	for _, pod := range pods {
		errs = append(errs, m.unmount(t, volumeID, pod))
	}
	errs = append(errs, m.unstage(t, volumeID), m.unpublish(t, volumeID, m.server))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// bring publishes and stages a volume.
func (m machine) bring(t *testing.T, volumeID string, c *csi.VolumeCapability) map[string]string {
	t.Helper()
	published, err := m.publish(t, volumeID, m.server)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.stage(t, volumeID, c, published); err != nil {
		t.Fatal(err)
	}
	return published
}

func TestDataMovesWithTheVolume(t *testing.T) {
	for _, fsType := range []string{"ext4", "ext3", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			c := mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, fsType)
			needsMkfs(t, c)
			machines := newMachines(t, "worker-1", "worker-2")
			one, two := machines[0], machines[1]
			c.GetMount().MountFlags = []string{"noatime"}
			id := one.create(t, createRequest("pvc-1")).GetVolumeId()
			one.bring(t, id, c)
			for range 2 {
				if err := one.mount(t, id, "a", c, false); err != nil {
					t.Fatal(err)
				}
			}
			if options := mountOptions(t, one.target("a")); !slices.Contains(options, "noatime") {
				t.Errorf("mounted with %v, want noatime", options)
			}
			if err := os.WriteFile(filepath.Join(one.target("a"), "file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			one.takeAway(t, id, "a")

			two.bring(t, id, c)
			if err := two.mount(t, id, "b", c, true); err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(filepath.Join(two.target("b"), "file")); err != nil || string(data) != "data" {
				t.Errorf("on the other server: %q, %v", data, err)
			}
			if err := os.WriteFile(filepath.Join(two.target("b"), "file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("writing to what was published read-only: %v", err)
			}
			two.takeAway(t, id, "b")
		})
	}
}

func mountOptions(t *testing.T, path string) (options []string) {
	t.Helper()
	mounts, err := mount.ParseMountInfo("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if m.MountPoint == path {
			options = m.MountOptions
		}
	}
	return options
}

func TestStageKeepsAnotherFilesystem(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	xfs := mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "xfs")
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	published := m.bring(t, id, xfs)
	if err := os.WriteFile(filepath.Join(m.staging(id), "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantCode(t, m.stage(t, id, writer(), published), codes.AlreadyExists) // staged as xfs, ext4 asked
	if err := m.unstage(t, id); err != nil {
		t.Fatal(err)
	}
	err := m.stage(t, id, writer(), published)
	wantCode(t, err, codes.FailedPrecondition)
	for _, word := range []string{"xfs", "ext4", id} {
		if err != nil && !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %s: %v", word, err)
		}
	}
	if err := m.stage(t, id, xfs, published); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(m.staging(id), "file")); err != nil {
		t.Errorf("the data is gone: %v", err)
	}
	m.takeAway(t, id)
}

func TestStageNeedsTheAttachedVolume(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	err := m.stage(t, id, writer(), nil)
	if wantCode(t, err, codes.NotFound); err != nil && !strings.Contains(err.Error(), id) {
		t.Errorf("the error does not name the volume: %v", err)
	}
	published, err := m.publish(t, id, m.server)
	if err != nil {
		t.Fatal(err)
	}
	published["size"] = "1099511627776" // the disk is smaller than what was attached
	wantCode(t, m.stage(t, id, writer(), published), codes.NotFound)
	published["size"] = "big"
	wantCode(t, m.stage(t, id, writer(), published), codes.InvalidArgument)
	wantCode(t, m.stage(t, "pvc-1", writer(), nil), codes.InvalidArgument)
	m.takeAway(t, id)
}

// A copy that is blank is not complete: formatting it would hide the loss.
func TestStageNeverFormatsACopy(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	published, err := m.publish(t, id, m.server)
	if err != nil {
		t.Fatal(err)
	}
	published["origin"] = "01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	wantCode(t, m.stage(t, id, writer(), published), codes.FailedPrecondition)
	m.takeAway(t, id)
}

func TestNodePublishNeedsTheStagedVolume(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	m.bring(t, id, writer())
	if err := m.unstage(t, id); err != nil {
		t.Fatal(err)
	}
	err := m.mount(t, id, "a", writer(), false)
	if wantCode(t, err, codes.FailedPrecondition); err != nil && !strings.Contains(err.Error(), m.staging(id)) {
		t.Errorf("the error does not name the staging path: %v", err)
	}
	if _, err := os.Lstat(m.target("a")); !os.IsNotExist(err) {
		t.Errorf("the target path was made: %v", err)
	}
	m.takeAway(t, id)
}
