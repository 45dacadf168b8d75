package routes

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// change is one route that is to be there, or not to be there any more.
type change struct {
	name   string
	prefix netip.Prefix
	hop    netip.Addr // where it is to lead; the zero value: the route is to go

	done chan struct{} // closed when err stands
	err  error
}

func newChange(name string, prefix netip.Prefix, hop netip.Addr) *change {
	return &change{name: name, prefix: prefix, hop: hop, done: make(chan struct{})}
}

func (c *change) settle(err error) {
	c.err = err
	close(c.done)
}

// ConflictError says that somebody else's route is in the way of a node's.
type ConflictError struct {
	Route cloud.StaticRoute
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("the router has a route to %s via %s already, named %q, which is not this cluster's: remove it, or give the "+
		"cluster another Pod network (--cluster-cidr)", e.Route.Prefix, e.Route.NextHop, e.Route.Name)
}

// plan is what a batch of changes makes of a router's static routes.
type plan struct {
	routes  []cloud.StaticRoute
	changed bool              // routes are others than there were
	grown   int               // changes that add a route
	refused map[*change]error // changes that cannot be
	over    map[*change]bool  // changes that there is no room for
}

// unbounded is a room without limit.
const unbounded = -1

// newPlan applies changes to the routes that a router has. Routes that are not the owner's come out as they went in, in
// their order. room bounds how many routes there may be afterwards; removing is always possible.
func newPlan(owner Owner, routes []cloud.StaticRoute, changes []*change, room int) plan {
	p := plan{routes: slices.Clone(routes), refused: map[*change]error{}, over: map[*change]bool{}}
	for _, c := range changes {
		if !c.hop.IsValid() && !wantedAgain(c, changes) {
			p.remove(func(r cloud.StaticRoute) bool { return r.Name == c.name && r.IsTo(c.prefix) })
		}
	}
	for _, c := range changes {
		if c.hop.IsValid() {
			p.put(owner, c, room)
		}
	}
	return p
}

// wantedAgain says that the route to remove is to be there by another change: of a node that left and came back.
func wantedAgain(removal *change, changes []*change) bool {
	return slices.ContainsFunc(changes, func(c *change) bool {
		return c.hop.IsValid() && c.name == removal.name && c.prefix == removal.prefix
	})
}

func (p *plan) remove(which func(cloud.StaticRoute) bool) {
	before := len(p.routes)
	p.routes = slices.DeleteFunc(p.routes, which)
	p.changed = p.changed || len(p.routes) < before
}

// put makes the change's route be there. It takes the place of the route of its name, and of one that the owner has for its
// prefix under another name: a prefix that went from one node to another.
func (p *plan) put(owner Owner, c *change, room int) {
	for _, route := range p.routes {
		if route.IsTo(c.prefix) && !owner.owns(route.Name) {
			p.refused[c] = &ConflictError{route}
			return
		}
	}
	ours := func(r cloud.StaticRoute) bool { return r.Name == c.name || r.IsTo(c.prefix) }
	wanted := cloud.StaticRoute{Name: c.name, Prefix: c.prefix.String(), NextHop: c.hop.String()}
	first := slices.IndexFunc(p.routes, ours)
	if first < 0 {
		if room != unbounded && len(p.routes) >= room {
			p.over[c] = true
			return
		}
		p.routes, p.changed = append(p.routes, wanted), true
		p.grown++
		return
	}
	if there := p.routes[first]; there.Name != c.name || !there.Leads(c.prefix, c.hop) {
		p.routes[first], p.changed = wanted, true
	}
	kept := 0
	p.remove(func(r cloud.StaticRoute) bool {
		if ours(r) {
			kept++
		}
		return ours(r) && kept > 1
	})
}
