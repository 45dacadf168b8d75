//go:build linux

package loopdisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A guest that writes a partition table sees its partitions at once: udev makes a node for each, and a link beside the
// disk's. Here the kernel makes the partitions, and the plane the links, and the nodes where /dev does not.

// watcher tells when the partitions of a loop device may have changed.
type watcher struct {
	kernel  *os.File // what the kernel adds and removes
	inotify int      // descriptor of nodes
	nodes   *os.File // when somebody who wrote to a device closes it: udev, too, looks for a partition table then
	mu      sync.Mutex
	loops   map[int32]int // number of the loop device by watch
}

// newWatcher calls changed with the number of a loop device, until it is closed.
func newWatcher(changed func(number int)) (*watcher, error) {
	w := &watcher{loops: map[int32]int{}}
	var err error
	if w.kernel, err = watchPartitions(changed); err != nil {
		return nil, err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch for partition tables: %w", err), w.kernel.Close())
	}
	w.inotify, w.nodes = fd, os.NewFile(uintptr(fd), "inotify")
	go w.readNodes(changed) // ends when the file is closed
	return w, nil
}

func (w *watcher) close() error {
	if w == nil {
		return nil
	}
	return errors.Join(w.kernel.Close(), w.nodes.Close())
}

// add watches a device. The watch ends with the device's next removal, or is replaced.
func (w *watcher) add(l *loop) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	id, err := unix.InotifyAddWatch(w.inotify, l.path, unix.IN_CLOSE_WRITE)
	if err != nil {
		return fmt.Errorf("watch %s: %w", l.path, err)
	}
	w.loops[int32(id)] = l.number
	return nil
}

func (w *watcher) readNodes(changed func(number int)) {
	events := make([]byte, 16<<10)
	for {
		n, err := w.nodes.Read(events)
		if err != nil {
			return
		}
		for rest := events[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			id := int32(binary.NativeEndian.Uint32(rest))
			name := int(binary.NativeEndian.Uint32(rest[12:]))
			rest = rest[min(len(rest), unix.SizeofInotifyEvent+name):]
			w.mu.Lock()
			number, known := w.loops[id]
			w.mu.Unlock()
			if known {
				changed(number)
			}
		}
	}
}

// watchPartitions tells changed, until the file that it returns is closed, the number of each loop device on which the
// kernel added or removed something.
func watchPartitions(changed func(number int)) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("watch for partitions: %w", err)
	}
	const kernel = 1 // the group in which the kernel itself speaks
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernel}); err != nil {
		return nil, errors.Join(fmt.Errorf("watch for partitions: %w", err), unix.Close(fd))
	}
	events := os.NewFile(uintptr(fd), "uevents")
	go func() { // ends when the file is closed
		message := make([]byte, 16<<10)
		for {
			n, err := events.Read(message)
			if errors.Is(err, unix.ENOBUFS) {
				continue // some were lost
			}
			if err != nil {
				return
			}
			if number, ok := loopOf(message[:n]); ok {
				changed(number)
			}
		}
	}()
	return events, nil
}

var blockPath = regexp.MustCompile(`^[a-z]+@/devices/virtual/block/loop(\d+)(/|$)`)

// loopOf returns the loop device that a message of the kernel is about: "add@/devices/virtual/block/loop7/loop7p1", NUL, …
func loopOf(message []byte) (int, bool) {
	head, _, _ := bytes.Cut(message, []byte{0})
	found := blockPath.FindSubmatch(head)
	if found == nil {
		return 0, false
	}
	n, err := strconv.Atoi(string(found[1]))
	return n, err == nil
}

// partition is one that the kernel has found on a device.
type partition struct {
	number int
	path   string // /dev/loopNpM
	device uint64
}

func (l *loop) partitions() ([]partition, error) {
	name := filepath.Base(l.path)
	found, err := filepath.Glob("/sys/block/" + name + "/" + name + "p*/dev")
	if err != nil {
		return nil, err
	}
	var out []partition
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // gone meanwhile
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(string(text), "%d:%d", &major, &minor); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		node := filepath.Base(filepath.Dir(path))
		n, err := strconv.Atoi(strings.TrimPrefix(node, name+"p"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, partition{n, "/dev/" + node, unix.Mkdev(major, minor)})
	}
	return out, nil
}

// makeNode makes the partition's node where no devtmpfs does. It says whether it did.
func (p partition) makeNode() (made bool, err error) {
	var st unix.Stat_t
	if err := unix.Stat(p.path, &st); err == nil && st.Rdev == p.device {
		return false, nil
	}
	if err := ignoreMissing(os.Remove(p.path)); err != nil {
		return false, err // of a former partition
	}
	err = unix.Mknod(p.path, unix.S_IFBLK|0o660, int(p.device))
	if errors.Is(err, unix.EEXIST) {
		return false, nil // made meanwhile
	}
	return err == nil, err
}

// followPartitions makes links and nodes fit the partitions that the device has.
func (a *attachment) followPartitions() error {
	if a.link == "" {
		return nil
	}
	errs := []error{a.loop.addPartitions()}
	now, err := a.loop.partitions()
	errs = append(errs, err)
	there := map[string]bool{}
	for _, p := range now {
		made, err := p.makeNode()
		if made {
			a.nodes = append(a.nodes, p.path)
		}
		path := a.link + "-part" + strconv.Itoa(p.number)
		there[path] = true
		errs = append(errs, err)
		if target, _ := os.Readlink(path); target != p.path {
			errs = append(errs, link(p.path, path))
		}
	}
	links, err := filepath.Glob(a.link + "-part*")
	errs = append(errs, err)
	for _, path := range links {
		if !there[path] {
			errs = append(errs, ignoreMissing(os.Remove(path)))
		}
	}
	return errors.Join(errs...)
}

// forgetPartitions removes the links, and the nodes that followPartitions made.
func (a *attachment) forgetPartitions() error {
	links, err := filepath.Glob(a.link + "-part*")
	errs := []error{err}
	for _, path := range append(links, a.nodes...) {
		errs = append(errs, ignoreMissing(os.Remove(path)))
	}
	return errors.Join(errs...)
}
