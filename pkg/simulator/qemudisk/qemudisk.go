//go:build linux

// Package qemudisk gives a simulator's storages real bytes, and puts them as disks into QEMU machines that run: each
// storage is a sparse file, hot-plugged, resized and unplugged over QMP as the real platform does it, with the serial
// number that the guest sees there.
//
// Below its folder:
//
//	disks/<storage UUID>.img              the bytes
//	servers/<server UUID>/qmp.sock        made by whoever runs a machine for the server: QEMU's -qmp unix:…,server=on
//
// The machine is of QEMU's type pc. A disk at virtio:N is a virtio-blk-pci in PCI slot 8+N, one at scsi:0:N a scsi-hd with
// that SCSI ID on a virtio-scsi-pci in slot 24; whoever runs the machine leaves these free, and the socket to the plane.
// Disks of a server without a machine wait for one. The package knows QEMU and nothing of the API; it starts no machine and
// ends none.
package qemudisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/internal/images"
)

const gib = 1 << 30

const (
	// DefaultReleaseTimeout is how long a guest may keep a disk that is detached.
	DefaultReleaseTimeout = 30 * time.Second
	// closeTimeout is how long the guests may keep their disks when the plane is closed.
	closeTimeout = 5 * time.Second
)

// Config says what a plane is to be. The zero value of all but Dir is of use.
type Config struct {
	// Dir is the folder, which is made if it is not there.
	Dir string
	// Keep makes the files outlive the plane, and the machines keep their disks; Plane.Keep is called first then.
	Keep bool
	// ReleaseTimeout is how long a guest may keep a disk that is detached until the detach fails; 0:
	// DefaultReleaseTimeout.
	ReleaseTimeout time.Duration
	// ErrorLog is told of failures that no request waits for; nil: they are written to standard error.
	ErrorLog func(error)
}

// Plane is a simulator.DiskPlane of QEMU machines.
type Plane struct {
	cfg    Config
	images *images.Folder

	mu       sync.Mutex
	attached map[string]string   // server by storage
	machines map[string]*machine // by server
	kept     map[string]string   // server by storage, of a former plane
}

var (
	_ simulator.DiskKeeper    = (*Plane)(nil)
	_ simulator.DiskUnplugger = (*Plane)(nil)
	_ simulator.DiskWriter    = (*Plane)(nil)
)

// New makes a plane. Unless its files are to be kept, those of a plane that was killed are removed first.
func New(cfg Config) (*Plane, error) {
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if cfg.ReleaseTimeout == 0 {
		cfg.ReleaseTimeout = DefaultReleaseTimeout
	}
	if cfg.ErrorLog == nil {
		cfg.ErrorLog = func(err error) { fmt.Fprintln(os.Stderr, "simulator:", err) }
	}
	files, err := images.Open(filepath.Join(cfg.Dir, "disks"))
	if err != nil {
		return nil, err
	}
	if !cfg.Keep {
		if err := files.RemoveAll(); err != nil {
			return nil, err
		}
	}
	p := &Plane{cfg: cfg, images: files, attached: map[string]string{}, machines: map[string]*machine{}}
	return p, os.MkdirAll(p.serversDir(), 0o755)
}

func (p *Plane) serversDir() string { return filepath.Join(p.cfg.Dir, "servers") }

// Socket is where the machine of the server is to listen for QMP.
func (p *Plane) Socket(server string) string {
	return filepath.Join(p.serversDir(), server, "qmp.sock")
}

// Keep implements simulator.DiskKeeper. A machine that has a disk of its server's already keeps it.
func (p *Plane) Keep(disks map[string]simulator.KeptDisk, create bool) (missing, unknown []string, err error) {
	p.mu.Lock()
	p.kept = map[string]string{}
	for storage, disk := range disks {
		p.kept[storage] = disk.Server
	}
	p.mu.Unlock()
	return p.images.Keep(disks, create)
}

// Create implements simulator.DiskPlane.
func (p *Plane) Create(storage string, size int) error { return p.images.Create(storage, size) }

// Write implements simulator.DiskWriter: the bytes of an import go to the beginning of the disk.
func (p *Plane) Write(ctx context.Context, storage string, from io.Reader) error {
	return p.images.Write(ctx, storage, from)
}

// Copy implements simulator.DiskPlane. What a guest has written to its disk, and not only to its own memory, is in the copy.
func (p *Plane) Copy(ctx context.Context, from, to string, size int) error {
	return p.images.Copy(ctx, from, to, size)
}

// Resize implements simulator.DiskPlane.
func (p *Plane) Resize(storage string, size int) error {
	grow := func() error { return p.images.Grow(storage, size) }
	p.mu.Lock()
	m := p.machines[p.attached[storage]]
	p.mu.Unlock()
	if m == nil {
		return grow()
	}
	return m.resize(context.Background(), storage, int64(size)*gib, grow)
}

// Attach implements simulator.DiskPlane.
func (p *Plane) Attach(ctx context.Context, server, storage, address string) error {
	if err := checkAddress(address); err != nil {
		return err
	}
	if _, err := os.Stat(p.images.Path(storage)); err != nil {
		return err
	}
	m, err := p.take(server, storage)
	if err != nil {
		return err
	}
	if err := m.add(ctx, disk{storage: storage, image: p.images.Path(storage), address: address}); err != nil {
		p.give(storage)
		return err
	}
	return nil
}

// take notes that the storage is the server's, and returns the server's machine.
func (p *Plane) take(server, storage string) (*machine, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if owner := p.attached[storage]; owner != "" {
		return nil, fmt.Errorf("disk %s is attached to server %s", storage, owner)
	}
	if p.machines == nil {
		return nil, errors.New("the plane is closed")
	}
	m := p.machines[server]
	if m == nil {
		if err := os.MkdirAll(filepath.Dir(p.Socket(server)), 0o755); err != nil {
			return nil, err
		}
		kept := map[string]bool{}
		for storage, owner := range p.kept {
			if owner == server {
				kept[storage] = true
				delete(p.kept, storage)
			}
		}
		m = startMachine(server, p.Socket(server), kept, p.cfg.ErrorLog)
		p.machines[server] = m
	}
	p.attached[storage] = server
	return m, nil
}

func (p *Plane) give(storage string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.attached, storage)
}

// machineOf returns the machine that the storage is in, nil when it is not in that server.
func (p *Plane) machineOf(server, storage string) *machine {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.attached[storage] != server {
		return nil
	}
	return p.machines[server]
}

// Unplug implements simulator.DiskUnplugger. A guest that does not let go of the disk in time keeps it.
func (p *Plane) Unplug(ctx context.Context, server, storage string) error {
	m := p.machineOf(server, storage)
	if m == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.ReleaseTimeout,
		fmt.Errorf("%s have passed", p.cfg.ReleaseTimeout))
	defer cancel()
	if err := m.remove(ctx, storage); err != nil {
		return err
	}
	p.give(storage)
	return nil
}

// Detach implements simulator.DiskPlane. The guest is told and not waited for; as long as it has the disk, no other machine
// can get it.
func (p *Plane) Detach(server, storage string) error {
	m := p.machineOf(server, storage)
	if m == nil {
		return nil
	}
	p.give(storage)
	return m.drop(context.Background(), storage)
}

// Delete implements simulator.DiskPlane.
func (p *Plane) Delete(storage string) error {
	p.mu.Lock()
	server := p.attached[storage]
	p.mu.Unlock()
	var err error
	if server != "" {
		err = p.Detach(server, storage)
	}
	return errors.Join(err, p.images.Remove(storage))
}

// Close implements simulator.DiskPlane. Folders that others put something into stay.
func (p *Plane) Close() error {
	p.mu.Lock()
	machines := p.machines
	p.machines, p.attached = nil, map[string]string{}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var ending sync.WaitGroup
	failures := make(chan error, len(machines))
	for _, m := range machines {
		ending.Go(func() {
			if !p.cfg.Keep {
				failures <- m.clear(ctx)
			}
			m.end()
		})
	}
	ending.Wait()
	close(failures)
	var errs []error
	for err := range failures {
		errs = append(errs, err)
	}
	if !p.cfg.Keep {
		errs = append(errs, p.images.RemoveMade())
	}
	for server := range machines {
		os.Remove(filepath.Dir(p.Socket(server)))
	}
	for _, dir := range []string{p.images.Dir(), p.serversDir(), p.cfg.Dir} {
		os.Remove(dir) // fails when it is not empty, and then it is not ours alone
	}
	return errors.Join(errs...)
}
