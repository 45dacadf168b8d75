package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/loopdisk"
)

// volumesPerServer leaves each simulated server its system disk.
const volumesPerServer = 15

// noDisks tells why there can be no disks here, "" if there can.
func noDisks() string {
	if os.Geteuid() != 0 {
		return "making loop devices and mounting need root"
	}
	for _, program := range []string{"blkid", "mkfs.ext4", "mkfs.xfs", "e2fsck", "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			return err.Error()
		}
	}
	return ""
}

// machine is a node plugin, the real process, with real disks. It has as many as are wanted, more than a server can: they
// are those of several simulated servers.
type machine struct {
	*rig
	*process
	node   csi.NodeClient
	dir    string
	byID   string            // folder of the links to the disks
	sizes  map[string]string // what the controller tells of each volume
	server []string
}

func newMachine(ctx context.Context, program string) (*machine, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	m := &machine{dir: dir, byID: filepath.Join(dir, "by-id"), sizes: make(map[string]string)}
	plane, err := loopdisk.New(filepath.Join(dir, "disks"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if m.rig, err = newRig(ctx, simulator.Config{Disks: plane}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := os.Mkdir(m.byID, 0o700); err != nil {
		return nil, errors.Join(err, m.close())
	}
	m.process, err = startDriver(ctx, program, nil, "--mode", "node", "--device-dir", m.byID, "--zone", zone,
		"--node-id", "00aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", "--metadata-url", "http://127.0.0.1:1", "--v", "2")
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	m.node = csi.NewNodeClient(m.conn)
	return m, nil
}

// close ends everything, what is mounted first.
func (m *machine) close() error {
	var errs []error
	if m.process != nil {
		errs = append(errs, m.stop())
	}
	mounted, err := os.ReadFile("/proc/self/mounts")
	errs = append(errs, err)
	lines := strings.Split(string(mounted), "\n")
	slices.Reverse(lines)
	for _, line := range lines {
		if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], m.dir+"/") {
			errs = append(errs, run("umount", fields[1]))
		}
	}
	m.Close()
	return errors.Join(append(errs, os.RemoveAll(m.dir))...)
}

// addDisk makes a volume and attaches it, and returns its ID and its device.
func (m *machine) addDisk(ctx context.Context) (id, device string, err error) {
	n := len(m.sizes)
	if n%volumesPerServer == 0 {
		servers, err := m.servers(ctx, 1)
		if err != nil {
			return "", "", err
		}
		m.server = append(m.server, servers...)
	}
	server := m.server[n/volumesPerServer]
	if id, err = m.createVolume(ctx, claimName(n)); err != nil {
		return "", "", err
	}
	answer, err := m.controller.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{VolumeId: id, NodeId: server,
		VolumeCapability: singleWriter})
	if err != nil {
		return "", "", err
	}
	m.sizes[id] = answer.GetPublishContext()["size"]
	name, err := disk.LinkName(id)
	if err != nil {
		return "", "", err
	}
	device, err = filepath.EvalSymlinks(filepath.Join(m.dir, "disks", "servers", server, "by-id", name))
	if err != nil {
		return "", "", err
	}
	return id, device, os.Symlink(device, filepath.Join(m.byID, name))
}

func (m *machine) staging(id string) string { return filepath.Join(m.dir, "staging", id) }
func (m *machine) target(id string) string  { return filepath.Join(m.dir, "pods", id, "mount") }

// bring stages and publishes a volume.
func (m *machine) bring(ctx context.Context, id, fsType string) error {
	capability := &csi.VolumeCapability{
		AccessMode: singleWriter.GetAccessMode(),
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType}},
	}
	published := map[string]string{"size": m.sizes[id]}
	_, err := m.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: m.staging(id),
		VolumeCapability: capability, PublishContext: published})
	if err != nil {
		return err
	}
	_, err = m.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{VolumeId: id, StagingTargetPath: m.staging(id),
		TargetPath: m.target(id), VolumeCapability: capability, PublishContext: published})
	return err
}

// leave takes the volume down again.
func (m *machine) leave(ctx context.Context, id string) error {
	_, err := m.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: m.target(id)})
	if err != nil {
		return err
	}
	_, err = m.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: m.staging(id)})
	return err
}

func run(name string, args ...string) error {
	if output, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, output)
	}
	return nil
}
