package disk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// exclusivePatience is how long a disk that is to be formatted may be open exclusively elsewhere before that is a reason to refuse.
// It may be so for a moment: a program that formatted for a driver that died needs its time to end.
const exclusivePatience = 5 * time.Second

// exclusively calls do with a disk that is open exclusively: it is not mounted, not under LVM, MD or dm-crypt, and cannot be
// until do returns. No program that is started meanwhile has a copy of the descriptor, which would keep the disk from the next
// program. do runs on a thread of its own and must not start programs.
func (n *Node) exclusively(ctx context.Context, dev Device, flag int, do func(*os.File) error) error {
	err := tryOpen(ctx, dev, flag, do)
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	klog.FromContext(ctx).V(2).Info("Waiting for the disk, which is in use by something else", "device", dev.Path)
	defer doing(ctx, "waiting until "+dev.Path+" is not in use")()
	for deadline := time.Now().Add(exclusivePatience); errors.Is(err, unix.EBUSY); err = tryOpen(ctx, dev, flag, do) {
		if time.Now().After(deadline) {
			return fail(ErrRefused, "%s is in use and is not formatted: %s; end that first", dev.Path, n.describeUsers(dev))
		}
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

func tryOpen(ctx context.Context, dev Device, flag int, do func(*os.File) error) error {
	return onPrivateDescriptors(ctx, func(context.Context) error {
		fd, err := unix.Open(dev.Path, flag|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err != nil {
			return &fs.PathError{Op: "open", Path: dev.Path, Err: err}
		}
		file := os.NewFile(uintptr(fd), dev.Path)
		return errors.Join(do(file), file.Close())
	})
}

// tryExclusively opens a device exclusively for a moment: it fails with EBUSY while the device is used.
func tryExclusively(dev Device) error {
	return tryOpen(context.Background(), dev, os.O_RDONLY, func(*os.File) error { return nil })
}
