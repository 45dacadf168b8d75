package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"k8s.io/klog/v2"
	"k8s.io/mount-utils"
)

// growablePath returns where a mounted filesystem can be grown: a mount of it for writing, of the whole filesystem. The one at path
// may be read-only, or of a folder in it.
func growablePath(m mount.MountInfo, path, stagingPath string) (string, error) {
	all, err := mount.ParseMountInfo(mountInfoFile)
	if err != nil {
		return "", err
	}
	real, err := resolve(path)
	if err != nil {
		return "", err
	}
	staging, err := resolve(stagingPath)
	if err != nil { // the path that the caller knows need not be there
		staging = ""
	}
	best, found := "", mount.MountInfo{}
	for _, other := range all {
		if other.Major != m.Major || other.Minor != m.Minor || readOnly(other) {
			continue
		}
		at := unescape(other.MountPoint)
		// Paths of requests are preferred to others, and none is preferred to one of more of the filesystem.
		switch shorter := len(other.Root) - len(found.Root); {
		case best == "" || shorter < 0, shorter == 0 && (at == staging || at == real && best != staging):
			best, found = at, other
		}
	}
	if best == "" {
		return "", fail(ErrRefused, "the %s at %s cannot be grown: it is mounted read-only everywhere on this node. It is grown when the "+
			"volume is staged for writing", m.FsType, path)
	}
	return best, nil
}

// growers are the programs that grow a mounted filesystem.
var growers = map[string]func(device, path string) []string{
	"ext2":  func(device, _ string) []string { return []string{"resize2fs", device} },
	"ext3":  func(device, _ string) []string { return []string{"resize2fs", device} },
	"ext4":  func(device, _ string) []string { return []string{"resize2fs", device} },
	"xfs":   func(_, path string) []string { return []string{"xfs_growfs", path} },
	"btrfs": func(_, path string) []string { return []string{"btrfs", "filesystem", "resize", "max", path} },
}

func (n *Node) growFilesystem(ctx context.Context, device Device, fsType, path string) (err error) {
	grower, known := growers[fsType]
	if !known {
		return fail(ErrRefused, "%s at %s cannot be grown by the driver: grow it by hand", fsType, path)
	}
	larger, err := n.largerThanFilesystem(device, fsType)
	if err != nil || !larger {
		return err
	}
	if isExt(fsType) {
		if err := n.requireNoErrors(device, fsType, path); err != nil {
			return err
		}
	}
	if isExt(fsType) && !mayGrowMountedExt() {
		return fail(ErrRefused, "the %s at %s can only be grown while mounted by a process with CAP_SYS_RESOURCE: run the "+
			"driver's container privileged, or take the volume off the node once, so that it is grown when it comes back",
			fsType, path)
	}
	defer n.observe("grow", time.Now(), &err)
	args := grower(device.Path, path)
	klog.FromContext(ctx).Info("Growing the filesystem", "device", device.Path, "path", path, "filesystem", fsType,
		"deviceBytes", device.SizeBytes)
	output, status, err := command(ctx, args[0], args[1:]...)
	if err != nil {
		return err
	}
	if status != 0 {
		return commandError(args[0], args[1:], status, output)
	}
	return nil
}

// requireNoErrors refuses to grow a mounted ext filesystem with errors on record: the kernel does not, and says "Permission denied".
func (n *Node) requireNoErrors(device Device, fsType, path string) error {
	recorded, err := extErrors(filepath.Join(n.sysDir, "fs", "ext4", device.Name))
	if err != nil || recorded == "" {
		return err
	}
	return fail(ErrRefused, "the %s at %s cannot be grown while it is mounted, as it has errors: %s. Delete the Pods that use it on this "+
		"node, so that it is checked and grown when it is mounted again", fsType, path, recorded)
}

// filesystemBytes reads from its superblock how large a filesystem is. What the kernel has not written back yet may be
// missing: then it seems smaller than it is, and growing it does nothing.
func filesystemBytes(device, fsType string) (int64, error) {
	file, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	if fsType == "btrfs" {
		super, err := readBtrfsSuper(file)
		return super.deviceBytes, err
	}
	head := make([]byte, 4096)
	if _, err := io.ReadFull(file, head); err != nil {
		return 0, fmt.Errorf("reading the superblock of %s: %w", device, err)
	}
	if fsType == "xfs" {
		if !bytes.HasPrefix(head, []byte("XFSB")) {
			return 0, fmt.Errorf("%s has no superblock of an XFS", device)
		}
		return int64(binary.BigEndian.Uint64(head[8:])) * int64(binary.BigEndian.Uint32(head[4:])), nil
	}
	// ext2, 3 and 4: the superblock is at byte 1024 (struct ext4_super_block).
	super := head[1024:]
	if binary.LittleEndian.Uint16(super[56:]) != 0xef53 {
		return 0, fmt.Errorf("%s has no superblock of an %s", device, fsType)
	}
	blocks := int64(binary.LittleEndian.Uint32(super[4:]))
	if binary.LittleEndian.Uint32(super[96:])&0x80 != 0 { // feature 64bit: more blocks than 32 bits count
		blocks |= int64(binary.LittleEndian.Uint32(super[0x150:])) << 32
	}
	return blocks << (10 + binary.LittleEndian.Uint32(super[24:])%16), nil
}
