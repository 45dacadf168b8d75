// Package kernelroutes carries the traffic of simulated routers with the routing table of this process's network namespace,
// which has to be the router then: with its gateway addresses, and with forwarding on.
//
// It knows Linux's routes, and nothing of the API. The namespace has one table, so a prefix that two routers have goes the way
// of the one that was changed last.
package kernelroutes

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// protocol marks the routes that are ours. rtnetlink(7) leaves the numbers above 4 to administrators.
const protocol = "171"

// Plane is a simulator.RouterPlane of kernel routes.
type Plane struct {
	mu     sync.Mutex
	routes map[string][]simulator.RouterRoute // installed, by UUID of the router
}

var _ simulator.RouterPlane = (*Plane)(nil)

// ErrNoProgram says that routes cannot be made on this machine.
var ErrNoProgram = errors.New("ip is not installed: install the package iproute2, or run without routers' traffic")

// New returns a plane. Routes that an earlier one left in the namespace are removed.
func New() (*Plane, error) {
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, ErrNoProgram
	}
	p := &Plane{routes: map[string][]simulator.RouterRoute{}}
	return p, p.flush()
}

// Apply makes the namespace send what is for the router's static routes to their next hops. A next hop that is on none of its
// networks is out of reach, as the real router has it: such a route is left out.
func (p *Plane) Apply(spec simulator.RouterSpec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var wanted []simulator.RouterRoute
	for _, route := range spec.Routes {
		if slices.ContainsFunc(spec.Networks, func(n netip.Prefix) bool { return n.Contains(route.NextHop) }) {
			wanted = append(wanted, route)
		}
	}
	var failed []error
	for _, route := range p.routes[spec.UUID] {
		if !slices.ContainsFunc(wanted, func(w simulator.RouterRoute) bool { return w.Prefix == route.Prefix }) {
			failed = append(failed, remove(route))
		}
	}
	for _, route := range wanted {
		if !slices.Contains(p.routes[spec.UUID], route) {
			failed = append(failed, ip(route, "replace", route.Prefix.String(), "via", route.NextHop.String(), "proto", protocol))
		}
	}
	p.routes[spec.UUID] = wanted
	return errors.Join(failed...)
}

// Remove takes the router's routes away.
func (p *Plane) Remove(uuid string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var failed []error
	for _, route := range p.routes[uuid] {
		failed = append(failed, remove(route))
	}
	delete(p.routes, uuid)
	return errors.Join(failed...)
}

// Close takes all routes away.
func (p *Plane) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.routes = map[string][]simulator.RouterRoute{}
	return p.flush()
}

func (p *Plane) flush() error {
	return errors.Join(run("-4", "route", "flush", "proto", protocol), run("-6", "route", "flush", "proto", protocol))
}

// remove takes a route away. One that went by itself, with its interface, is no error.
func remove(route simulator.RouterRoute) error {
	err := ip(route, "del", route.Prefix.String(), "proto", protocol)
	if err != nil && strings.Contains(err.Error(), "No such process") {
		return nil
	}
	return err
}

func ip(route simulator.RouterRoute, arguments ...string) error {
	family := "-6"
	if route.Prefix.Addr().Is4() {
		family = "-4"
	}
	return run(append([]string{family, "route"}, arguments...)...)
}

func run(arguments ...string) error {
	out, err := exec.Command("ip", arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(arguments, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
