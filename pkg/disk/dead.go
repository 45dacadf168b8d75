package disk

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	"k8s.io/mount-utils"
)

// whyDead says why the filesystem of a mount at path cannot be used any more, "" if it can. The kernel shuts a filesystem down,
// or refuses all writes to it, after an error; only mounting it again helps, after its last mount has gone.
func (n *Node) whyDead(m mount.MountInfo, path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); isShutDown(err) {
		return "was shut down after an error (" + err.Error() + ")", nil
	}
	turned, err := turnedReadOnly(m)
	if err != nil {
		return "", err
	}
	if turned {
		return "takes no more writes: the kernel made it read-only after an error", nil
	}
	if readOnly(m) || slices.Contains(m.SuperOptions, "ro") || !isExt(m.FsType) {
		return "", nil
	}
	// Kernels before 6.15 do not say of ext4 that it takes no more writes.
	if err := syncFolder(path); isShutDown(err) || errors.Is(err, unix.EROFS) {
		return "takes no more writes after an error (" + err.Error() + ")", nil
	}
	recorded, err := n.recordedErrors(m)
	if err != nil || recorded == "" || !slices.Contains(m.SuperOptions, "errors=remount-ro") {
		return "", err
	}
	// Some answer even that as if nothing had happened. It was checked before it was mounted: the errors came since.
	return "takes no more writes after an error: " + recorded, nil
}

// deadReason is whyDead for a volume whose disk may hang: it is waited for as long as the caller has patience.
func (n *Node) deadReason(ctx context.Context, m mount.MountInfo, volumeID, path string) (string, error) {
	waiting, cancel := context.WithDeadline(ctx, patienceOf(ctx))
	defer cancel()
	return look(waiting, n, volumeID, path, func(_, path string) (string, error) { return n.whyDead(m, path) })
}

// isShutDown tells whether an error is that of a filesystem that does nothing any more.
func isShutDown(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ESHUTDOWN)
}

func syncFolder(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil {
		return &fs.PathError{Op: "fsync", Path: path, Err: err}
	}
	return nil
}

// takeDownDead takes down the mounts at the paths of a filesystem that the kernel has given up, for it to be mounted again. It fails
// while anything else uses the filesystem: then the kernel would give the dead one again.
func (n *Node) takeDownDead(ctx context.Context, dead mount.MountInfo, volumeID, reason string, paths ...string) error {
	source, err := n.deviceOf(&dead)
	if err != nil {
		return err
	}
	refuse := func(users string) error {
		return fail(ErrInUse, "the filesystem of volume %s at %s %s, and cannot be mounted again while it is in use: %s. Delete the Pods "+
			"that use it, so that it is checked and mounted again", volumeID, unescape(dead.MountPoint), reason, users)
	}
	if others := otherMounts(n.mountsOf(n.stack(source)), dead, paths); len(others) > 0 {
		return refuse(strings.Join(others, "; "))
	}
	klog.FromContext(ctx).Info("Taking down a filesystem that cannot be used any more, to mount it again", "device", source.Path,
		"path", unescape(dead.MountPoint), "reason", reason)
	for _, path := range paths {
		if err := n.unmountAll(ctx, path); errors.Is(err, ErrInUse) {
			return refuse(err.Error())
		} else if err != nil {
			return err
		}
	}
	if err := n.requireReleased(ctx, source, volumeID); errors.Is(err, ErrInUse) {
		return refuse(n.describeUsers(source))
	} else if err != nil {
		return err
	}
	return nil
}

// otherMounts describes the mounts that do not go when those at the paths do. A copy of such a mount in another mount namespace goes
// along where mounts are propagated there.
func otherMounts(all []usedMount, dead mount.MountInfo, paths []string) (others []string) {
	for _, m := range all {
		goes := slices.ContainsFunc(paths, func(path string) bool {
			real, err := resolve(path)
			return err == nil && real == unescape(m.MountPoint)
		})
		if m.process != "" {
			goes = propagated(m.MountInfo, dead)
		}
		if !goes && len(others) < mostUsers {
			others = append(others, m.String())
		}
	}
	return others
}

// propagated tells whether a mount gets what happens to another: it is of the same peer group, or a slave of it (mountinfo:
// "shared:N", "master:N").
func propagated(m, from mount.MountInfo) bool {
	for _, field := range from.OptionalFields {
		if group, shared := strings.CutPrefix(field, "shared:"); shared {
			return slices.Contains(m.OptionalFields, field) || slices.Contains(m.OptionalFields, "master:"+group)
		}
	}
	return false
}

// revive mounts a staged filesystem again that the kernel has given up, after checking it: where a Pod follows another on a node,
// the kubelet publishes the volume without staging it again.
func (n *Node) revive(ctx context.Context, dead mount.MountInfo, req PublishRequest, reason string) error {
	source, err := n.deviceOf(&dead)
	if err != nil {
		return err
	}
	staged := StageRequest{Volume: req.Volume, Path: req.StagingPath, ReadOnly: readOnly(dead)}
	options := slices.Concat(req.Options, filesystemTypes[dead.FsType].mountOptions)
	if staged.ReadOnly {
		options = append(options, "ro")
	}
	paths := []string{req.StagingPath}
	if target, err := n.top(ctx, req.Path); err != nil {
		return err
	} else if target != nil && target.Major == dead.Major && target.Minor == dead.Minor {
		paths = []string{req.Path, req.StagingPath}
	}
	if err := n.takeDownDead(ctx, dead, req.Volume.ID, reason, paths...); err != nil {
		return errors.Join(err, n.stageAgain(ctx, source, req.StagingPath, dead.FsType, options))
	}
	if staged.ReadOnly {
		more, err := n.readOnlyOptions(ctx, source, dead.FsType, staged)
		if err != nil {
			return err
		}
		options = append(options, more...)
	} else if err := n.check(ctx, source, dead.FsType); err != nil {
		return err
	}
	if err := n.verifyAgain(source, req.Volume); err != nil {
		return err
	}
	return n.mountDevice(ctx, source.Path, req.StagingPath, dead.FsType, options)
}

// stageAgain mounts a dead filesystem at its staging path again, if it was taken down there and is in use elsewhere: what is staged
// stays staged.
func (n *Node) stageAgain(ctx context.Context, source Device, path, fsType string, options []string) error {
	mounts, err := mountsAt(path)
	if err != nil || len(mounts) > 0 {
		return err
	}
	return n.mountDevice(ctx, source.Path, path, fsType, options)
}

// mountedAnywhere tells whether the kernel has a filesystem of the device mounted, in whatever mount namespace. It can be mounted
// once more then, and must not be checked.
func (n *Node) mountedAnywhere(dev Device) bool {
	name, _ := n.mappingName(dev)
	on := layer{Device: dev, mapping: name}
	if n.hasSuperblock(on) {
		return true
	}
	// All filesystems that volumes have are listed there, but for those of an old kernel's own drivers for ext2 and 3.
	return errors.Is(tryExclusively(dev), unix.EBUSY) && len(n.mountsOf([]layer{on})) > 0
}

// requireUsable fails when what was just mounted at the path is a filesystem that was mounted elsewhere all along, and is not as it
// was asked for: the kernel has given it up, or has it with other options.
func (n *Node) requireUsable(ctx context.Context, source Device, req StageRequest) error {
	mounts, err := mountsAt(req.Path)
	if err != nil || len(mounts) == 0 {
		return err
	}
	top := mounts[len(mounts)-1]
	reason, err := n.deadReason(ctx, top, req.Volume.ID, req.Path)
	if err != nil {
		return err
	}
	if reason != "" {
		return fail(ErrInUse, "the filesystem of volume %s (%s) %s, and cannot be mounted again while it is in use: %s. Delete the Pods "+
			"that use it, so that it is checked and mounted again", req.Volume.ID, source.Path, reason, n.describeUsers(source))
	}
	if difference := optionConflict(top, req.Options); difference != "" {
		return fail(ErrInUse, "volume %s (%s) is in use on this node with other mount options, and a filesystem has the same for all its "+
			"mounts: %s. It is in use: %s; end that first, or ask for the same options", req.Volume.ID, source.Path, difference,
			n.describeUsers(source))
	}
	return nil
}
