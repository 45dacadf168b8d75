package disk

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// lockPatience is how long udev may take to look at a disk before work on it begins all the same.
const lockPatience = 5 * time.Second

// lockFromUdev keeps udev from a disk until release is called (systemd, "Locking Block Device Access"). Otherwise it looks at
// every disk that was written to, and has the kernel read the partition table anew: a partition that is not mounted yet is
// gone for a moment then, just when it is to be grown and mounted. Not for formatting: some mkfs lock the disk themselves.
func lockFromUdev(ctx context.Context, disk Device) (release func(), err error) {
	file, err := os.OpenFile(disk.Path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer doing(ctx, "waiting for udev to look at "+disk.Path)()
	deadline := time.Now().Add(lockPatience)
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		klog.FromContext(ctx).Info("The disk cannot be locked, going on without", "device", disk.Path, "reason", err.Error())
	}
	return func() { _ = file.Close() }, nil
}
