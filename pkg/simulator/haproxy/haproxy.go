// Package haproxy carries the traffic of simulated load balancers with real HAProxy processes: one a load balancer.
//
// It knows HAProxy and addresses of this machine, and nothing of the API.
package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Config says how a plane works.
type Config struct {
	// Dir is where configuration files and sockets lie; empty: a temporary folder, removed by Close.
	Dir string
	// Interface is the network interface, of this process's network namespace, to which load balancers' addresses are
	// added; empty: load balancers listen on addresses of the loopback network instead, 127.64.0.1 and up.
	Interface string
	// Program is the haproxy binary; empty: the one in PATH.
	Program string
	// Rules says what comes after a rule that matched; empty: FirstRule.
	Rules RuleEvaluation
}

// RuleEvaluation says which rules of a frontend act on a request. UpCloud's guide says that no rule is evaluated after the actions of one
// that matched; HAProxy by itself goes on.
type RuleEvaluation string

const (
	// FirstRule ends the evaluation with the first rule that matches: its actions are all that happens before the default backend.
	FirstRule RuleEvaluation = "first"
	// AllRules has all rules act that match, up to one that answers; the first backend that any of them chooses is used.
	AllRules RuleEvaluation = "all"
)

// Plane is a simulator.LoadBalancerPlane of HAProxy processes.
type Plane struct {
	cfg       Config
	temporary bool

	mu        sync.Mutex
	instances map[string]*instance     // by UUID of the load balancer
	addresses map[netip.Addr]io.Closer // added to the interface, or claimed of the loopback network
	next      netip.Addr               // of the loopback network
	failed    func(uuid string, err error)
}

var _ simulator.LoadBalancerPlane = (*Plane)(nil)

// ErrNoProgram says that there is no HAProxy on this machine.
var ErrNoProgram = errors.New("haproxy is not installed: install the package haproxy (2.6 or newer), or run without load balancers' traffic")

var (
	firstLoopback = netip.MustParseAddr("127.64.0.1")
	loopback      = netip.MustParsePrefix("127.64.0.0/10")
)

// New returns a plane; nothing runs until a load balancer is applied.
func New(cfg Config) (simulator.LoadBalancerPlane, error) {
	if cfg.Program == "" {
		path, err := exec.LookPath("haproxy")
		if err != nil {
			if path, err = exec.LookPath("/usr/sbin/haproxy"); err != nil {
				return nil, ErrNoProgram
			}
		}
		cfg.Program = path
	}
	p := &Plane{cfg: cfg, instances: map[string]*instance{}, addresses: map[netip.Addr]io.Closer{}, next: firstLoopback}
	if cfg.Interface != "" {
		if err := checkInterface(cfg.Interface); err != nil {
			return nil, err
		}
	}
	if cfg.Dir == "" {
		dir, err := os.MkdirTemp("", "upcloud-haproxy-")
		if err != nil {
			return nil, err
		}
		p.cfg.Dir, p.temporary = dir, true
		return p, nil
	}
	return p, os.MkdirAll(cfg.Dir, 0o755)
}

// Watch implements simulator.LoadBalancerWatcher.
func (p *Plane) Watch(failed func(uuid string, err error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = failed
}

func (p *Plane) ended(uuid string, err error) {
	p.mu.Lock()
	failed := p.failed
	p.mu.Unlock()
	if failed != nil {
		failed(uuid, err)
	}
}

// Listen implements simulator.LoadBalancerPlane.
func (p *Plane) Listen(proposed netip.Addr) (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cfg.Interface == "" {
		return p.listenOnLoopback(proposed)
	}
	if _, taken := p.addresses[proposed]; taken {
		return netip.Addr{}, fmt.Errorf("address %s is in use", proposed)
	}
	if err := addAddress(p.cfg.Interface, proposed); err != nil {
		return netip.Addr{}, err
	}
	p.addresses[proposed] = nothing{}
	return proposed, nil
}

// listenOnLoopback takes the proposed address, of a former plane, if it can, or else the next one that nobody has.
func (p *Plane) listenOnLoopback(proposed netip.Addr) (netip.Addr, error) {
	if loopback.Contains(proposed) {
		if taken, err := p.take(proposed); taken || err != nil {
			return proposed, err
		}
	}
	for ; loopback.Contains(p.next); p.next = p.next.Next() {
		if taken, err := p.take(p.next); taken || err != nil {
			return p.next, err
		}
	}
	return netip.Addr{}, fmt.Errorf("no address of %s is left", loopback)
}

// take claims an address of the loopback network, unless this simulator or another one has it.
func (p *Plane) take(a netip.Addr) (taken bool, err error) {
	if _, own := p.addresses[a]; own {
		return false, nil
	}
	claimed, err := claim(a)
	if errors.Is(err, syscall.EADDRINUSE) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("claim %s: %w", a, err)
	}
	p.addresses[a] = claimed
	return true, nil
}

// Unlisten implements simulator.LoadBalancerPlane.
func (p *Plane) Unlisten(a netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range p.instances {
		i.addresses = slices.DeleteFunc(i.addresses, func(o netip.Addr) bool { return o == a })
	}
	return p.giveUp(a)
}

// Apply implements simulator.LoadBalancerPlane. A load balancer without frontends has no process.
func (p *Plane) Apply(ctx context.Context, spec simulator.LoadBalancerSpec) error {
	p.mu.Lock()
	i := p.instances[spec.LoadBalancer.UUID]
	if i == nil {
		uuid := spec.LoadBalancer.UUID
		i = newInstance(p.cfg.Program, filepath.Join(p.cfg.Dir, uuid), p.cfg.Rules, func(err error) { p.ended(uuid, err) })
		p.instances[spec.LoadBalancer.UUID] = i
	}
	for _, list := range spec.Addresses {
		i.addresses = union(i.addresses, list)
	}
	p.mu.Unlock()
	return i.apply(ctx, spec)
}

func union(have, more []netip.Addr) []netip.Addr {
	for _, a := range more {
		known := false
		for _, h := range have {
			known = known || h == a
		}
		if !known {
			have = append(have, a)
		}
	}
	return have
}

// Remove implements simulator.LoadBalancerPlane.
func (p *Plane) Remove(uuid string) error {
	p.mu.Lock()
	i := p.instances[uuid]
	delete(p.instances, uuid)
	p.mu.Unlock()
	if i == nil {
		return nil
	}
	err := i.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range i.addresses {
		err = errors.Join(err, p.giveUp(a))
	}
	return err
}

func (p *Plane) giveUp(a netip.Addr) error {
	claimed, taken := p.addresses[a]
	if !taken {
		return nil
	}
	delete(p.addresses, a)
	if p.cfg.Interface == "" {
		return claimed.Close()
	}
	return removeAddress(p.cfg.Interface, a)
}

// Close implements simulator.LoadBalancerPlane.
func (p *Plane) Close() error {
	p.mu.Lock()
	uuids := make([]string, 0, len(p.instances))
	for uuid := range p.instances {
		uuids = append(uuids, uuid)
	}
	p.mu.Unlock()
	var errs []error
	for _, uuid := range uuids {
		errs = append(errs, p.Remove(uuid))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for a := range p.addresses {
		errs = append(errs, p.giveUp(a))
	}
	if p.temporary {
		errs = append(errs, os.RemoveAll(p.cfg.Dir))
	}
	return errors.Join(errs...)
}
