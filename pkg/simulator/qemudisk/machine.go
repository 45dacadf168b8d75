//go:build linux

package qemudisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// lookAgain is after what time a server that has disks and no machine is looked at for one again; it doubles up to
	// lookAgainMax.
	lookAgain, lookAgainMax = 50 * time.Millisecond, time.Second
	// answerTimeout bounds QEMU's answers. None of them waits for the guest.
	answerTimeout = 10 * time.Second
)

// machine is what runs a server, or will: the QEMU behind a socket.
type machine struct {
	server, socket string
	report         func(error)

	stop context.CancelFunc
	done chan struct{} // closed when the worker has ended

	// mu is held while QEMU is asked, so that it is asked one thing at a time; never while a guest is waited for.
	mu      sync.Mutex
	client  *qmpClient      // nil: no machine is there
	wanted  map[string]disk // by storage UUID
	kept    map[string]bool // storages that a former plane plugged, and that will be wanted
	leaving map[string]bool // storages that the guest has been asked to let go of
	told    string          // the last failure that was reported

	// state is what QEMU's events change.
	state   sync.Mutex
	plugged map[string]bool // storages that the guest has
	refused map[string]bool // storages that the guest said it keeps
	changed chan struct{}   // closed, and another made, when one of them changes
}

// startMachine begins to look for the machine; end ends that. kept are storages that it may have already and keeps.
func startMachine(server, socket string, kept map[string]bool, report func(error)) *machine {
	ctx, stop := context.WithCancel(context.Background())
	m := &machine{
		server: server, socket: socket, report: report, stop: stop, done: make(chan struct{}),
		wanted: map[string]disk{}, kept: kept, leaving: map[string]bool{},
		plugged: map[string]bool{}, refused: map[string]bool{}, changed: make(chan struct{}),
	}
	go m.work(ctx)
	return m
}

func (m *machine) end() {
	m.stop()
	<-m.done
}

// work gives a machine its disks as soon as there is one, and takes note of its end.
func (m *machine) work(ctx context.Context) {
	defer close(m.done)
	pause := lookAgain
	for ctx.Err() == nil {
		client := m.look(ctx)
		if client == nil {
			sleep(ctx, pause)
			pause = min(2*pause, lookAgainMax)
			continue
		}
		pause = lookAgain
		select {
		case <-m.nextChange():
		case <-client.ended:
		case <-ctx.Done():
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		m.client.close()
	}
}

// look finds the machine if there is one that is to have disks, and closes what its guest has let go of.
func (m *machine) look(ctx context.Context) *qmpClient {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil && len(m.wanted) == 0 {
		return nil
	}
	client, err := m.connect(ctx)
	m.tell(err)
	m.tidy(ctx)
	return client
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// tell reports a failure that no request waits for, once.
func (m *machine) tell(err error) {
	if err == nil || err.Error() == m.told || errors.Is(err, context.Canceled) {
		return
	}
	m.told = err.Error()
	m.report(fmt.Errorf("machine of server %s: %w", m.server, err))
}

// connect returns the machine's client; nil without an error if there is no machine. One that has just come gets its disks,
// and the error beside a client says which of them it did not get. mu is held.
func (m *machine) connect(ctx context.Context) (*qmpClient, error) {
	if m.client != nil {
		select {
		case <-m.client.ended:
			m.client, m.leaving = nil, map[string]bool{}
			m.forgetState()
		default:
			return m.client, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	client, err := dialQMP(ctx, m.socket, m.event)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errGone) {
		return nil, nil // no machine, or one that ends
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.socket, err)
	}
	m.client = client
	return client, m.settle(ctx)
}

// settle makes a machine that has just been found have the disks that it is to have: it may have been another plane's.
func (m *machine) settle(ctx context.Context) error {
	devices, nodes, err := m.inventory(ctx)
	if err != nil {
		return err
	}
	m.state.Lock()
	for storage := range devices {
		m.plugged[storage] = true
	}
	m.state.Unlock()
	var errs []error
	for storage := range devices {
		if _, wanted := m.wanted[storage]; !wanted && !m.kept[storage] {
			errs = append(errs, m.askToRelease(ctx, storage))
		}
	}
	for node := range nodes {
		if !m.usesNode(node, devices) {
			errs = append(errs, m.client.ask(ctx, nil, "blockdev-del", map[string]any{"node-name": node}))
		}
	}
	for storage, d := range m.wanted {
		if devices[storage] {
			errs = append(errs, m.resizePlugged(ctx, d))
		} else if err := m.plug(ctx, d); err != nil {
			errs = append(errs, fmt.Errorf("storage %s: %w", storage, err))
		}
	}
	return errors.Join(errs...)
}

func (m *machine) usesNode(node string, devices map[string]bool) bool {
	for storage := range devices {
		if nodeName(storage) == node {
			return true
		}
	}
	return false
}

// inventory lists the storages for which the machine has a device of ours, and the block nodes of ours.
func (m *machine) inventory(ctx context.Context) (devices, nodes map[string]bool, err error) {
	var peripherals []struct{ Name string }
	if err := m.client.ask(ctx, &peripherals, "qom-list", map[string]any{"path": "/machine/peripheral"}); err != nil {
		return nil, nil, err
	}
	devices, nodes = map[string]bool{}, map[string]bool{}
	for _, p := range peripherals {
		if storage, ours := strings.CutPrefix(p.Name, devicePrefix); ours {
			devices[storage] = true
		}
	}
	var blocks []struct {
		Name string `json:"node-name"`
	}
	if err := m.client.ask(ctx, &blocks, "query-named-block-nodes", map[string]any{"flat": true}); err != nil {
		return nil, nil, err
	}
	for _, b := range blocks {
		if strings.HasPrefix(b.Name, nodePrefix) {
			nodes[b.Name] = true
		}
	}
	return devices, nodes, nil
}

// event takes note of what QEMU tells about a disk.
func (m *machine) event(e qmpEvent) {
	storage, ours := strings.CutPrefix(e.Data.Device, devicePrefix)
	if !ours {
		return
	}
	m.state.Lock()
	defer m.state.Unlock()
	switch e.Name {
	case "DEVICE_DELETED":
		delete(m.plugged, storage)
	case "DEVICE_UNPLUG_GUEST_ERROR":
		m.refused[storage] = true
	default:
		return
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *machine) nextChange() <-chan struct{} {
	m.state.Lock()
	defer m.state.Unlock()
	return m.changed
}

// forgetState is for a machine that has ended: the next one has no disks.
func (m *machine) forgetState() {
	m.state.Lock()
	defer m.state.Unlock()
	m.plugged, m.refused = map[string]bool{}, map[string]bool{}
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *machine) has(storage string) bool {
	m.state.Lock()
	defer m.state.Unlock()
	return m.plugged[storage]
}
