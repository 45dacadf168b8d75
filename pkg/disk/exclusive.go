package disk

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// exclusivePatience is how long a disk that is to be formatted may be open exclusively elsewhere before that is a reason to refuse.
// It may be so for a moment: a program that is being started for another volume has a copy of all that this process has open
// until it begins (between fork and exec), and a program that formatted for a driver that died needs its time to end.
const exclusivePatience = 5 * time.Second

// openExclusively fails on a disk that is mounted, held by LVM or MD, or open exclusively elsewhere.
func openExclusively(ctx context.Context, dev Device, flag int) (file *os.File, err error) {
	err = whileBusy(ctx, dev, func() (err error) {
		file, err = os.OpenFile(dev.Path, flag|unix.O_EXCL|unix.O_CLOEXEC, 0)
		return err
	})
	return file, err
}

// writeExclusively writes through to a disk that nobody else uses, and leaves it so that the next program can have it for itself.
func writeExclusively(ctx context.Context, dev Device, offset int64, data []byte) error {
	file, err := openExclusively(ctx, dev, os.O_WRONLY)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(data, offset)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return whileBusy(ctx, dev, func() error { return tryExclusively(dev) })
}

// whileBusy does open until the device is not busy any more.
func whileBusy(ctx context.Context, dev Device, open func() error) error {
	err := open()
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	klog.FromContext(ctx).V(2).Info("Waiting for the disk, which is in use by something else", "device", dev.Path)
	for deadline := time.Now().Add(exclusivePatience); errors.Is(err, unix.EBUSY); err = open() {
		if time.Now().After(deadline) {
			return fail(ErrRefused, "%s is in use by something else on this node: not formatting it", dev.Path)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

// tryExclusively opens a device exclusively for a moment, in which no program is started that would have a copy.
func tryExclusively(dev Device) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	file, err := os.OpenFile(dev.Path, os.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return file.Close()
}
