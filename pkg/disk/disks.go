package disk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/mount-utils"
)

// DiskInfo is a disk of this machine: one of the storage devices that its server has, of which there is a limit.
type DiskInfo struct {
	Device
	// Serial is what the disk tells, "" if nothing. Compare it with MatchesSerial.
	Serial string
	// Mounts are the paths where the disk, a partition of it or a mapping on it is mounted, as far as this process sees.
	Mounts []string
	// InUse: somebody on the machine uses the disk, also where this process does not see it: a filesystem on it is mounted,
	// or swap or an array is on it. False of a disk whose filesystem the kernel tells nothing of, such as a CD-ROM's.
	InUse bool
}

// UsedOutside tells whether the disk is in use by something that is not mounted below root: it belongs to the machine, not
// to volumes that are staged below root (the kubelet's folder).
func (d DiskInfo) UsedOutside(root string) bool {
	outside := func(path string) bool { return !strings.HasPrefix(path, strings.TrimSuffix(root, "/")+"/") }
	return d.InUse && (len(d.Mounts) == 0 || slices.ContainsFunc(d.Mounts, outside))
}

// Disks lists the disks that are attached to this machine, those of its volumes among them: whatever has a device behind it
// (no loop devices, RAM disks or mappings), and what the links by serial point to.
func (n *Node) Disks(ctx context.Context) ([]DiskInfo, error) {
	names, err := n.disks()
	if err != nil {
		return nil, err
	}
	linked := n.linkedDisks()
	mounts, err := mount.ParseMountInfo(mountInfoFile)
	if err != nil {
		return nil, err
	}
	var disks []DiskInfo
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := os.Stat(filepath.Join(n.sysDir, "block", name, "device")); err != nil && !linked[name] {
			continue
		}
		info, err := n.diskInfo(name, mounts)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it left meanwhile
		}
		if err != nil {
			return nil, err
		}
		disks = append(disks, info)
	}
	return disks, nil
}

// linkedDisks are the names of the disks that links by serial point to.
func (n *Node) linkedDisks() map[string]bool {
	linked := make(map[string]bool)
	entries, _ := os.ReadDir(n.deviceDir) // there is no such folder on a machine whose disks tell no serial number
	for _, entry := range entries {
		if dev, err := n.deviceAt(filepath.Join(n.deviceDir, entry.Name())); err == nil {
			linked[dev.Name] = true
		}
	}
	return linked
}

func (n *Node) diskInfo(name string, mounts []mount.MountInfo) (DiskInfo, error) {
	dev, err := n.deviceIn(filepath.Join(n.sysDir, "block", name))
	if err != nil {
		return DiskInfo{}, err
	}
	info := DiskInfo{Device: dev}
	if info.Serial, err = n.serialOf(name); err != nil {
		return DiskInfo{}, err
	}
	if dev.Major == loopMajor {
		file, err := readText(filepath.Join(n.sysDir, "block", name, "loop", "backing_file"))
		if err != nil {
			return DiskInfo{}, err
		}
		if id := filepath.Base(file); len(id) >= 36 { // verifyBackingFile: the name starts with the volume's UUID
			info.Serial, _ = Serial(id[:36])
		}
	}
	stack := n.stack(dev)
	for _, m := range mounts {
		if onStack(m, stack) {
			info.Mounts = append(info.Mounts, unescape(m.MountPoint))
		}
	}
	info.InUse = len(info.Mounts) > 0 || len(swapUsers(stack)) > 0 || n.known(stack)
	return info, nil
}

// known tells whether the kernel has a mounted filesystem on one of the devices, in whatever mount namespace, or something
// that is no mapping of ours on top of it.
func (n *Node) known(stack []layer) bool {
	return slices.ContainsFunc(stack, func(l layer) bool {
		if n.hasSuperblock(l) {
			return true
		}
		holders, _ := filepath.Glob(filepath.Join(n.numberDir(l.Major, l.Minor), "holders", "*"))
		return slices.ContainsFunc(holders, func(holder string) bool {
			name, _ := readText(filepath.Join(holder, "dm", "name"))
			return !strings.HasPrefix(name, mapperPrefix)
		})
	})
}

// hasSuperblock tells whether the kernel has a filesystem of the device in use, of those that it lists in sysfs.
func (n *Node) hasSuperblock(l layer) bool {
	return slices.ContainsFunc([]string{"ext4/", "xfs/", "f2fs/", "btrfs/*/devices/"}, func(pattern string) bool {
		found, _ := filepath.Glob(filepath.Join(n.sysDir, "fs", pattern+l.Name))
		return len(found) > 0
	})
}
