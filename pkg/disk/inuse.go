package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"
)

// whenReleased does take until the device is not busy any more, for as long as the kernel may need to let go of a mount
// that was just taken down elsewhere. Then it fails, and says who has the device.
func (n *Node) whenReleased(ctx context.Context, dev Device, volumeID string, take func() (busy bool, err error)) error {
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
	users := n.users(dev)
	if len(users) == 0 {
		users = []string{fmt.Sprintf("something that cannot be seen from here: on the node, run "+
			"grep %s /proc/*/mountinfo, and lsof %s", filepath.Base(dev.Path), dev.Path)}
	}
	return fail(ErrInUse, "volume %s (%s) is taken down here and still in use: %s. Data may be lost if it is detached now",
		volumeID, dev.Path, strings.Join(users, "; "))
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

// users tells who uses a device, as far as it can be seen from here: mounts in this and in other mount namespaces,
// devices on top, swap.
func (n *Node) users(dev Device) []string {
	stack := n.stack(dev)
	users := n.mountUsers(stack)
	for _, part := range stack {
		if part.Name != dev.Name && part.mapping != "" {
			users = append(users, "the mapping "+part.mapping)
		}
	}
	return append(users, swapUsers(stack)...)
}

// layer is a device of a stack.
type layer struct {
	Device
	mapping string // name of the mapping, "" for disks and partitions
}

// stack returns the device, its partitions and everything that is on top of them.
func (n *Node) stack(dev Device) []layer {
	name, _ := n.mappingName(dev)
	found := []layer{{Device: dev, mapping: name}}
	for i := 0; i < len(found) && len(found) < 256; i++ {
		dir := n.numberDir(found[i].Major, found[i].Minor)
		partitions, _ := filepath.Glob(filepath.Join(dir, found[i].Name+"*", "partition"))
		holders, _ := filepath.Glob(filepath.Join(dir, "holders", "*", "dev"))
		for _, file := range slices.Concat(partitions, holders) {
			on, err := n.deviceIn(filepath.Dir(file))
			known := func(l layer) bool { return l.Major == on.Major && l.Minor == on.Minor }
			if err != nil || slices.ContainsFunc(found, known) {
				continue
			}
			name, _ := n.mappingName(on)
			found = append(found, layer{Device: on, mapping: name})
		}
	}
	return found
}

// onStack tells whether a mount is of a filesystem on one of the devices.
func onStack(m mount.MountInfo, stack []layer) bool {
	return slices.ContainsFunc(stack, func(l layer) bool {
		if m.FsType == "btrfs" { // whose number is of the kernel's own making
			return m.Source == l.Path || m.Source == "/dev/"+l.Name || l.mapping != "" && m.Source == "/dev/mapper/"+l.mapping
		}
		return m.Major == l.Major && m.Minor == l.Minor
	})
}

// mostUsers is how many users an error names.
const mostUsers = 5

// mountUsers lists the mounts of the devices, in this mount namespace and, where this process may see the others, in
// theirs: each namespace once, with a process that is in it.
func (n *Node) mountUsers(stack []layer) (users []string) {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	seen := map[string]bool{own: true}
	add := func(infos []mount.MountInfo, by string) {
		for _, m := range infos {
			if onStack(m, stack) && len(users) < mostUsers {
				users = append(users, "mounted at "+unescape(m.MountPoint)+by)
			}
		}
	}
	if infos, err := mount.ParseMountInfo(mountInfoFile); err == nil {
		add(infos, "")
	}
	namespaces, _ := filepath.Glob("/proc/[0-9]*/ns/mnt")
	for _, link := range namespaces {
		namespace, err := os.Readlink(link)
		if err != nil || seen[namespace] {
			continue
		}
		seen[namespace] = true
		process := filepath.Dir(filepath.Dir(link))
		infos, err := mount.ParseMountInfo(filepath.Join(process, "mountinfo"))
		if err != nil {
			continue
		}
		comm, _ := readText(filepath.Join(process, "comm"))
		add(infos, fmt.Sprintf(" in the mount namespace of process %s (%s)", filepath.Base(process), comm))
	}
	return users
}

func swapUsers(stack []layer) (users []string) {
	text, err := readText("/proc/swaps")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, " ")
		for _, l := range stack {
			if name == l.Path || name == "/dev/"+l.Name {
				users = append(users, "swap on "+name)
			}
		}
	}
	return users
}

// isGone tells whether an error says that a device has left the machine.
func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOMEDIUM)
}
