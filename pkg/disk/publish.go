package disk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	"k8s.io/mount-utils"
)

// PublishRequest asks for a staged volume at one more path.
type PublishRequest struct {
	Volume      Volume
	StagingPath string
	Path        string
	// Options are the mount options that the volume was staged with.
	Options  []string
	ReadOnly bool
	// SingleWriter refuses when the volume is published at another path already.
	SingleWriter bool
}

// Publish bind-mounts the staged filesystem at req.Path. Doing it again is fine. A filesystem that the kernel has given up after an
// error is checked and mounted again first, and refused with ErrInUse while something uses it.
func (n *Node) Publish(ctx context.Context, req PublishRequest) error {
	type publishKey struct {
		volume                 Volume
		staging, path, options string
		readOnly, singleWriter bool
	}
	key := publishKey{req.Volume, req.StagingPath, req.Path, strings.Join(req.Options, "\x00"), req.ReadOnly, req.SingleWriter}
	return n.jobs.run(withPatience(ctx), req.Volume.ID, key, func(ctx context.Context) error {
		return n.publish(ctx, req)
	})
}

func (n *Node) publish(ctx context.Context, req PublishRequest) error {
	staging, err := n.requireStaged(ctx, req)
	if err != nil {
		return err
	}
	reason, err := n.deadReason(ctx, *staging, req.Volume.ID, req.StagingPath)
	if err != nil {
		return err
	}
	if reason != "" {
		if err := n.revive(ctx, *staging, req, reason); err != nil {
			return err
		}
		if staging, err = n.requireStaged(ctx, req); err != nil {
			return err
		}
	}
	if published, err := n.published(ctx, staging, req); published || err != nil {
		return err
	}
	if req.SingleWriter {
		if err := requireUnpublished(staging, req); err != nil {
			return err
		}
	}
	if readOnly(*staging) && !req.ReadOnly {
		// A bind mount of a read-only filesystem is read-only whatever is asked; say so instead of pretending.
		klog.FromContext(ctx).V(2).Info("The volume is staged read-only, so it is published read-only", "path", req.Path)
	}
	if err := makeFolder(req.Path); err != nil {
		return err
	}
	return n.bind(ctx, req.StagingPath, req.Path, req.ReadOnly)
}

// requireStaged proves that the staging path holds the volume. A bind mount of a folder that nothing is mounted on
// would send the data to the node's own disk.
func (n *Node) requireStaged(ctx context.Context, req PublishRequest) (*mount.MountInfo, error) {
	staging, err := n.top(ctx, req.StagingPath)
	if err != nil {
		return nil, err
	}
	if staging == nil {
		return nil, fail(ErrNotStaged, "volume %s is not staged: nothing is mounted at %s; in Kubernetes, delete the Pods on this node that "+
			"use it, so that it is staged again", req.Volume.ID, req.StagingPath)
	}
	if _, err := n.holds(staging, req.Volume.ID); err != nil {
		return nil, fail(ErrNotStaged, "%s does not hold volume %s: %v", req.StagingPath, req.Volume.ID, err)
	}
	return staging, nil
}

// published tells whether the volume is at the target path already, as asked.
func (n *Node) published(ctx context.Context, staging *mount.MountInfo, req PublishRequest) (bool, error) {
	target, err := n.top(ctx, req.Path)
	if target == nil || err != nil {
		return false, err
	}
	if target.Major != staging.Major || target.Minor != staging.Minor {
		if earlier, err := n.takeDownEarlier(ctx, *target, *staging, req.Volume.ID, req.Path); earlier || err != nil {
			return false, err
		}
		return false, fail(ErrConflict, "something else than volume %s is mounted at %s: %s",
			req.Volume.ID, req.Path, target.Source)
	}
	if readOnly(*target) != (req.ReadOnly || readOnly(*staging)) {
		return false, fail(ErrConflict, "volume %s is published at %s %s, and %s was asked for",
			req.Volume.ID, req.Path, writability(readOnly(*target)), writability(req.ReadOnly))
	}
	return true, nil
}

// takeDownEarlier takes down a target that was left of an earlier attachment of the volume: it gives access to another disk than what
// is staged now, and that disk is the volume's, too. It tells whether the target was one.
func (n *Node) takeDownEarlier(ctx context.Context, target, staging mount.MountInfo, volumeID, path string) (earlier bool, err error) {
	now, err := n.diskUnder(staging, unescape(staging.MountPoint), volumeID)
	if err != nil {
		return false, err
	}
	before, err := n.diskUnder(target, path, volumeID)
	if err != nil || before.Major == now.Major && before.Minor == now.Minor {
		return false, nil //nolint:nilerr // not the volume's, or the volume in another way: the caller refuses it
	}
	klog.FromContext(ctx).Info("Taking down a target of an earlier attachment of the volume", "path", path, "device", before.Path)
	if err := n.flush(ctx, before, volumeID); err != nil {
		return false, err
	}
	return true, n.unmountAll(ctx, path)
}

// diskUnder returns the volume's disk that a mount at path gives access to.
func (n *Node) diskUnder(m mount.MountInfo, path, volumeID string) (Device, error) {
	dev, err := n.deviceUnder(m, path)
	if err != nil {
		return Device{}, err
	}
	return n.diskOf(dev, volumeID)
}

// requireUnpublished looks for the volume's root at any path but the staging path. Mounts of folders inside the volume
// are Kubernetes' subPaths, which follow their own volume's path.
func requireUnpublished(staging *mount.MountInfo, req PublishRequest) error {
	all, err := mount.ParseMountInfo(mountInfoFile)
	if err != nil {
		return err
	}
	for _, m := range all {
		same := m.Major == staging.Major && m.Minor == staging.Minor && m.Root == staging.Root
		if same && m.MountPoint != staging.MountPoint {
			return fail(ErrRefused, "volume %s may have a single writer and is published at %s already: unpublish it there first",
				req.Volume.ID, unescape(m.MountPoint))
		}
	}
	return nil
}

// bind mounts source at path as well. Read-only is set before the mount can be seen, so that a crash cannot leave one
// that can be written to.
func (n *Node) bind(ctx context.Context, source, path string, readOnly bool) (err error) {
	defer n.observe("bind", time.Now(), &err)
	klog.FromContext(ctx).V(2).Info("Bind-mounting", "source", source, "path", path, "readOnly", readOnly)
	if !readOnly {
		return n.mounter.Mount(source, path, "", []string{"bind"})
	}
	err = bindReadOnly(source, path)
	if !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// Kernels before 5.12: in two steps.
	if err := n.mounter.Mount(source, path, "", []string{"bind", "ro"}); err != nil {
		return errors.Join(err, n.unmountAll(ctx, path))
	}
	return nil
}

func bindReadOnly(source, path string) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open_tree %s: %w", source, err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return fmt.Errorf("making the mount of %s read-only: %w", source, err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting %s at %s: %w", source, path, err)
	}
	return nil
}

// Unpublish takes down everything that is mounted at path and removes the folder or file there. Nothing there is fine. What was
// written until then is on the disk when it returns, also when it fails.
func (n *Node) Unpublish(ctx context.Context, volumeID, path string) error {
	type unpublishKey struct{ path string }
	return n.jobs.run(withPatience(ctx), volumeID, unpublishKey{path}, func(ctx context.Context) error {
		return n.unpublish(ctx, volumeID, path)
	})
}

func (n *Node) unpublish(ctx context.Context, volumeID, path string) (err error) {
	if err := n.flushVolume(ctx, volumeID, path); err != nil {
		return err
	}
	defer n.flushIfFailed(ctx, volumeID, path, &err)
	if isBlockDevice(path) {
		err = n.unpublishBlock(ctx, volumeID, path)
	} else {
		err = n.unmountAll(ctx, path)
	}
	if err != nil {
		return err
	}
	return removePath(path)
}
