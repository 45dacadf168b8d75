package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// flushPatience is how long data in memory may take to reach a disk, where the caller has no deadline.
const flushPatience = 2 * time.Minute

// leastPatience is how long a disk is waited for when the caller's deadline has passed before.
const leastPatience = 5 * time.Second

// patienceKey carries the time until which work of a job waits for a disk: a job has no deadline of its own.
type patienceKey struct{}

// withPatience has the jobs that get ctx wait for a disk until shortly before the caller's deadline, so that the caller learns
// which disk does not answer.
func withPatience(ctx context.Context) context.Context {
	patience := flushPatience
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.Until(deadline) * 9 / 10
	}
	return context.WithValue(ctx, patienceKey{}, time.Now().Add(patience))
}

// patienceOf returns until when a job waits for a disk from now on. The caller's patience may be over while other work of the
// job was waited for: that says nothing about the disk, which gets some time still.
func patienceOf(ctx context.Context) time.Time {
	until, ok := ctx.Value(patienceKey{}).(time.Time)
	switch now := time.Now(); {
	case !ok:
		return now.Add(flushPatience)
	case !until.After(now):
		return now.Add(leastPatience)
	}
	return until
}

// flushVolume writes to disk what the kernel still has in memory of the volume: on the disk that is attached now, and on the one
// that a mount at path is of, if that is another. Callers that fail to take a volume down may see its disk detached all the same
// (Nomad at once, Kubernetes after a forced detachment), and what was not written by then is lost.
//
// A disk that answers with errors is no reason to keep its mounts: that is logged. It fails when a disk does not answer.
func (n *Node) flushVolume(ctx context.Context, volumeID, path string) error {
	var disks []Device
	add := func(disk Device) {
		same := func(other Device) bool { return other.Major == disk.Major && other.Minor == disk.Minor }
		if !slices.ContainsFunc(disks, same) {
			disks = append(disks, disk)
		}
	}
	if disk, err := n.lookup(Volume{ID: volumeID}); err == nil {
		add(disk)
	}
	mounts, err := mountsAt(path)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if n.deviceGone(m, path) {
			continue
		}
		if disk, err := n.diskUnder(m, path, volumeID); err == nil {
			add(disk)
		}
	}
	for _, disk := range disks {
		if err := n.flush(ctx, disk, volumeID); err != nil {
			return err
		}
	}
	return nil
}

// flushIfFailed flushes the volume once more when it could not be taken down: its users have gone on writing while they were
// waited for, and the disk may be detached now. Use it with defer.
func (n *Node) flushIfFailed(ctx context.Context, volumeID, path string, failed *error) {
	if *failed != nil {
		*failed = errors.Join(*failed, n.flushVolume(ctx, volumeID, path))
	}
}

// flush writes to the disk what the kernel has in memory of it, of its partitions and mappings, and of the filesystems on them.
// A disk that hangs is waited for until the caller's patience ends; the flush goes on, and the next one of the same disk begins
// when it has ended.
func (n *Node) flush(ctx context.Context, disk Device, volumeID string) (err error) {
	defer n.observe("flush", time.Now(), &err)
	defer doing(ctx, "writing to "+disk.Path+" what is in memory of it")()
	began := time.Now()
	waiting, cancel := context.WithDeadline(ctx, patienceOf(ctx))
	defer cancel()
	key := fmt.Sprintf("flush %d:%d", disk.Major, disk.Minor)
	err = n.looks.run(waiting, key, new(byte), func(ctx context.Context) error {
		return n.flushStack(disk)
	})
	switch {
	case err == nil:
		return nil
	case waiting.Err() != nil && errors.Is(err, waiting.Err()):
		return fmt.Errorf("volume %s (%s) has data in memory that the disk has not taken after %s: %w; it is not taken down. "+
			"Look at the kernel's log (dmesg) of this node for errors of %s", volumeID, disk.Path,
			time.Since(began).Round(time.Second), waiting.Err(), disk.Name)
	}
	klog.FromContext(ctx).Error(err, "Data in memory could not be written to the volume", "device", disk.Path)
	return nil
}

// flushStack flushes what is on top first: what a filesystem writes passes through its mapping.
func (n *Node) flushStack(disk Device) error {
	stack := n.stack(disk)
	var errs []error
	for _, path := range n.filesystemsOn(stack) {
		errs = append(errs, syncFilesystem(path))
	}
	for _, l := range slices.Backward(stack) {
		errs = append(errs, n.syncDevice(l))
	}
	return errors.Join(errs...)
}

// filesystemsOn returns a path to each filesystem on the devices. Other mount namespaces are searched only if this one has none of them
// mounted: that takes a look at each process.
func (n *Node) filesystemsOn(stack []layer) (paths []string) {
	mounted := ownMountsOf(stack)
	if len(mounted) == 0 && slices.ContainsFunc(stack, n.hasSuperblock) {
		mounted = n.mountsOf(stack)
	}
	seen := make(map[[2]int]bool)
	for _, m := range mounted {
		if number := [2]int{m.Major, m.Minor}; !seen[number] {
			seen[number] = true
			paths = append(paths, m.reachable())
		}
	}
	return paths
}

// syncFilesystem writes the filesystem that is mounted at path to its device. A path that has gone meanwhile is fine.
func syncFilesystem(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return &fs.PathError{Op: "syncfs", Path: path, Err: err}
	}
	return nil
}

// syncDevice writes the kernel's pages of a block device to it, and those of the filesystem on it that is mounted where no path
// of this process leads (BLKFLSBUF; of btrfs only newer kernels do that).
func (n *Node) syncDevice(l layer) error {
	file, err := n.openLayer(l)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.IoctlSetInt(int(file.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return &fs.PathError{Op: "BLKFLSBUF", Path: file.Name(), Err: err}
	}
	return file.Sync()
}

// openLayer opens a device for reading. A mapping need not have its node where the kernel would make it.
func (n *Node) openLayer(l layer) (*os.File, error) {
	file, err := os.OpenFile(l.Path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) && l.mapping != "" {
		file, err = os.OpenFile(strings.Join([]string{n.devDir, "mapper", l.mapping}, "/"), os.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	return file, err
}
