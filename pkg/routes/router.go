package routes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

const (
	// networksAge is for how long a router that was found serves while nothing is missed in its networks and it has the same ones
	// attached.
	networksAge = 5 * time.Minute
	// networksUnknownAge is the same for a router that does not tell which networks are attached to it.
	networksUnknownAge = 30 * time.Second
	// networksAgain is how soon the private networks are read again when something is missed.
	networksAgain = 10 * time.Second
	// noRouterAge is how soon a router is looked for again among the nodes and the networks that are known.
	noRouterAge = time.Second
)

// noRouterError says that there is no router to put routes on, which is the operator's to change.
type noRouterError struct {
	text    string
	several bool // there are too many
}

func (e *noRouterError) Error() string { return e.text }

func noRouter(format string, args ...any) error {
	return &noRouterError{text: fmt.Sprintf(format, args...)}
}

// domain is a router with the private networks that it joins.
type domain struct {
	router   string
	networks []cloud.PrivateNetwork
}

// ids are the UUIDs of the networks, sorted.
func (d domain) ids() []string {
	ids := []string{}
	for _, network := range d.networks {
		ids = append(ids, network.ID)
	}
	slices.Sort(ids)
	return ids
}

// foundDomain is the domain found last, or why there was none.
type foundDomain struct {
	domain domain
	none   *noRouterError
	taken  time.Time
	// contradicts are networks that the router says are attached to it although the list of networks, read afterwards, says otherwise.
	contradicts []string
}

// routerDomain finds the cluster's router: the one that is configured; else the one that the private networks of the nodes are on;
// of several, the one that has the cluster's routes already. The error is a noRouterError if there is none. known, if not nil, is
// newer than the Node in Kubernetes. missed says that the caller missed something in a domain that it got before.
func (r *Routes) routerDomain(ctx context.Context, known *v1.Node, missed bool) (domain, error) {
	r.finding.Lock()
	defer r.finding.Unlock()
	age := networksAge
	switch {
	case r.found.none != nil && known != nil && !r.found.none.several:
		age = 0
	case r.found.none != nil:
		age = noRouterAge
	case missed:
		age = networksAgain
	}
	if !r.found.taken.IsZero() && time.Since(r.found.taken) < age {
		if r.found.none != nil {
			return domain{}, r.found.none
		}
		return r.found.domain, nil
	}
	return r.find(ctx, known, time.Now().Add(-networksAgain))
}

// find looks for the router in lists that were read at that moment or later. The caller holds r.finding.
func (r *Routes) find(ctx context.Context, known *v1.Node, moment time.Time) (domain, error) {
	now := time.Now()
	found, err := r.domainOf(ctx, known, moment)
	var none *noRouterError
	if err != nil && !errors.As(err, &none) {
		return domain{}, err
	}
	if was := r.found.domain.router; err == nil && was != "" && was != found.router {
		r.moved = move{from: was, to: found.router, at: now}
	}
	lost := r.found.domain
	r.found = foundDomain{domain: found, none: none, taken: now}
	if none != nil {
		r.found.domain = domain{router: lost.router} // so that a move is noticed when there is one again
	}
	return found, err
}

// move is a change of the cluster's router.
type move struct {
	from, to string
	at       time.Time
}

// currentRouter reads the cluster's router. A router that is gone, or that has other networks attached than when it was found, is looked
// for again at once.
func (r *Routes) currentRouter(ctx context.Context) (domain, *cloud.Router, error) {
	in, err := r.routerDomain(ctx, nil, false)
	if err != nil {
		return domain{}, nil, err
	}
	router, err := r.config.Cloud.Router(ctx, in.router)
	if err != nil && !errors.Is(err, cloud.ErrNotFound) {
		return domain{}, nil, err
	}
	if err == nil && r.asFound(in, router) {
		return in, router, nil
	}
	again, err := r.findAgain(ctx, router)
	if err != nil {
		return domain{}, nil, err
	}
	if router == nil || again.router != router.ID {
		router, err = r.config.Cloud.Router(ctx, again.router)
	}
	if errors.Is(err, cloud.ErrNotFound) {
		err = noRouter("router %s does not exist: attach the nodes' private network to another one, or correct routerUUID", again.router)
	}
	return again, router, err
}

// asFound says that the router has the networks that it had when it was found.
func (r *Routes) asFound(in domain, router *cloud.Router) bool {
	r.finding.Lock()
	defer r.finding.Unlock()
	if router.NetworkIDs == nil {
		return time.Since(r.found.taken) < networksUnknownAge
	}
	return slices.Equal(router.NetworkIDs, in.ids()) || r.found.contradicts != nil && slices.Equal(router.NetworkIDs, r.found.contradicts)
}

// findAgain looks for the router in lists read now. router, if not nil, is what contradicted the earlier ones.
func (r *Routes) findAgain(ctx context.Context, router *cloud.Router) (domain, error) {
	r.finding.Lock()
	defer r.finding.Unlock()
	found, err := r.find(ctx, nil, time.Now())
	if err == nil && router != nil && router.ID == found.router && !slices.Equal(router.NetworkIDs, found.ids()) {
		r.found.contradicts = router.NetworkIDs
	}
	return found, err
}

func (r *Routes) domainOf(ctx context.Context, known *v1.Node, moment time.Time) (domain, error) {
	networks, err := r.config.Cloud.NetworksSince(ctx, moment)
	if err != nil {
		return domain{}, err
	}
	router := r.config.RouterID
	if router == "" {
		nodes, err := r.allNodes(known)
		if err != nil {
			return domain{}, err
		}
		routers, err := routersOf(nodes, networks)
		if err != nil {
			return domain{}, err
		}
		if router, err = r.oneOf(ctx, routers); err != nil {
			return domain{}, err
		}
	}
	found := domain{router: router}
	for _, network := range networks {
		if network.RouterID == router {
			found.networks = append(found.networks, network)
		}
	}
	if len(found.networks) == 0 {
		return domain{}, noRouter("router %s (routerUUID) joins no private network of this account: attach the nodes' private "+
			"network to it, or correct routerUUID", router)
	}
	return found, nil
}

// oneOf chooses among the routers of the nodes' networks. Of several it is the one that has this cluster's routes: a node that joins
// in the wrong place must not take the network from all others.
func (r *Routes) oneOf(ctx context.Context, routers []string) (string, error) {
	if len(routers) == 1 {
		return routers[0], nil
	}
	owner, err := r.ownerOf(ctx)
	if err != nil {
		return "", err
	}
	var used []string
	for _, id := range routers {
		router, err := r.config.Cloud.Router(ctx, id)
		if err != nil {
			return "", err
		}
		if slices.ContainsFunc(router.Routes, func(route cloud.StaticRoute) bool { return owner.owns(route.Name) }) {
			used = append(used, id)
		}
	}
	if len(used) == 1 {
		return used[0], nil
	}
	return "", &noRouterError{several: true, text: fmt.Sprintf("the nodes are on private networks of %d routers (%s), and Pods on one do "+
		"not reach those on another: name the one to use in routerUUID of the configuration file", len(routers), strings.Join(routers, ", "))}
}

// routersOf returns the routers that the nodes' private networks are on, one at least.
func routersOf(nodes []*v1.Node, networks []cloud.PrivateNetwork) (routers []string, err error) {
	var without []string
	for _, network := range nodesNetworks(nodes, networks) {
		switch {
		case network.RouterID == "":
			without = append(without, fmt.Sprintf("%s (%s)", network.Name, network.ID))
		case !slices.Contains(routers, network.RouterID):
			routers = append(routers, network.RouterID)
		}
	}
	switch {
	case len(routers) > 0:
		return routers, nil
	case len(without) > 0:
		return nil, noRouter("the nodes' private network %s has no router: create one and attach the network to it, or set createRouter "+
			"in the configuration file to have it done", strings.Join(without, ", "))
	}
	return nil, noRouter("no node is known to have its internal address on a private network of this account: attach the servers to " +
		"one, or leave --configure-cloud-routes out and use a CNI with an overlay network")
}

// nodesNetworks returns the networks on which at least one node has its internal address.
func nodesNetworks(nodes []*v1.Node, networks []cloud.PrivateNetwork) []cloud.PrivateNetwork {
	internal := map[string][]netip.Addr{} // by server
	for _, node := range nodes {
		if id, err := providerid.Parse(node.Spec.ProviderID); err == nil {
			internal[id] = internalIPs(node.Status.Addresses)
		}
	}
	var used []cloud.PrivateNetwork
	for _, network := range networks {
		if slices.ContainsFunc(network.ServerIDs, func(id string) bool {
			return slices.ContainsFunc(internal[id], func(ip netip.Addr) bool { return contains(network, ip) })
		}) {
			used = append(used, network)
		}
	}
	return used
}

func internalIPs(addresses []v1.NodeAddress) []netip.Addr {
	var ips []netip.Addr
	for _, address := range addresses {
		if address.Type != v1.NodeInternalIP {
			continue
		}
		if ip, err := netip.ParseAddr(address.Address); err == nil {
			ips = append(ips, ip.Unmap())
		}
	}
	return ips
}

func contains(network cloud.PrivateNetwork, ip netip.Addr) bool {
	return slices.ContainsFunc(network.Prefixes, func(p netip.Prefix) bool { return p.Masked().Contains(ip) })
}

// nextHop returns the first of the addresses that lies in the domain and is of the prefix's family.
func (d domain) nextHop(addresses []netip.Addr, prefix netip.Prefix) (netip.Addr, bool) {
	for _, ip := range addresses {
		if ip.Is4() == prefix.Addr().Is4() && d.reaches(ip) {
			return ip, true
		}
	}
	return netip.Addr{}, false
}

// reaches says that the router joins a network with the address.
func (d domain) reaches(ip netip.Addr) bool {
	return slices.ContainsFunc(d.networks, func(n cloud.PrivateNetwork) bool { return contains(n, ip) })
}

// labelCluster marks a router that this program made, so that it is found again after a crash.
const labelCluster = "ccm_cluster"

// createRouter makes a router for the nodes' private networks that have none, and attaches them. Whatever was done before is
// found again.
func (r *Routes) createRouter(ctx context.Context, owner Owner, known *v1.Node) error {
	r.creating.Lock()
	defer r.creating.Unlock()
	networks, err := r.config.Cloud.NetworksSince(ctx, time.Now())
	if err != nil {
		return err
	}
	nodes, err := r.allNodes(known)
	if err != nil {
		return err
	}
	used := nodesNetworks(nodes, networks)
	if len(used) == 0 || slices.ContainsFunc(used, func(n cloud.PrivateNetwork) bool { return n.RouterID != "" }) {
		return nil // there is one by now, or nothing to attach yet
	}
	name := strings.TrimSuffix(string(owner), "-")
	made, err := r.config.Cloud.RoutersLabelled(ctx, labelCluster, name)
	if err != nil {
		return err
	}
	if len(made) == 0 {
		router, err := r.config.Cloud.CreateRouter(ctx, name, cloud.Labels{labelCluster: name})
		if err != nil {
			return err
		}
		made = append(made, *router)
	}
	for _, network := range used {
		if err := r.config.Cloud.AttachRouter(ctx, network.ID, made[0].ID); err != nil {
			return err
		}
		r.reattached(nodes, network, made[0].ID)
	}
	r.finding.Lock()
	defer r.finding.Unlock()
	r.found = foundDomain{domain: domain{router: r.found.domain.router}}
	return nil
}

// reattached puts an event on the nodes of a network that had been on a router before, as their routes show.
func (r *Routes) reattached(nodes []*v1.Node, network cloud.PrivateNetwork, router string) {
	for _, node := range nodes {
		if hadRoute(node) && slices.ContainsFunc(internalIPs(node.Status.Addresses), func(ip netip.Addr) bool { return contains(network, ip) }) {
			r.warn(node, ReasonRouterAttached, "Private network %s (%s) was detached from its router outside Kubernetes; attached it to router %s. "+
				"If Terraform manages the network, set its router there, or lifecycle { ignore_changes = [router] }", network.Name, network.ID, router)
		}
	}
}
