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
	"k8s.io/apimachinery/pkg/types"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// Reasons of the events on Nodes.
const (
	// ReasonNoRouter: there is no router to put the node's route on.
	ReasonNoRouter = "NoRouter"
	// ReasonNoNextHop: the node has no address that the router reaches.
	ReasonNoNextHop = "NoRouteAddress"
	// ReasonLimit: the API allows the router no more routes.
	ReasonLimit = "RouteLimitReached"
	// ReasonConflict: another owner's route is in the way.
	ReasonConflict = "RouteConflict"
	// ReasonPodCIDR: the node's Pod CIDR may not have a route.
	ReasonPodCIDR = "InvalidPodCIDR"
	// ReasonRestored: the node's route was removed or changed outside Kubernetes, and was created again.
	ReasonRestored = "RouteRestored"
	// ReasonRouterAttached: the node's network was detached from its router outside Kubernetes, and was attached again.
	ReasonRouterAttached = "RouterAttached"
	// ReasonFilter: the packets of the node's Pods are dropped.
	ReasonFilter = "SourceIPFiltering"
)

// movedAge is for how long routes that are created are said to follow the nodes' network to another router.
const movedAge = 2 * time.Minute

func nodeName(node *v1.Node) types.NodeName { return types.NodeName(node.Name) }

// CreateRoute makes the router send what is for a Pod CIDR to its node, and returns when that is read back. A node of another
// cloud gets none: its network is somebody else's.
//
// An error makes the controller set the Node's condition NetworkUnavailable and come again in ten seconds. What an operator has
// to change is told once, in an event of its own.
func (r *Routes) CreateRoute(ctx context.Context, _ string, _ string, route *cloudprovider.Route) error {
	ctx = shareOfRoutes(ctx)
	node, err := r.nodes.Get(string(route.TargetNode))
	if err != nil {
		return err
	}
	if !r.inScope(node) {
		klog.FromContext(ctx).V(2).Info("A node of another cloud gets no route", "node", node.Name, "podCIDR", route.DestinationCIDR)
		return nil
	}
	prefix, err := parsePodCIDR(route.DestinationCIDR)
	if err != nil {
		err = &PodCIDRError{fmt.Sprintf("Node %s: %v, no route created; recreate the Node, so that it gets another Pod CIDR", node.Name, err)}
		r.tell(node, err)
		return err
	}
	owner, err := r.ownerOf(ctx)
	if err != nil {
		return err
	}
	router, hop, err := r.target(ctx, node, owner, prefix)
	c := newChange(owner.routeName(node.Name, prefix), prefix, hop)
	if err == nil {
		err = r.writerOf(router, owner).do(ctx, c)
	}
	if err != nil {
		r.tell(node, err)
		return err
	}
	if c.effect != effectForeign {
		r.claims.prove(c.key())
	}
	r.letPodsOut(ctx, node, hop)
	if hadRoute(node) {
		r.restored(node, router, c)
	}
	return nil
}

// hadRoute says that the route controller has made the node's routes before, as it noted in the Node.
func hadRoute(node *v1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c v1.NodeCondition) bool {
		return c.Type == v1.NodeNetworkUnavailable && c.Status == v1.ConditionFalse && c.Reason == "RouteCreated"
	})
}

// restored puts an event on a node whose route was not there any more.
func (r *Routes) restored(node *v1.Node, router string, c *change) {
	r.finding.Lock()
	moved := r.moved
	r.finding.Unlock()
	what := ""
	switch {
	case c.effect == effectAdded && moved.to == router && time.Since(moved.at) < movedAge:
		what = fmt.Sprintf("The private network of the nodes was moved from router %s to router %s outside Kubernetes; created the static route to %s "+
			"via %s there", moved.from, router, c.prefix, c.hop)
	case c.effect == effectAdded:
		what = fmt.Sprintf("The static route to %s was removed from router %s outside Kubernetes; created it again via %s. If Terraform manages the "+
			"router, set lifecycle { ignore_changes = [static_route] } there", c.prefix, router, c.hop)
	case c.effect == effectReplaced:
		what = fmt.Sprintf("The static route to %s on router %s did not lead to this node; replaced it by one via %s", c.prefix, router, c.hop)
	}
	if what != "" && r.events != nil {
		r.events.Event(node, v1.EventTypeWarning, ReasonRestored, what)
	}
}

// noNextHopError says that the router does not reach the node.
type noNextHopError struct{ text string }

func (e *noNextHopError) Error() string { return e.text }

// target finds the router and the node's address that it reaches.
func (r *Routes) target(ctx context.Context, node *v1.Node, owner Owner, prefix netip.Prefix) (string, netip.Addr, error) {
	known, err := r.initialized(ctx, node)
	if err != nil {
		return "", netip.Addr{}, err
	}
	if known != nil {
		node = known
	}
	internal := internalIPs(node.Status.Addresses)
	in, err := r.routerDomain(ctx, known, false)
	var none *noRouterError
	if errors.As(err, &none) && r.config.CreateRouter && r.config.RouterID == "" {
		if err := r.createRouter(ctx, owner, known); err != nil {
			return "", netip.Addr{}, err
		}
		in, err = r.routerDomain(ctx, known, true)
	}
	if err == nil {
		err = r.checkPodCIDR(node, prefix, in)
	}
	if err != nil {
		return "", netip.Addr{}, err
	}
	if hop, found := in.nextHop(internal, prefix); found {
		return in.router, hop, nil
	}
	if in, err = r.routerDomain(ctx, known, true); err != nil {
		return "", netip.Addr{}, err
	}
	if hop, found := in.nextHop(internal, prefix); found {
		return in.router, hop, nil
	}
	return "", netip.Addr{}, in.unreachable(internal, prefix)
}

// initialized is a node that waits for its initialization with what it is about to get: its route need not wait for that.
// nil: the node has it.
func (r *Routes) initialized(ctx context.Context, node *v1.Node) (*v1.Node, error) {
	if len(internalIPs(node.Status.Addresses)) > 0 || r.config.Metadata == nil {
		return nil, nil
	}
	metadata, err := r.config.Metadata(ctx, node)
	if err != nil || metadata == nil {
		return nil, err
	}
	node = node.DeepCopy()
	node.Spec.ProviderID, node.Status.Addresses = metadata.ProviderID, metadata.NodeAddresses
	return node, nil
}

func (d domain) unreachable(internal []netip.Addr, prefix netip.Prefix) error {
	family := "IPv6"
	if prefix.Addr().Is4() {
		family = "IPv4"
	}
	var networks, has []string
	for _, network := range d.networks {
		networks = append(networks, fmt.Sprintf("%s %v", network.Name, network.Prefixes))
	}
	for _, ip := range internal {
		has = append(has, ip.String())
	}
	return &noNextHopError{fmt.Sprintf("none of the node's internal addresses (%s) is an %s address on a private network of router %s "+
		"(%s): attach its server to one of them, and let the kubelet's --node-ip, if given, be its address there",
		strings.Join(has, ", "), family, d.router, strings.Join(networks, ", "))}
}

// letPodsOut looks after the filter that drops what a server sends from addresses other than its own, as its Pods do. Where it
// cannot tell, it says nothing: the route is there all the same.
func (r *Routes) letPodsOut(ctx context.Context, node *v1.Node, hop netip.Addr) {
	server, address, known := r.interfaceOf(ctx, node, hop)
	switch {
	case known && address.Filtered:
		r.stopFiltering(ctx, node, server, address)
	case known:
		r.tell(node, nil)
	}
}

// interfaceOf finds the server's address to which the node's route leads.
func (r *Routes) interfaceOf(ctx context.Context, node *v1.Node, hop netip.Addr) (server string, _ cloud.Address, known bool) {
	id, err := providerid.Parse(node.Spec.ProviderID)
	if err != nil {
		return "", cloud.Address{}, false // not initialized yet
	}
	addresses, err := r.config.Cloud.ServerAddresses(ctx, id)
	if err != nil {
		return "", cloud.Address{}, false
	}
	i := slices.IndexFunc(addresses, func(a cloud.Address) bool { return a.IP == hop })
	if i < 0 {
		return "", cloud.Address{}, false
	}
	return id, addresses[i], true
}

// stopFiltering switches the filter off where that is allowed, and else says what it does. It is no error: Pods whose
// packets leave under their node's address are not concerned.
func (r *Routes) stopFiltering(ctx context.Context, node *v1.Node, server string, address cloud.Address) {
	var err error
	if r.config.ManageSourceFilter {
		if err = r.config.Cloud.AllowForeignSources(ctx, server, address.Interface); err == nil {
			r.tell(node, nil)
			return
		}
	}
	r.warn(node, ReasonFilter, "interface %d (%s) of server %s has source IP filtering on, which drops what Pods send to other nodes "+
		"under their own addresses: stop the server, switch the filtering of that interface off, and start it%s",
		address.Interface, address.IP, server, because(err))
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return "; the CCM could not do so: " + err.Error()
}

// tell puts on the Node what its operator has to change; nil: nothing any more.
func (r *Routes) tell(node *v1.Node, err error) {
	var none *noRouterError
	var unreachable *noNextHopError
	var full *FullError
	var conflict *ConflictError
	var invalid *PodCIDRError
	switch {
	case err == nil:
		r.mu.Lock()
		delete(r.warned, node.Name)
		r.mu.Unlock()
	case errors.As(err, &none):
		r.warn(node, ReasonNoRouter, "%v", err)
	case errors.As(err, &unreachable):
		r.warn(node, ReasonNoNextHop, "%v", err)
	case errors.As(err, &full):
		r.warn(node, ReasonLimit, "%v", err)
	case errors.As(err, &conflict):
		r.warn(node, ReasonConflict, "%v", err)
	case errors.As(err, &invalid):
		r.warn(node, ReasonPodCIDR, "%v", err)
	}
}

// warn puts a Warning on the Node, unless it was the last one.
func (r *Routes) warn(node *v1.Node, reason, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	last := r.warned[node.Name]
	r.warned[node.Name] = reason + text
	r.mu.Unlock()
	if r.events != nil && last != reason+text {
		r.events.Event(node, v1.EventTypeWarning, reason, text)
	}
}
