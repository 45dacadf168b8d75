package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// lookAgain bounds the time in which a new device can go unseen when no event tells of it: sysfs has no events, and
// the /dev of a container need not be the one that udev writes to.
const lookAgain = time.Second

// Find returns the volume's disk, waiting for it to appear. The link by serial is looked at first, then all disks in
// sysfs, for where udev is slow or absent. It gives up when ctx is done (with ctx's error) or after the device timeout
// (with ErrNoDevice); both texts say what was seen.
func (n *Node) Find(ctx context.Context, vol Volume) (dev Device, err error) {
	defer n.observe("find", time.Now(), &err)
	if _, err := Serial(vol.ID); err != nil {
		return Device{}, err
	}
	if dev, err = n.lookup(vol); err == nil {
		return dev, nil
	}
	ctx, cancel := answerBefore(ctx)
	defer cancel()
	klog.FromContext(ctx).V(2).Info("Waiting for the volume's device", "seen", err.Error())
	watcher, err := n.newWatcher()
	if err != nil {
		// The kernel's limit of watchers is shared with everything on the node, and often used up.
		klog.FromContext(ctx).Info("Cannot watch for the volume's device, looking once a second instead", "reason", err.Error())
		watcher = nil
	} else {
		defer watcher.Close()
	}
	timeout := time.NewTimer(n.deviceTimeout)
	defer timeout.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		// The watch stands before the look, so that no device can slip in between.
		n.watch(watcher)
		dev, err := n.lookup(vol)
		if err == nil {
			return dev, nil
		}
		switch awaitChange(ctx, watcher, tick.C, timeout.C) {
		case changed:
		case timedOut:
			return Device{}, fail(ErrNoDevice, "the device of volume %s is not on this node after %s: %v. "+
				"Check that the storage is attached to this server, and that the server has a disk for it",
				vol.ID, n.deviceTimeout, err)
		case cancelled:
			return Device{}, fmt.Errorf("waiting for the device of volume %s: %w (%w)", vol.ID, ctx.Err(), err)
		}
	}
}

// findUsable is Find for a disk that is to be worked on: it waits until the disk can be opened, too. The kernel makes the node of
// a new disk, whose coming ends the wait of Find, a moment before there is anything behind it; and who opens the disk while its
// partitions are being read waits for that.
func (n *Node) findUsable(ctx context.Context, vol Volume) error {
	ctx, cancel := answerBefore(ctx)
	defer cancel()
	deadline := time.Now().Add(n.deviceTimeout)
	for wait := time.Millisecond; ; wait = min(2*wait, lookAgain) {
		dev, err := n.Find(ctx, vol)
		if err != nil {
			return err
		}
		_, err = look(ctx, n, vol.ID, dev.Path, func(_, path string) (opened struct{}, err error) {
			file, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return opened, err
			}
			return opened, file.Close()
		})
		switch {
		case !isGone(err):
			return err
		case time.Now().After(deadline):
			return fail(ErrNoDevice, "the device of volume %s is on this node and cannot be opened after %s: %v. "+
				"Check that the storage is attached to this server", vol.ID, n.deviceTimeout, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until the device of volume %s can be opened: %w (%w)", vol.ID, ctx.Err(), err)
		case <-time.After(wait):
		}
	}
}

type wakeup int

const (
	changed wakeup = iota
	timedOut
	cancelled
)

// awaitChange returns when something was made in a watched folder, or might have been. Writes to devices wake the
// watcher too (every line to a terminal is one), so they are passed over.
func awaitChange(ctx context.Context, watcher *fsnotify.Watcher, tick, timeout <-chan time.Time) wakeup {
	var events chan fsnotify.Event
	var errs chan error
	if watcher != nil {
		events, errs = watcher.Events, watcher.Errors
	}
	for {
		select {
		case event := <-events:
			if event.Has(fsnotify.Create) {
				return changed
			}
		case err := <-errs: // the queue of events overflowed: anything may have changed
			klog.FromContext(ctx).V(2).Info("Watching for the volume's device is disturbed", "reason", err)
			return changed
		case <-tick:
			return changed
		case <-timeout:
			return timedOut
		case <-ctx.Done():
			return cancelled
		}
	}
}

// watch watches the places where the device will appear; nil is a watcher that there is not.
func (n *Node) watch(watcher *fsnotify.Watcher) {
	if watcher == nil {
		return
	}
	watchNearest(watcher, n.deviceDir)
	watchNearest(watcher, n.devDir)
}

// watchNearest watches dir, or the nearest parent that exists: /dev/disk/by-id comes with the first disk.
func watchNearest(watcher *fsnotify.Watcher, dir string) {
	for {
		err := watcher.Add(dir)
		if err == nil || filepath.Dir(dir) == dir {
			return
		}
		dir = filepath.Dir(dir)
	}
}

// lookup looks once. Its error says for each place what was there.
func (n *Node) lookup(vol Volume) (Device, error) {
	dev, linkErr := n.lookupLink(vol)
	if linkErr == nil {
		return dev, nil
	}
	dev, sysErr := n.lookupSerial(vol)
	if sysErr == nil {
		return dev, nil
	}
	return Device{}, fmt.Errorf("%w; %w", linkErr, sysErr)
}

// lookupLink looks for the link by serial that udev makes: virtio-SERIAL, and on other buses BUS-…_SERIAL.
func (n *Node) lookupLink(vol Volume) (Device, error) {
	name, err := LinkName(vol.ID)
	if err != nil {
		return Device{}, err
	}
	dev, err := n.deviceByLink(filepath.Join(n.deviceDir, name), vol)
	if !errors.Is(err, errNoLink) {
		return dev, err
	}
	entries, readErr := os.ReadDir(n.deviceDir)
	if readErr != nil {
		return Device{}, err
	}
	for _, entry := range entries {
		name := entry.Name()
		bus := strings.HasPrefix(name, "scsi-") || strings.HasPrefix(name, "ata-") || strings.HasPrefix(name, "nvme-")
		if at := strings.LastIndexByte(name, '_'); bus && at >= 0 && MatchesSerial(name[at+1:], vol.ID) {
			return n.deviceByLink(filepath.Join(n.deviceDir, name), vol)
		}
	}
	return Device{}, err
}

var errNoLink = errors.New("no link")

func (n *Node) deviceByLink(link string, vol Volume) (Device, error) {
	dev, err := n.deviceAt(link)
	if errors.Is(err, fs.ErrNotExist) {
		if _, lerr := os.Lstat(link); lerr == nil {
			return Device{}, fmt.Errorf("%s points to nothing", link)
		}
		return Device{}, fmt.Errorf("%w %s", errNoLink, link)
	}
	if err != nil {
		return Device{}, err
	}
	if err := n.verify(dev, vol); err != nil {
		return Device{}, fmt.Errorf("%s points to the wrong device or to one that is not ready: %w", link, err)
	}
	return dev, nil
}

func (n *Node) lookupSerial(vol Volume) (Device, error) {
	want, err := Serial(vol.ID)
	if err != nil {
		return Device{}, err
	}
	names, err := n.disks()
	if err != nil {
		return Device{}, err
	}
	for _, name := range names {
		if serial, err := n.serialOf(name); err != nil || !MatchesSerial(serial, vol.ID) {
			continue
		}
		major, minor, err := n.diskNumber(name)
		if err != nil {
			return Device{}, err
		}
		dev, err := n.deviceAt(filepath.Join(n.devDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return Device{}, fmt.Errorf("the disk %s of sysfs has no node in %s: the driver's container needs the node's own /dev", name, n.devDir)
		}
		if err != nil {
			return Device{}, err
		}
		if dev.Major != major || dev.Minor != minor {
			return Device{}, fmt.Errorf("%s is not the device %d:%d that sysfs calls %s", dev.Path, major, minor, name)
		}
		return dev, n.verify(dev, vol)
	}
	return Device{}, fmt.Errorf("no disk in %s/block has the serial number %s", n.sysDir, want)
}
