package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	"k8s.io/mount-utils"
)

// mountInfoFile is this process's view: the driver's mount namespace is the one that counts.
const mountInfoFile = "/proc/self/mountinfo"

// maxStacked bounds how many mounts on one path are taken down: more means that something mounts as fast as we do not.
const maxStacked = 64

// resolve returns path as mountinfo has it. Only its parent is looked at: the last element may be a mount that no
// longer answers.
func resolve(path string) (string, error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(filepath.Clean(path)))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(path)), nil
}

// mountsAt lists the mounts on exactly this path, the one on top last. A path that does not exist has none.
func mountsAt(path string) ([]mount.MountInfo, error) {
	real, err := resolve(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := mount.ParseMountInfo(mountInfoFile)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(m mount.MountInfo) bool { return unescape(m.MountPoint) != real }), nil
}

// unescape undoes the octal escapes of mountinfo (space, tab, newline, backslash).
func unescape(path string) string {
	out := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			value := 0
			if _, err := fmt.Sscanf(path[i+1:i+4], "%03o", &value); err == nil && value < 256 {
				out = append(out, byte(value))
				i += 3
				continue
			}
		}
		out = append(out, path[i])
	}
	return string(out)
}

func readOnly(m mount.MountInfo) bool { return slices.Contains(m.MountOptions, "ro") }

// top returns the mount that is seen at path, after taking down those whose device has left the machine: a disk that
// was pulled leaves its dead mount behind. It returns nil when nothing is mounted there.
func (n *Node) top(ctx context.Context, path string) (*mount.MountInfo, error) {
	for range maxStacked {
		mounts, err := mountsAt(path)
		if err != nil || len(mounts) == 0 {
			return nil, err
		}
		last := mounts[len(mounts)-1]
		if !n.deviceGone(last, path) {
			return &last, nil
		}
		klog.FromContext(ctx).Info("Taking down a mount whose device is gone", "path", path, "source", last.Source)
		if err := n.unmountOne(ctx, last, path); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("more than %d mounts on %s", maxStacked, path)
}

// deviceGone tells whether the block device under a mount has left.
func (n *Node) deviceGone(m mount.MountInfo, path string) bool {
	if m.Major == 0 && m.FsType != "btrfs" && !isBlockDevice(path) {
		return false // tmpfs, overlay and the like have no block device
	}
	dev, err := n.deviceUnder(m, path)
	if err == nil {
		_, err = n.wholeDisk(dev)
	}
	return errors.Is(err, fs.ErrNotExist)
}

// deviceUnder returns the device that a mount at path gives access to. For a device node that is bind-mounted (a raw block
// volume) the device is the node's, not the one of the filesystem it lies on.
func (n *Node) deviceUnder(m mount.MountInfo, path string) (Device, error) {
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return n.deviceByNumber(int(unix.Major(st.Rdev)), int(unix.Minor(st.Rdev)))
	}
	return n.deviceOf(&m)
}

func isBlockDevice(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK
}

// deviceOf returns the device that a mounted filesystem lies on: a disk, a partition or a mapping.
func (n *Node) deviceOf(m *mount.MountInfo) (Device, error) {
	if m.FsType == "btrfs" {
		return n.btrfsDevice(unescape(m.MountPoint))
	}
	return n.deviceByNumber(m.Major, m.Minor)
}

// holds proves that a mount is the volume's filesystem, and returns the disk that it lies on.
func (n *Node) holds(m *mount.MountInfo, volumeID string) (Device, error) {
	dev, err := n.deviceOf(m)
	if err != nil {
		return Device{}, fmt.Errorf("%s is mounted there: %w", m.Source, err)
	}
	return n.diskOf(dev, volumeID)
}

// diskOf proves that a device is the volume's disk, a partition of it or the driver's mapping on it, and returns the disk.
func (n *Node) diskOf(dev Device, volumeID string) (Device, error) {
	name, err := n.mappingName(dev)
	if err != nil {
		return Device{}, err
	}
	if name != "" && !isMapperName(name, volumeID) {
		return Device{}, fmt.Errorf("%s is the mapping %s, volume %s has %s", dev.Path, name, volumeID, mapperName(volumeID))
	}
	disk, err := n.wholeDisk(dev)
	if err != nil {
		return Device{}, err
	}
	return disk, n.verifyIdentity(disk, volumeID)
}

// unmountAll takes down every mount on path. None there is fine, and so is a path that does not exist.
func (n *Node) unmountAll(ctx context.Context, path string) (err error) {
	for range maxStacked {
		mounts, err := mountsAt(path)
		if err != nil {
			return err
		}
		if len(mounts) == 0 {
			return nil
		}
		if err := n.unmountOne(ctx, mounts[len(mounts)-1], path); err != nil {
			return err
		}
	}
	return fmt.Errorf("more than %d mounts on %s", maxStacked, path)
}

// unmountOne takes down the mount on top. Where umount(8) fails to look at the path (the filesystem answers nothing but
// errors), the kernel is asked directly. A mount whose disk has left is taken down also while somebody uses it: there is
// nothing to lose any more.
func (n *Node) unmountOne(ctx context.Context, top mount.MountInfo, path string) (err error) {
	defer n.observe("unmount", time.Now(), &err)
	klog.FromContext(ctx).V(4).Info("Unmounting", "path", path)
	gone := n.deviceGone(top, path)
	if err = n.mounter.Unmount(path); err == nil {
		return nil
	}
	flags := unix.UMOUNT_NOFOLLOW
	if gone {
		flags |= unix.MNT_DETACH
	}
	switch direct := unix.Unmount(path, flags); {
	case direct == nil:
		return nil
	case errors.Is(direct, unix.EBUSY):
		return n.inUse(top, path)
	}
	return err
}

// makeFolder makes a folder to mount a filesystem on, and the folders that it is in.
func makeFolder(path string) error {
	if err := requireNoLink(path); err != nil {
		return err
	}
	return os.MkdirAll(path, 0o750)
}

// requireNoLink refuses a path to mount at that is a symbolic link. mount(8) would follow it and mount over whatever it leads to,
// and the mount would not be found at the path when it is to be taken down. Links on the way to the path are fine: the folder of the
// kubelet may be one.
func requireNoLink(path string) error {
	info, err := os.Lstat(filepath.Clean(path))
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return fail(ErrRefused, "%s is a symbolic link, and volumes are not mounted through links; remove it", path)
	}
	return nil
}

// removePath removes an empty folder or file of ours. It never removes one with something in it: what is in there when
// nothing is mounted on it is somebody's data.
func removePath(path string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		return fail(ErrRefused, "%s is no device but a file with %d bytes, which somebody wrote when nothing was mounted there: "+
			"save them elsewhere, then remove it", path, info.Size())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
