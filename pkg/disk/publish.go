package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	ReadOnly    bool
	// SingleWriter refuses when the volume is published at another path already.
	SingleWriter bool
}

// Publish bind-mounts the staged filesystem at req.Path. Doing it again is fine.
func (n *Node) Publish(ctx context.Context, req PublishRequest) error {
	type key struct{ PublishRequest }
	return n.jobs.run(ctx, req.Volume.ID, key{req}, func(ctx context.Context) error {
		return n.publish(ctx, req)
	})
}

func (n *Node) publish(ctx context.Context, req PublishRequest) error {
	staging, err := n.requireStaged(ctx, req)
	if err != nil {
		return err
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
	if err := os.MkdirAll(req.Path, 0o750); err != nil {
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
		return nil, fail(ErrNotStaged, "volume %s is not staged: nothing is mounted at %s", req.Volume.ID, req.StagingPath)
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
		return false, fail(ErrConflict, "something else than volume %s is mounted at %s: %s",
			req.Volume.ID, req.Path, target.Source)
	}
	if readOnly(*target) != (req.ReadOnly || readOnly(*staging)) {
		return false, fail(ErrConflict, "volume %s is published at %s %s, and %s was asked for",
			req.Volume.ID, req.Path, writability(readOnly(*target)), writability(req.ReadOnly))
	}
	return true, nil
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

// Unpublish takes down everything that is mounted at path and removes the folder or file there. Nothing there is fine.
func (n *Node) Unpublish(ctx context.Context, volumeID, path string) error {
	type unpublishKey struct{ path string }
	return n.jobs.run(ctx, volumeID, unpublishKey{path}, func(ctx context.Context) error {
		var st unix.Stat_t
		takeDown := n.unmountAll
		if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
			takeDown = func(ctx context.Context, path string) error { return n.unpublishBlock(ctx, volumeID, path) }
		}
		if err := takeDown(ctx, path); err != nil {
			return err
		}
		return removePath(path)
	})
}
