package plan

import (
	"fmt"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// SharedPlan is what has to be done on a shared load balancer, and what cannot be had.
type SharedPlan struct {
	Changes   []Change
	Conflicts []settings.Problem
	Claims    int  // that the Service has, or is about to take
	Leaves    bool // something of the Service's is taken off a hub, which may then be empty
}

// ShareDiff is the difference between what a Service wants of a shared load balancer and what is there. It is a pure function.
// Whatever is not the Service's is looked at, and never in a Change.
//
// What the Service no longer wants goes first, as its own next claim may be on the same port; but backends, which must be there
// before what leads to them, come before and go after everything else.
func ShareDiff(want SharedDesired, lb *cloud.LoadBalancer, limits SessionLimits) SharedPlan {
	d := &shareDiffer{want: want, lb: lb, limits: limits, wantedRules: map[string]bool{}, wantedTLS: map[string]bool{}, used: map[string]bool{}}
	var taken []Change
	for _, frontend := range want.Frontends {
		taken = append(taken, d.claimPort(frontend)...)
	}
	for _, hub := range want.Hubs {
		taken = append(taken, d.useHub(hub)...)
	}
	goneClaims, goneCertificates, goneBackends := d.stale()
	d.plan.Changes = slices.Concat(d.backends(), goneClaims, taken, goneCertificates, goneBackends)
	return d.plan
}

type shareDiffer struct {
	want                   SharedDesired
	lb                     *cloud.LoadBalancer
	limits                 SessionLimits
	plan                   SharedPlan
	wantedRules, wantedTLS map[string]bool // by frontend and name
	wantedFrontends        []string
	used                   map[string]bool // backends that a claim leads to
	none                   bool            // the default backend of hubs is about to be made
}

func (d *shareDiffer) conflict(reason, format string, args ...any) {
	d.plan.Conflicts = append(d.plan.Conflicts, settings.Problem{Reason: reason, Message: fmt.Sprintf(format, args...)})
}

func (d *shareDiffer) frontendNamed(name string) (cloud.Frontend, bool) {
	i := slices.IndexFunc(d.lb.Frontends, func(f cloud.Frontend) bool { return f.Name == name })
	if i < 0 {
		return cloud.Frontend{}, false
	}
	return d.lb.Frontends[i], true
}

// claimPort takes a port as a whole, or says who has it.
func (d *shareDiffer) claimPort(want Frontend) []Change {
	have, there := d.frontendNamed(want.Name)
	switch {
	case there && d.want.Key.Is(FrontendOwner(have)):
		d.claimed(want.Name, want.Backend)
		return d.ownFrontend(want, have)
	case d.portTaken(want.Name, want.Port, networksOr(want.Networks, want.defaultNetworks)):
		return nil
	}
	d.claimed(want.Name, want.Backend)
	if !want.hasCertificates() {
		return nil
	}
	frontend := want.create()
	return []Change{{Name: want.Name, CreateFrontend: &frontend}}
}

func (d *shareDiffer) claimed(frontend, backend string) {
	d.plan.Claims++
	d.wantedFrontends = append(d.wantedFrontends, frontend)
	d.used[backend] = true
}

func networksOr(asked, all []string) []string {
	if len(asked) > 0 {
		return asked
	}
	return all
}

// portTaken says whether somebody else's frontend listens on a port, and notes the conflict.
func (d *shareDiffer) portTaken(name string, port int, networks []string) bool {
	for _, other := range d.lb.Frontends {
		overlaps := slices.ContainsFunc(other.Networks, func(n cloud.FrontendNetwork) bool { return slices.Contains(networks, n.Name) })
		if other.Name != name && (other.Port != port || !overlaps) || d.want.Key.Is(FrontendOwner(other)) {
			continue
		}
		switch {
		case IsHub(other):
			d.conflict("PortConflict", "port %d of load balancer %s (%s) carries the routes of several Services (frontend %s, mode http), and "+
				"cannot be one Service's as a whole: set annotation %s%s, or choose another port", port, d.lb.ID, d.lb.Name, other.Name,
				settings.AnnotationPrefix, settings.RoutesName)
		case KeyOf(other.DefaultBackend) != "":
			d.conflict("PortConflict", "port %d of load balancer %s (%s) belongs to %s, which was first and stays: choose another port",
				port, d.lb.ID, d.lb.Name, OwnerOf(other.DefaultBackend))
		default:
			d.conflict("PortConflict", "port %d of load balancer %s (%s) belongs to frontend %s, which was not made for a Service: choose "+
				"another port, or, if it has mode http, set the annotations %s%s and %s%s", port, d.lb.ID, d.lb.Name, other.Name,
				settings.AnnotationPrefix, settings.RoutesName, settings.AnnotationPrefix, settings.HubFrontendName)
		}
		return true
	}
	return false
}

// ownFrontend brings a frontend that is the Service's up to date. Its networks can only be given to a new one.
func (d *shareDiffer) ownFrontend(want Frontend, have cloud.Frontend) []Change {
	if len(want.Networks) > 0 && !sameNetworks(networksNamed(want.Networks), have.Networks) && want.hasCertificates() {
		frontend := want.create()
		for _, config := range have.TLSConfigs {
			d.wantedTLS[want.Name+"/"+config.Name] = true // or it goes with the frontend
		}
		return []Change{{Name: want.Name, DeleteFrontend: true}, {Name: want.Name, CreateFrontend: &frontend}}
	}
	owner := cloud.TLSOwner{Frontend: want.Name}
	set := d.tls(owner, want.TLS, have)
	d.keepTLS(want.awaits, have)
	var dropped, made []Change
	for _, rule := range want.Rules {
		i := slices.IndexFunc(have.Rules, func(r cloud.Rule) bool { return r.Name == rule.Name })
		switch {
		case i < 0:
			made = append(made, Change{Name: rule.Name, Owner: owner, CreateRule: &rule})
		case !sameRule(rule, have.Rules[i]):
			made = append(made, Change{Name: rule.Name, Owner: owner, ReplaceRule: &rule})
		}
	}
	for _, rule := range have.Rules {
		if slices.Contains(settings.RuleNames, rule.Name) && !hasRule(want.Rules, rule.Name) {
			dropped = append(dropped, Change{Name: rule.Name, Owner: owner, DeleteRule: true})
		}
	}
	var patched []Change
	var patch cloud.FrontendPatch
	if mode := want.create().Mode; mode != have.Mode {
		patch.Mode = mode
	}
	if want.Backend != have.DefaultBackend {
		patch.DefaultBackend = want.Backend
	}
	if properties, changed := have.Properties.With(want.Asked); changed {
		patch.Properties = properties
	}
	if patch.Mode != "" || patch.DefaultBackend != "" || patch.Properties != nil {
		patched = []Change{{Name: want.Name, ModifyFrontend: &patch}}
	}
	return slices.Concat(set, dropped, patched, made)
}

// tls sets the certificates that are wanted. One whose bundle stays, as its Secret's content changed, gets its new name.
func (d *shareDiffer) tls(owner cloud.TLSOwner, want []cloud.TLSConfig, frontend cloud.Frontend) []Change {
	have := frontend.TLSConfigs
	var changes []Change
	for _, config := range want {
		if config.BundleID == "" {
			continue // it is not there yet
		}
		d.wantedTLS[frontend.Name+"/"+config.Name] = true
		i := slices.IndexFunc(have, func(t cloud.TLSConfig) bool { return t.Name == config.Name })
		if i < 0 {
			i = slices.IndexFunc(have, func(t cloud.TLSConfig) bool {
				wanted := slices.ContainsFunc(want, func(w cloud.TLSConfig) bool { return w.Name == t.Name })
				return d.want.Key.Is(OwnerKey(t.Name)) && t.BundleID == config.BundleID && !wanted && !d.wantedTLS[frontend.Name+"/"+t.Name]
			})
			if i >= 0 {
				d.wantedTLS[frontend.Name+"/"+have[i].Name] = true
			}
		}
		switch {
		case i < 0:
			changes = append(changes, Change{Name: config.Name, Owner: owner, CreateTLS: &config})
		case have[i].Name != config.Name || have[i].BundleID != config.BundleID:
			changes = append(changes, Change{Name: have[i].Name, Owner: owner, ModifyTLS: &config})
		}
	}
	return changes
}

// keepTLS keeps what the Service presents on a frontend while it waits for a Secret: which of it is from that one, names do not tell.
func (d *shareDiffer) keepTLS(awaited []string, have cloud.Frontend) {
	for _, config := range have.TLSConfigs {
		if len(awaited) > 0 && d.want.Key.Is(OwnerKey(config.Name)) {
			d.wantedTLS[have.Name+"/"+config.Name] = true
		}
	}
}

// useHub adds the Service's routes to a frontend for the routes of many, which it makes if there is none.
func (d *shareDiffer) useHub(want hub) []Change {
	have, changes, ok := d.openHub(want)
	if !ok {
		return nil
	}
	if len(want.awaits) > 0 && len(want.TLS) == 0 && slices.ContainsFunc(changes, func(c Change) bool { return c.CreateFrontend != nil }) {
		// Without a certificate it would speak HTTP where clients speak TLS. The backend is made, and stands for the claim.
		d.plan.Claims++
		d.used[want.backend] = true
		return nil
	}
	var made []Change
	for _, route := range want.routes {
		made = append(made, d.claimRoute(want, have, route)...)
	}
	if len(made) == 0 && !d.used[want.backend] {
		return nil // all routes are others'
	}
	owner := cloud.TLSOwner{Frontend: want.name}
	set := d.tls(owner, want.TLS, have)
	d.keepTLS(want.awaits, have)
	return slices.Concat(changes, set, made)
}

// openHub finds the frontend, or says how to come to it.
func (d *shareDiffer) openHub(want hub) (have cloud.Frontend, changes []Change, ok bool) {
	have, there := d.frontendNamed(want.name)
	if want.foreign {
		return have, nil, d.openForeign(want, have, there)
	}
	if there && IsHub(have) {
		return have, nil, true
	}
	for _, other := range d.lb.Frontends { // one that somebody is about to remove, or died removing
		if IsHub(other) && HubPort(other.Name) == HubPort(want.name) {
			return other, []Change{{Name: other.Name, RenameFrontend: want.name}}, true
		}
	}
	if d.portTaken(want.name, want.port, want.networks) {
		return have, nil, false
	}
	if !d.none && !HasNone(d.lb) {
		changes, d.none = append(changes, Change{Name: NoneBackend, CreateBackend: newNone()}), true
	}
	frontend := want.create()
	return cloud.Frontend{Name: want.name}, append(changes, Change{Name: want.name, CreateFrontend: &frontend}), true
}

// claimRoute takes a route, or says who has it.
func (d *shareDiffer) claimRoute(hub hub, have cloud.Frontend, want routeRules) []Change {
	owner := cloud.TLSOwner{Frontend: hub.name}
	var changes []Change
	for i, rule := range want.rules {
		at := slices.IndexFunc(have.Rules, func(r cloud.Rule) bool { return r.Name == rule.Name })
		if at >= 0 {
			key, backend := RuleOwner(have.Rules[at])
			if !d.want.Key.Is(key) {
				d.routeTaken(hub, want.route, rule.Name, backend)
				return nil
			}
		}
		if i == 0 && d.shadowed(hub, have, want.route, rule) {
			return nil
		}
		switch {
		case at < 0:
			changes = append(changes, Change{Name: rule.Name, Owner: owner, CreateRule: &rule})
		case !sameRule(rule, have.Rules[at]):
			changes = append(changes, Change{Name: rule.Name, Owner: owner, ReplaceRule: &rule})
		}
		d.wantedRules[have.Name+"/"+rule.Name] = true
	}
	d.plan.Claims++
	d.used[hub.backend] = true
	return changes
}

func (d *shareDiffer) routeTaken(hub hub, route settings.Route, rule, backend string) {
	d.conflict("RouteConflict", "%s on port %d of load balancer %s (%s) belongs to %s, which was first and stays (rule %s of frontend %s): "+
		"choose another host or path", route, hub.port, d.lb.ID, d.lb.Name, OwnerOf(backend), rule, hub.name)
}

// shadowed says whether a rule that was not made for a Service matches the same requests already.
func (d *shareDiffer) shadowed(hub hub, have cloud.Frontend, route settings.Route, rule cloud.Rule) bool {
	for _, other := range have.Rules {
		if !routeName.MatchString(other.Name) && len(rule.Matchers) > 0 && sameMatch(rule, other) {
			d.conflict("RouteConflict", "%s on port %d of load balancer %s (%s) belongs to rule %s of frontend %s, which was not made for a "+
				"Service: choose another host or path", route, hub.port, d.lb.ID, d.lb.Name, other.Name, hub.name)
			return true
		}
	}
	return false
}

// backends makes the backends that claims lead to, and brings them up to date.
func (d *shareDiffer) backends() []Change {
	b := differ{desired: Desired{}, lb: d.lb, sessions: d.limits}
	for _, backend := range d.want.Backends {
		if d.used[backend.Name] {
			b.desired.Backends = append(b.desired.Backends, backend)
		}
	}
	changes := slices.Concat(b.missingBackends(), b.backends())
	for _, have := range d.lb.Backends {
		i := slices.IndexFunc(b.desired.Backends, func(want Backend) bool { return want.Name == have.Name })
		for _, config := range have.TLSConfigs {
			if i >= 0 && !slices.ContainsFunc(b.desired.Backends[i].TLS, func(t cloud.TLSConfig) bool { return t.Name == config.Name }) {
				changes = append(changes, Change{Name: config.Name, Owner: cloud.TLSOwner{Backend: have.Name}, DeleteTLS: true})
			}
		}
	}
	return changes
}

// stale takes away what is the Service's and no longer wanted.
func (d *shareDiffer) stale() (claims, certificates, backends []Change) {
	var rules, frontends []Change
	for _, frontend := range d.lb.Frontends {
		own := d.want.Key.Is(FrontendOwner(frontend))
		if own && !slices.Contains(d.wantedFrontends, frontend.Name) {
			frontends = append(frontends, Change{Name: frontend.Name, DeleteFrontend: true})
			continue
		}
		owner := cloud.TLSOwner{Frontend: frontend.Name}
		for _, rule := range slices.Backward(frontend.Rules) {
			if key, _ := RuleOwner(rule); d.want.Key.Is(key) && !d.wantedRules[frontend.Name+"/"+rule.Name] {
				rules = append(rules, Change{Name: rule.Name, Owner: owner, DeleteRule: true})
			}
		}
		for _, config := range frontend.TLSConfigs {
			if d.want.Key.Is(OwnerKey(config.Name)) && !d.wantedTLS[frontend.Name+"/"+config.Name] {
				certificates = append(certificates, Change{Name: config.Name, Owner: owner, DeleteTLS: true})
			}
		}
	}
	d.plan.Leaves = len(rules)+len(certificates) > 0
	for _, backend := range d.lb.Backends {
		if d.want.Key.Is(OwnerKey(backend.Name)) && !d.used[backend.Name] {
			backends = append(backends, Change{Name: backend.Name, DeleteBackend: true})
		}
	}
	return slices.Concat(rules, frontends), certificates, backends
}

// RemovalOf takes away all that the Service of a key has on a load balancer: first its claims and certificates, then its backends.
func RemovalOf(key Key, lb *cloud.LoadBalancer) (claims, certificates, backends []Change) {
	d := &shareDiffer{want: SharedDesired{Key: key}, lb: lb, used: map[string]bool{}}
	return d.stale()
}
