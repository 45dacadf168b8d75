package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// GrowRequest asks that a mounted volume use all of its disk.
type GrowRequest struct {
	// Volume's size is what the disk must have by now; 0 takes it as it is.
	Volume Volume
	// Path is where the volume is mounted, or where the node of a raw block device is.
	Path string
	// StagingPath is where the volume is staged, "" if the caller does not know. The filesystem is grown there when Path is mounted
	// read-only.
	StagingPath string
	// Encryption is needed where the volume is encrypted and its key is in the kernel's keyring, which is where others than
	// this driver may have put it.
	Encryption *Encryption
}

// Grow makes the volume's filesystem as large as its disk, and the partition before, where it lies on one; it returns the
// disk's size in bytes. It waits until the kernel has seen the disk's new size. Doing it again is fine. A raw block device
// has nothing to grow: its size is checked.
func (n *Node) Grow(ctx context.Context, req GrowRequest) (size int64, err error) {
	mounted, err := n.mountedAt(ctx, req)
	if err != nil {
		return 0, err
	}
	disk, err := n.awaitSize(ctx, mounted.disk, req.Volume)
	if err != nil || mounted.block && mounted.device == mounted.disk {
		return disk.SizeBytes, err
	}
	type growKey struct {
		volume        Volume
		path, staging string
		encryption    [sha256.Size]byte
	}
	key := growKey{req.Volume, req.Path, req.StagingPath, req.Encryption.fingerprint()}
	return disk.SizeBytes, n.jobs.run(ctx, req.Volume.ID, key, func(ctx context.Context) error {
		if mounted.block {
			return n.growMapping(ctx, disk, mounted.device, req.Volume.ID, req.Encryption)
		}
		return n.growMounted(ctx, req, true)
	})
}

// mounted is a volume at a path.
type mounted struct {
	disk   Device // the whole disk
	device Device // what is at the path, if that is a device node: the disk, or its mapping
	block  bool   // the path is a device node
}

// mountedAt proves that the path holds the volume.
func (n *Node) mountedAt(ctx context.Context, req GrowRequest) (mounted, error) {
	if _, err := Serial(req.Volume.ID); err != nil {
		return mounted{}, fail(ErrNotMounted, "%v", err)
	}
	var st unix.Stat_t
	err := unix.Stat(req.Path, &st)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return mounted{}, fail(ErrNotMounted, "volume %s is not at %s: there is no such path", req.Volume.ID, req.Path)
	case err != nil:
		return mounted{}, &fs.PathError{Op: "stat", Path: req.Path, Err: err}
	case st.Mode&unix.S_IFMT == unix.S_IFBLK:
		var disk Device
		device, err := n.deviceByNumber(int(unix.Major(st.Rdev)), int(unix.Minor(st.Rdev)))
		if err == nil {
			disk, err = n.diskOf(device, req.Volume.ID)
		}
		if err != nil {
			return mounted{}, fail(ErrNotMounted, "volume %s is not at %s: %v", req.Volume.ID, req.Path, err)
		}
		return mounted{disk: disk, device: device, block: true}, nil
	}
	top, err := n.top(ctx, req.Path)
	if err != nil {
		return mounted{}, err
	}
	if top == nil {
		return mounted{}, fail(ErrNotMounted, "volume %s is not at %s: nothing is mounted there", req.Volume.ID, req.Path)
	}
	disk, err := n.holds(top, req.Volume.ID)
	if err != nil {
		return mounted{}, fail(ErrNotMounted, "volume %s is not at %s: %v", req.Volume.ID, req.Path, err)
	}
	return mounted{disk: disk}, nil
}

// awaitSize waits until the kernel has seen the size that the disk must have. virtio disks tell of their growth
// themselves, SCSI ones are asked to look. A disk that is too small for another reason stays so, and callers try again in any case:
// the wait is short.
func (n *Node) awaitSize(ctx context.Context, disk Device, volume Volume) (Device, error) {
	began := time.Now()
	deadline := began.Add(n.resizeTimeout)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, lookAgain) {
		now, err := n.deviceByNumber(disk.Major, disk.Minor)
		if err != nil {
			return Device{}, err
		}
		if now.SizeBytes >= volume.SizeBytes {
			return now, nil
		}
		if time.Now().After(deadline) {
			return now, fail(ErrNotGrown, "%s, the disk of volume %s, has %d bytes after %s, and %d were asked for. Compare the "+
				"storage's size in UpCloud: if it is smaller, too, nothing has grown it, and the PersistentVolume's capacity is wrong (do two "+
				"PersistentVolumes name the same storage?); if it is right, restart the server, so that the node sees it",
				now.Path, volume.ID, now.SizeBytes, time.Since(began).Round(time.Second), volume.SizeBytes)
		}
		n.rescan(ctx, now)
		select {
		case <-ctx.Done():
			return now, fmt.Errorf("waiting for %s to have %d bytes, it has %d: %w", now.Path, volume.SizeBytes, now.SizeBytes, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func (n *Node) rescan(ctx context.Context, disk Device) {
	file := filepath.Join(n.sysDir, "block", disk.Name, "device", "rescan")
	if err := os.WriteFile(file, []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		klog.FromContext(ctx).V(2).Info("The disk cannot be told to look at its size", "device", disk.Path, "reason", err.Error())
	}
}

// growMounted grows what is mounted at path to the size of what it lies on; with partition, that one first to the size
// of the disk.
func (n *Node) growMounted(ctx context.Context, req GrowRequest, partition bool) (err error) {
	volumeID, path := req.Volume.ID, req.Path
	top, err := n.top(ctx, path)
	if err != nil {
		return err
	}
	if top == nil {
		return fail(ErrNotMounted, "volume %s is not at %s: nothing is mounted there", volumeID, path)
	}
	disk, err := n.holds(top, volumeID)
	if err != nil {
		return fail(ErrNotMounted, "volume %s is not at %s: %v", volumeID, path, err)
	}
	if slices.Contains(top.SuperOptions, "ro") {
		klog.FromContext(ctx).Info("The filesystem is read-only, so it is not grown", "path", path)
		return nil
	}
	device, err := n.deviceOf(top)
	if err != nil {
		return err
	}
	mapping, err := n.mappingName(device)
	if err != nil {
		return err
	}
	switch {
	case mapping != "":
		if err := n.growMapping(ctx, disk, device, volumeID, req.Encryption); err != nil {
			return err
		}
		if device, err = n.deviceByNumber(device.Major, device.Minor); err != nil {
			return err
		}
	case device.Name != disk.Name && partition:
		if device, err = n.growOnlyPartition(ctx, disk, device, volumeID); err != nil {
			return err
		}
	}
	at, err := growablePath(*top, path, req.StagingPath)
	if err != nil {
		return err
	}
	return n.growFilesystem(ctx, device, top.FsType, at)
}

// slack is how much of a device a filesystem may leave unused when it is as large as it can be.
const slack = 4 << 20

func (n *Node) growOnlyPartition(ctx context.Context, disk, partition Device, volumeID string) (Device, error) {
	if disk.SizeBytes-partition.SizeBytes <= slack {
		return partition, nil
	}
	if _, err := n.onlyPartition(disk, content{partitionTable: "partitions"}, volumeID); err != nil {
		return Device{}, err
	}
	klog.FromContext(ctx).Info("Growing the partition", "device", partition.Path, "bytes", partition.SizeBytes,
		"diskBytes", disk.SizeBytes)
	if err := growPartition(disk, 1); err != nil {
		return Device{}, err
	}
	return n.deviceByNumber(partition.Major, partition.Minor)
}

// growBeforeMount is for a volume about to be mounted: a copy may be larger than its source, and a growth may have been
// interrupted. The partition is the driver's to change where the disk is a copy that it asked for. What can be grown
// while it is mounted is left for then, as that takes no full check before.
func (n *Node) growBeforeMount(ctx context.Context, disk, source Device, fsType string, req StageRequest) (grown Device, err error) {
	if asksReadOnly(req.Options) {
		return source, nil
	}
	if req.Encryption == nil && source.Name != disk.Name && req.Origin != "" {
		if source, err = n.growOnlyPartition(ctx, disk, source, req.Volume.ID); err != nil {
			return Device{}, err
		}
	}
	if !isExt(fsType) || mayGrowMountedExt() || n.mountedAnywhere(source) {
		return source, nil
	}
	larger, err := n.largerThanFilesystem(source, fsType)
	if err != nil || !larger {
		return source, err
	}
	defer n.observe("grow", time.Now(), &err)
	klog.FromContext(ctx).Info("Checking and growing the filesystem before it is mounted", "device", source.Path)
	for _, args := range [][]string{{"e2fsck", "-f", "-p", source.Path}, {"resize2fs", source.Path}} {
		output, status, err := command(ctx, args[0], args[1:]...)
		if err != nil {
			return Device{}, err
		}
		if status != 0 && (args[0] != "e2fsck" || status&^fsckCorrected != 0) {
			return Device{}, commandError(args[0], args[1:], status, output)
		}
	}
	return source, nil
}

// growStaged grows what has just been mounted. What cannot be grown here can be used all the same.
func (n *Node) growStaged(ctx context.Context, req StageRequest) error {
	err := n.growMounted(ctx, GrowRequest{Volume: req.Volume, Path: req.Path, Encryption: req.Encryption}, false)
	if errors.Is(err, ErrRefused) {
		klog.FromContext(ctx).Info("The filesystem is smaller than its disk", "path", req.Path, "reason", err.Error())
		return nil
	}
	return err
}

func isExt(fsType string) bool { return strings.HasPrefix(fsType, "ext") }

// mayGrowMountedExt reports whether this process has CAP_SYS_RESOURCE, without which the kernel grows no mounted ext2, 3
// or 4 (ext4_resize_begin).
func mayGrowMountedExt() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return true // the kernel says no by itself
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

func (n *Node) largerThanFilesystem(device Device, fsType string) (bool, error) {
	has, err := filesystemBytes(device.Path, fsType)
	return device.SizeBytes-has > slack, err
}
