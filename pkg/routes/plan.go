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

	done   chan struct{} // closed when err and effect stand
	err    error
	effect effect
}

// effect is what a change did to the router.
type effect int

const (
	effectNone     effect = iota // everything was as it should be
	effectForeign                // the same: another owner's route leads to the same place
	effectAdopted                // a former cluster's route to the same place got this cluster's name
	effectAdded                  // the route was not there
	effectReplaced               // it led elsewhere
)

func newChange(name string, prefix netip.Prefix, hop netip.Addr) *change {
	return &change{name: name, prefix: prefix, hop: hop, done: make(chan struct{})}
}

func (c *change) key() routeKey { return routeKey{c.name, c.prefix, c.hop} }

func (c *change) wanted() entry {
	return entry{cloud.StaticRoute{Name: c.name, Prefix: c.prefix.String(), NextHop: c.hop.String()}, c.key()}
}

// entry is a route as the API writes it, and as it is understood.
type entry struct {
	route cloud.StaticRoute
	key   routeKey
}

func entriesOf(routes []cloud.StaticRoute) []entry {
	entries := make([]entry, len(routes))
	for i, route := range routes {
		entries[i] = entry{route, keyOfRoute(route)}
	}
	return entries
}

func (c *change) settle(err error) {
	c.err = err
	close(c.done)
}

// ConflictError says that another owner's route is in the way of a node's.
type ConflictError struct {
	Route cloud.StaticRoute
}

func (e *ConflictError) Error() string {
	whose := "which does not belong to this cluster"
	if isRouteName(e.Route.Name) {
		whose = "made by a cloud controller manager for a server that is not a live Node of this cluster"
	}
	return fmt.Sprintf("the router already has a route to %s via %s, named %q, %s: remove it if no other cluster needs it, or give this cluster "+
		"another Pod network (--cluster-cidr)", e.Route.Prefix, e.Route.NextHop, e.Route.Name, whose)
}

// rules say what a plan may touch.
type rules struct {
	owner Owner
	pods  []netip.Prefix    // --cluster-cidr; empty: unknown
	mine  map[routeKey]bool // routes that are not as they should be, and are the cluster's to change
}

// obstacle says that a route that is already there stands in the way of the change.
func (r rules) obstacle(route routeKey, c *change) bool {
	if route.name == c.name {
		return true
	}
	there := route.prefix
	switch {
	case !there.IsValid() || !there.Overlaps(c.prefix):
		return false
	case there == c.prefix:
		return true
	case r.owner.owns(route.name):
		return false // another node's, whose Pod CIDR is checked, or one that is about to go
	case isRouteName(route.name):
		return true
	}
	// A route for more than the whole Pod network, such as a default route, is there for what has no route of its own.
	general := covers(there, c.prefix) && slices.ContainsFunc(r.pods, func(p netip.Prefix) bool { return covers(there, p) })
	return !general
}

// plan is what a batch of changes makes of a router's static routes.
type plan struct {
	entries []entry
	changed bool               // entries are others than there were
	grown   int                // changes that add a route
	refused map[*change]error  // changes that cannot be
	over    map[*change]bool   // changes that there is no room for
	effects map[*change]effect // of changes that put a route
}

// unbounded is a room without limit.
const unbounded = -1

// newPlan applies changes to the routes that a router has. Routes that are not the owner's come out as they went in, in
// their order. room bounds how many routes there may be afterwards; removing is always possible.
func newPlan(by rules, routes []cloud.StaticRoute, changes []*change, room int) plan {
	p := plan{entries: entriesOf(routes), refused: map[*change]error{}, over: map[*change]bool{}, effects: map[*change]effect{}}
	for _, c := range changes {
		if !c.hop.IsValid() && !wantedAgain(c, changes) {
			p.take(by, c)
		}
	}
	for _, c := range changes {
		if c.hop.IsValid() {
			p.put(by, c, room)
		}
	}
	return p
}

// routes are what the router is to have.
func (p *plan) routes() []cloud.StaticRoute {
	routes := make([]cloud.StaticRoute, len(p.entries))
	for i, entry := range p.entries {
		routes[i] = entry.route
	}
	return routes
}

// take removes the change's route, unless it is another cluster's.
func (p *plan) take(by rules, c *change) {
	p.remove(func(e entry) bool {
		if e.key.name != c.name || e.key.prefix != c.prefix {
			return false
		}
		if !by.mine[e.key] {
			p.refused[c] = &ConflictError{e.route}
			return false
		}
		return true
	})
}

// wantedAgain says that the route to remove is to be there by another change: of a node that left and came back.
func wantedAgain(removal *change, changes []*change) bool {
	return slices.ContainsFunc(changes, func(c *change) bool {
		return c.hop.IsValid() && c.name == removal.name && c.prefix == removal.prefix
	})
}

func (p *plan) remove(which func(entry) bool) {
	before := len(p.entries)
	p.entries = slices.DeleteFunc(p.entries, which)
	p.changed = p.changed || len(p.entries) < before
}

// put makes the change's route be there. It takes the place of the routes that stand in its way, which must all be the cluster's. A
// route of another owner that does the same satisfies it.
func (p *plan) put(by rules, c *change, room int) {
	var obstacles []routeKey
	foreign, there := false, false
	for _, e := range p.entries {
		switch {
		case e.key == c.key():
			there = true
		case !by.obstacle(e.key, c):
		case by.mine[e.key]:
			obstacles = append(obstacles, e.key)
		case e.key.prefix == c.prefix && e.key.hop == c.hop && !by.owner.owns(e.key.name):
			foreign = true
		default:
			p.refused[c] = &ConflictError{e.route}
			return
		}
	}
	switch {
	case there:
	case foreign:
		p.effects[c] = effectForeign
	case len(obstacles) > 0: // in its place, so that there is no moment without a route
		at := slices.IndexFunc(p.entries, func(e entry) bool { return e.key == obstacles[0] })
		p.effects[c] = effectReplaced
		if was := p.entries[at].key; was.prefix == c.prefix && was.hop == c.hop {
			p.effects[c] = effectAdopted
		}
		p.entries[at], p.changed = c.wanted(), true
		obstacles = obstacles[1:]
	case room != unbounded && len(p.entries) >= room:
		p.over[c] = true
		return
	default:
		p.entries, p.changed, p.effects[c] = append(p.entries, c.wanted()), true, effectAdded
		p.grown++
	}
	kept := false
	p.remove(func(e entry) bool {
		if e.key == c.key() {
			again := kept
			kept = true
			return again
		}
		return slices.Contains(obstacles, e.key)
	})
}
