package disk

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// whenReleased does take until the device is not busy any more, for as long as the kernel may need to let go of a mount
// that was just taken down elsewhere. Then it fails, and says who has the device.
func (n *Node) whenReleased(ctx context.Context, dev Device, volumeID string, take func() (busy bool, err error)) error {
	defer doing(ctx, "waiting until "+dev.Path+" is not in use")()
	deadline := time.Now().Add(n.releaseTimeout)
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, lookAgain) {
		busy, err := take()
		if err != nil || !busy {
			return err
		}
		if !time.Now().Before(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(wait, time.Until(deadline))):
		}
	}
	return fail(ErrInUse, "volume %s (%s) is unmounted here and still in use: %s; end that first. What is written from now on may be "+
		"lost if the volume is detached", volumeID, dev.Path, n.describeUsers(dev))
}

// requireReleased proves that nobody on this machine uses the volume's disk any more: opening it exclusively fails while a
// filesystem on it is mounted in any mount namespace, and while a mapping, swap or an array is on it.
func (n *Node) requireReleased(ctx context.Context, disk Device, volumeID string) error {
	return n.whenReleased(ctx, disk, volumeID, func() (busy bool, err error) {
		switch err := tryExclusively(disk); {
		case errors.Is(err, unix.EBUSY):
			return true, nil
		case isGone(err):
			return false, nil
		default:
			return false, err
		}
	})
}

// explainBusy makes the failure of a program or of the kernel one that says who uses the device, if something does. A failure with
// a kind has its reason already.
func (n *Node) explainBusy(err error, dev Device, volumeID string) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	busy := errors.Is(tryExclusively(dev), unix.EBUSY)
	for _, part := range n.stack(dev) {
		busy = busy || errors.Is(tryExclusively(part.Device), unix.EBUSY)
	}
	if !busy {
		return err
	}
	return fail(ErrInUse, "volume %s (%s) is in use on this node: %s; end that first. %v", volumeID, dev.Path, n.describeUsers(dev), err)
}

// isGone tells whether an error says that a device has left the machine.
func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOMEDIUM)
}
