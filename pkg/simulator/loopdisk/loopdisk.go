//go:build linux

// Package loopdisk gives a simulator's storages real bytes: each is a sparse file, and while it is attached to a
// server a loop device, found through a link of the name that udev makes for the real disk.
//
// Below its folder:
//
//	disks/<storage UUID>.img                         the bytes
//	servers/<server UUID>/by-id/virtio-<20 hex>      link to /dev/loopN, of disks on the virtio bus
//	                            virtio-<20 hex>-part1  link to /dev/loopNp1, while the disk has that partition
//
// Whoever runs a machine for the server mounts its by-id folder over the machine's /dev/disk/by-id. The package knows
// Linux and nothing of the API; it touches no loop device but those it made.
package loopdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/internal/images"
)

// Plane is a simulator.DiskPlane on loop devices.
type Plane struct {
	dir     string
	keeps   bool     // the files outlive the plane
	watcher *watcher // of partitions

	images *images.Folder

	mu       sync.Mutex
	attached map[string]*attachment // by storage UUID
	servers  map[string]bool        // whose folders this plane made
	found    map[string][]int       // loop devices, by image, of a former plane: taken over when their disks are attached
}

type attachment struct {
	server string
	loop   *loop
	link   string   // empty: none
	nodes  []string // of partitions, that the plane made
}

var (
	_ simulator.DiskKeeper = (*Plane)(nil)
	_ simulator.DiskWriter = (*Plane)(nil)
)

// New returns a plane that keeps its files below dir, which is made if it is not there. It needs root and
// /dev/loop-control. Links and loop devices of a plane that was killed, and whose files are below the same folder, are
// removed first.
func New(dir string) (simulator.DiskPlane, error) {
	p, err := open(dir)
	if err != nil {
		return nil, err
	}
	return p, errors.Join(p.removeLeftovers(), p.begin())
}

// Open returns a plane whose files outlive it: Keep says which of those that are there already are disks. Loop devices
// that a former plane left, because machines use them, are taken over.
func Open(dir string) (simulator.DiskKeeper, error) {
	p, err := open(dir)
	if err != nil {
		return nil, err
	}
	p.keeps = true
	return p, errors.Join(p.removeLinks(), p.begin())
}

func open(dir string) (*Plane, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("loop devices need root: run as root, or without disks")
	}
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop devices are not available: %w: load the kernel module loop, or run without disks", err)
	}
	control.Close()
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	files, err := images.Open(filepath.Join(dir, "disks"))
	if err != nil {
		return nil, err
	}
	return &Plane{dir: dir, images: files, attached: map[string]*attachment{}, servers: map[string]bool{}}, nil
}

func (p *Plane) begin() (err error) {
	if err := os.MkdirAll(p.serversDir(), 0o755); err != nil {
		return err
	}
	p.watcher, err = newWatcher(p.partitionsChanged)
	return err
}

// partitionsChanged is called when the kernel added or removed something on a loop device.
func (p *Plane) partitionsChanged(number int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.attached {
		if a.loop.number == number {
			_ = a.followPartitions() // an error here is one of a link; the next change tries again
		}
	}
}

func (p *Plane) serversDir() string { return filepath.Join(p.dir, "servers") }

func (p *Plane) byID(server string) string { return filepath.Join(p.serversDir(), server, "by-id") }

// removeLeftovers frees what a killed plane left below the folder: loop devices whose file lies there, links, files.
func (p *Plane) removeLeftovers() error {
	loops, err := loopsBelow(p.images.Dir())
	errs := []error{err}
	for image, numbers := range loops {
		for _, n := range numbers {
			errs = append(errs, pullNumber(n, image))
		}
	}
	return errors.Join(append(errs, p.images.RemoveAll(), p.removeLinks())...)
}

func (p *Plane) removeLinks() error {
	links, err := filepath.Glob(filepath.Join(p.serversDir(), "*", "by-id", "virtio-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range links {
		errs = append(errs, ignoreMissing(os.Remove(path)))
	}
	return errors.Join(errs...)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Keep implements simulator.DiskKeeper.
func (p *Plane) Keep(disks map[string]simulator.KeptDisk, create bool) (missing, unknown []string, err error) {
	if p.found, err = loopsBelow(p.images.Dir()); err != nil {
		return nil, nil, err
	}
	for image, numbers := range p.found {
		if disks[p.images.Storage(image)].Server != "" {
			continue // Attach takes it over
		}
		for _, n := range numbers {
			err = errors.Join(err, pullNumber(n, image))
		}
	}
	missing, unknown, keepErr := p.images.Keep(disks, create)
	return missing, unknown, errors.Join(err, keepErr)
}

// Create implements simulator.DiskPlane.
func (p *Plane) Create(storage string, size int) error { return p.images.Create(storage, size) }

// Write implements simulator.DiskWriter: the bytes of an import go to the beginning of the disk.
func (p *Plane) Write(ctx context.Context, storage string, from io.Reader) error {
	return p.images.Write(ctx, storage, from)
}

// Copy implements simulator.DiskPlane. The file is filled in place, so that a disk that is restored while it is
// attached to a stopped server stays the same device.
func (p *Plane) Copy(ctx context.Context, from, to string, size int) error {
	p.mu.Lock()
	source, target := p.attached[from], p.attached[to]
	p.mu.Unlock()
	if source != nil {
		if err := source.loop.sync(); err != nil {
			return err
		}
	}
	if err := p.images.Copy(ctx, from, to, size); err != nil {
		return err
	}
	if target != nil {
		return target.loop.forget()
	}
	return nil
}

// Resize implements simulator.DiskPlane.
func (p *Plane) Resize(storage string, size int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.images.Grow(storage, size); err != nil {
		return err
	}
	if a := p.attached[storage]; a != nil {
		return a.loop.updateCapacity()
	}
	return nil
}

// Attach implements simulator.DiskPlane.
func (p *Plane) Attach(ctx context.Context, server, storage, address string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.attached[storage]; a != nil {
		return fmt.Errorf("disk %s is attached to server %s", storage, a.server)
	}
	if err := os.MkdirAll(p.byID(server), 0o755); err != nil {
		return err
	}
	p.servers[server] = true
	l, err := p.loopOf(storage)
	if err != nil {
		return err
	}
	a := &attachment{server: server, loop: l}
	p.attached[storage] = a
	if !strings.HasPrefix(address, "virtio:") {
		return nil
	}
	a.link = filepath.Join(p.byID(server), LinkName(storage))
	if err := errors.Join(link(l.path, a.link), p.watcher.add(l), a.followPartitions()); err != nil {
		return errors.Join(err, p.detach(storage, a))
	}
	return nil
}

// loopOf makes a loop device of the disk, or takes over the one that there is.
func (p *Plane) loopOf(storage string) (*loop, error) {
	image := p.images.Path(storage)
	numbers := p.found[image]
	delete(p.found, image)
	for _, n := range numbers {
		if l, err := adoptLoop(n, image); err == nil {
			return l, nil
		}
	}
	return attachLoop(image)
}

// LinkName is the name of the link that leads to a disk on the virtio bus: the disk's serial is the first 20
// hexadecimal digits of the storage's UUID.
func LinkName(storage string) string {
	return "virtio-" + strings.ReplaceAll(storage, "-", "")[:20]
}

// link makes a link appear at once: whoever watches the folder never sees one that leads elsewhere.
func link(target, path string) error {
	temporary := path + ".new"
	if err := ignoreMissing(os.Remove(temporary)); err != nil {
		return err
	}
	if err := os.Symlink(target, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// Detach implements simulator.DiskPlane. The disk goes whether or not it is in use: see loop.pull. It can be attached
// elsewhere at once, for the former device no longer reaches the file.
func (p *Plane) Detach(server, storage string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.attached[storage]
	if a == nil || a.server != server {
		return nil
	}
	return p.detach(storage, a)
}

func (p *Plane) detach(storage string, a *attachment) error {
	delete(p.attached, storage)
	return errors.Join(a.unlink(), a.loop.pull())
}

func (a *attachment) unlink() error {
	if a.link == "" {
		return nil
	}
	return errors.Join(a.forgetPartitions(), ignoreMissing(os.Remove(a.link)))
}

// Delete implements simulator.DiskPlane.
func (p *Plane) Delete(storage string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	if a := p.attached[storage]; a != nil {
		err = p.detach(storage, a)
	}
	return errors.Join(err, p.images.Remove(storage))
}

// Close implements simulator.DiskPlane. Folders that others put something into stay, and with Open the files; a device
// that a machine uses then stays until the machine lets go of it, or the next plane takes it over.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	errs := []error{p.watcher.close()}
	p.watcher = nil
	for storage, a := range p.attached {
		if p.keeps {
			errs = append(errs, a.unlink(), a.loop.release())
			continue
		}
		errs = append(errs, p.detach(storage, a))
	}
	p.attached = map[string]*attachment{}
	if !p.keeps {
		errs = append(errs, p.images.RemoveMade())
	}
	for server := range p.servers {
		os.Remove(p.byID(server))
		os.Remove(filepath.Dir(p.byID(server)))
	}
	for _, d := range []string{p.images.Dir(), p.serversDir(), p.dir} {
		os.Remove(d) // fails when it is not empty, and then it is not ours alone
	}
	p.servers = map[string]bool{}
	return errors.Join(errs...)
}
