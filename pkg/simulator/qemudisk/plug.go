//go:build linux

package qemudisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Names of ours in QEMU. A block node's name has 31 characters at most.
const (
	devicePrefix = "disk-"
	nodePrefix   = "storage-"
	nodeDigits   = 22
	controllerID = "storage-scsi" // the controller of disks at scsi:0:N
)

func deviceID(storage string) string { return devicePrefix + storage }

func nodeName(storage string) string {
	return nodePrefix + strings.ReplaceAll(storage, "-", "")[:nodeDigits]
}

// Serial is what the guest sees as the disk's serial number: the first 20 hexadecimal digits of the storage's UUID.
func Serial(storage string) string { return strings.ReplaceAll(storage, "-", "")[:20] }

const (
	firstSlot      = 8  // PCI slot of virtio:0
	controllerSlot = 24 // PCI slot of the controller of disks at scsi:0:N
	pciBus         = "pci.0"
)

// checkAddress refuses device addresses at which no disk can be put into a running machine.
func checkAddress(address string) error {
	bus, _, _ := strings.Cut(address, ":")
	if bus != "virtio" && bus != "scsi" {
		return fmt.Errorf("a disk cannot be at %s in a machine that runs: use the bus virtio or scsi", address)
	}
	if _, err := position(address); err != nil {
		return fmt.Errorf("the device address %q has no number: %w", address, err)
	}
	return nil
}

// position is the last number of a device address.
func position(address string) (int, error) {
	return strconv.Atoi(address[strings.LastIndex(address, ":")+1:])
}

// disk is a storage as a machine is to have it.
type disk struct {
	storage string
	image   string // path
	address string // virtio:1
}

// add makes a disk one of the machine's. Where there is no machine, the one that comes gets it.
func (m *machine) add(ctx context.Context, d disk) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	client, err := m.connect(ctx)
	if client == nil && err != nil {
		return err
	}
	m.tell(err) // about other disks
	if client != nil {
		m.tidy(ctx)
		if err := m.plugOrKeep(ctx, d); err != nil {
			return err
		}
	}
	m.wanted[d.storage] = d
	delete(m.kept, d.storage)
	return nil
}

// plugOrKeep makes the guest have the disk, which a former plane may have plugged. mu is held.
func (m *machine) plugOrKeep(ctx context.Context, d disk) error {
	if m.kept[d.storage] && m.has(d.storage) {
		return m.resizePlugged(ctx, d)
	}
	return m.plug(ctx, d)
}

// plug makes the disk appear in the guest. mu is held.
func (m *machine) plug(ctx context.Context, d disk) error {
	if m.leaving[d.storage] {
		return errors.New("the guest has not let go of the disk yet since it was last detached")
	}
	node := map[string]any{
		"node-name": nodeName(d.storage), "driver": "raw", "discard": "unmap",
		"file": map[string]any{"driver": "file", "filename": d.image, "discard": "unmap"},
	}
	if err := m.client.ask(ctx, nil, "blockdev-add", node); err != nil {
		return err
	}
	device, err := m.deviceOf(ctx, d)
	if err == nil {
		m.notePlugged(d.storage, true) // before the answer: the guest may be quicker
		err = m.client.ask(ctx, nil, "device_add", device)
	}
	if err == nil {
		return nil
	}
	m.notePlugged(d.storage, false)
	return errors.Join(err, m.client.ask(ctx, nil, "blockdev-del", map[string]any{"node-name": nodeName(d.storage)}))
}

func (m *machine) notePlugged(storage string, yes bool) {
	m.state.Lock()
	defer m.state.Unlock()
	delete(m.plugged, storage)
	if yes {
		m.plugged[storage] = true
	}
}

// deviceOf describes the disk as a device of QEMU's, and makes the controller that it needs.
func (m *machine) deviceOf(ctx context.Context, d disk) (map[string]any, error) {
	number, err := position(d.address)
	if err != nil {
		return nil, err
	}
	device := map[string]any{"id": deviceID(d.storage), "drive": nodeName(d.storage), "serial": Serial(d.storage)}
	if strings.HasPrefix(d.address, "virtio:") {
		device["driver"], device["bus"], device["addr"] = "virtio-blk-pci", pciBus, slot(firstSlot+number)
		return device, nil
	}
	device["driver"], device["bus"] = "scsi-hd", controllerID+".0"
	device["channel"], device["scsi-id"], device["lun"] = 0, number, 0
	return device, m.needController(ctx)
}

// slot is a PCI slot as QEMU reads it.
func slot(number int) string { return fmt.Sprintf("%#x", number) }

func (m *machine) needController(ctx context.Context) error {
	var peripherals []struct{ Name string }
	if err := m.client.ask(ctx, &peripherals, "qom-list", map[string]any{"path": "/machine/peripheral"}); err != nil {
		return err
	}
	for _, p := range peripherals {
		if p.Name == controllerID {
			return nil
		}
	}
	return m.client.ask(ctx, nil, "device_add", map[string]any{
		"driver": "virtio-scsi-pci", "id": controllerID, "bus": pciBus, "addr": slot(controllerSlot),
	})
}

// resize makes the image so many bytes large and has the guest told; grow does it where no machine has the disk.
func (m *machine) resize(ctx context.Context, storage string, size int64, grow func() error) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil || !m.has(storage) {
		return grow()
	}
	err := m.client.ask(ctx, nil, "block_resize", map[string]any{"node-name": nodeName(storage), "size": size})
	if errors.Is(err, errGone) {
		return grow()
	}
	return err
}

// resizePlugged tells the guest of the size that the image has.
func (m *machine) resizePlugged(ctx context.Context, d disk) error {
	st, err := os.Stat(d.image)
	if err != nil {
		return err
	}
	return m.client.ask(ctx, nil, "block_resize", map[string]any{"node-name": nodeName(d.storage), "size": st.Size()})
}

// askToRelease has the guest told that the disk is to go. mu is held.
func (m *machine) askToRelease(ctx context.Context, storage string) error {
	if m.client == nil || !m.has(storage) {
		return nil
	}
	m.state.Lock()
	delete(m.refused, storage)
	m.state.Unlock()
	err := m.client.ask(ctx, nil, "device_del", map[string]any{"id": deviceID(storage)})
	var refusal *qmpError
	switch {
	case errors.As(err, &refusal) && refusal.Class == classNoDevice:
		m.notePlugged(storage, false)
	case errors.As(err, &refusal) && m.leaving[storage]: // QEMU: it has been asked before
	case errors.Is(err, errGone):
		return nil
	case err != nil:
		return err
	}
	m.leaving[storage] = true
	return nil
}

// drop makes the disk no longer one of the machine's, without waiting for the guest.
func (m *machine) drop(ctx context.Context, storage string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.wanted, storage)
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	err := m.askToRelease(ctx, storage)
	m.tidy(ctx)
	return err
}

// remove makes the disk no longer one of the machine's once the guest lets go of it. After an error it still is.
func (m *machine) remove(ctx context.Context, storage string) error {
	m.mu.Lock()
	err := m.askToRelease(ctx, storage)
	client := m.client
	m.mu.Unlock()
	if err != nil {
		return err
	}
	if err := m.awaitRelease(ctx, storage, client); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.wanted, storage)
	m.tidy(ctx)
	return nil
}

// awaitRelease waits until the guest has not got the disk, or there is no guest.
func (m *machine) awaitRelease(ctx context.Context, storage string, client *qmpClient) error {
	for client != nil {
		m.state.Lock()
		plugged, refused, changed := m.plugged[storage], m.refused[storage], m.changed
		m.state.Unlock()
		switch {
		case !plugged:
			return nil
		case refused:
			return errors.New("the guest refuses to let go of the disk")
		}
		select {
		case <-changed:
		case <-client.ended:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("the guest has not let go of the disk: %w", ctx.Err())
		}
	}
	return nil
}

// tidy closes the images of disks that the guest has let go of. mu is held.
func (m *machine) tidy(ctx context.Context) {
	for storage := range m.leaving {
		if m.client == nil || m.has(storage) {
			continue
		}
		delete(m.leaving, storage)
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		err := m.client.ask(ctx, nil, "blockdev-del", map[string]any{"node-name": nodeName(storage)})
		cancel()
		if !errors.Is(err, errGone) {
			m.tell(err)
		}
	}
}

// clear takes every disk out of the machine. It waits for the guest until ctx ends.
func (m *machine) clear(ctx context.Context) error {
	m.mu.Lock()
	var errs []error
	var asked []string
	for storage := range m.wanted {
		errs = append(errs, m.askToRelease(ctx, storage))
		asked = append(asked, storage)
	}
	m.wanted = map[string]disk{}
	client := m.client
	m.mu.Unlock()
	for _, storage := range asked {
		if m.awaitRelease(ctx, storage, client) != nil {
			break // it goes when the guest lets go of it
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tidy(ctx)
	return errors.Join(errs...)
}
