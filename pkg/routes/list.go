package routes

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// ListRoutes returns the routes that this cluster's nodes have, from one reading of the router. The route controller asks for what it
// misses, and deletes what it cannot match with a node. So these are left out:
//
//   - routes of other owners, except those that lead to a node as its own route would;
//   - routes that lead to an address which their node does not have: the controller asks for the node's route, which replaces the wrong
//     one at once, without a moment in which there is none;
//   - routes with this cluster's name that are not proved to be its own.
//
// A route whose node is gone is called a black hole, which the controller deletes.
func (r *Routes) ListRoutes(ctx context.Context, _ string) ([]*cloudprovider.Route, error) {
	ctx = shareOfRoutes(ctx)
	owner, err := r.ownerOf(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := r.nodes.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	r.watch.look(nodes)
	in, router, err := r.currentRouter(ctx)
	var none *noRouterError
	if errors.As(err, &none) {
		return nil, nil // CreateRoute puts an event on each node
	}
	if err != nil {
		return nil, err
	}
	r.metrics.observe(owner, router.Routes)
	r.claims.keepOnly(router.Routes)
	l := newListing(r, owner, in, nodes)
	for _, e := range entriesOf(router.Routes) {
		l.sort(e)
	}
	l.decide(ctx)
	r.removeRefused(ctx, router.ID, owner, l.refused)
	r.removeLeftovers(ctx, router.ID, owner)
	return l.shown, nil
}

// listing sorts the routes of the router.
type listing struct {
	routes *Routes
	owner  Owner
	in     domain
	byHash map[string]*v1.Node
	pods   *podCIDRs

	shown   []*cloudprovider.Route
	leaving []leaving // routes that are to go if they are the cluster's
	refused []entry   // routes of Pod CIDRs that may not have one, if they are the cluster's
}

type leaving struct {
	entry entry
	shown *cloudprovider.Route // nil: it is not for the controller to remove
}

func newListing(r *Routes, owner Owner, in domain, nodes []*v1.Node) *listing {
	l := &listing{routes: r, owner: owner, in: in, byHash: make(map[string]*v1.Node, len(nodes)), pods: newPodCIDRs(r.config.ClusterCIDRs, nodes)}
	for _, node := range nodes {
		l.byHash[nodeHash(node.Name)] = node
	}
	return l
}

func (l *listing) sort(e entry) {
	switch {
	case l.owner.owns(e.key.name):
		l.sortOwn(e, l.byHash[l.owner.nodeOf(e.key.name)])
	default:
		l.sortForeign(e)
	}
}

// sortOwn sorts a route with this cluster's name.
func (l *listing) sortOwn(e entry, node *v1.Node) {
	shown := &cloudprovider.Route{Name: e.key.name, DestinationCIDR: e.route.Prefix}
	if node == nil {
		shown.Blackhole = true
		l.leaving = append(l.leaving, leaving{e, shown})
		return
	}
	shown.TargetNode = nodeName(node)
	i := slices.IndexFunc(node.Spec.PodCIDRs, func(cidr string) bool {
		prefix, err := parsePodCIDR(cidr)
		return err == nil && prefix == e.key.prefix
	})
	if i < 0 {
		if !l.pods.isAllowed(e.key.prefix) { // the controller does not touch what is outside --cluster-cidr
			shown = nil
		}
		l.leaving = append(l.leaving, leaving{e, shown})
		return
	}
	shown.DestinationCIDR = node.Spec.PodCIDRs[i] // as the Node writes it, which is what the controller compares
	internal := internalIPs(node.Status.Addresses)
	switch {
	case l.pods.check(node, e.key.prefix, l.in.networks) != nil:
		l.leaving = append(l.leaving, leaving{e, nil})
	case len(internal) == 0: // not initialized yet
		l.shown = append(l.shown, shown)
	case slices.Contains(internal, e.key.hop) && l.in.reaches(e.key.hop):
		if l.routes.watch.live(node) {
			l.routes.claims.prove(e.key)
		}
		l.shown = append(l.shown, shown)
	}
}

// sortForeign shows another owner's route that leads to a node as its own route would. One that was made for another cluster, in which
// the node's server was before, is taken over as soon as the node is known to be alive in this one.
func (l *listing) sortForeign(e entry) {
	for _, node := range l.pods.byCIDR[e.key.prefix] {
		if !slices.Contains(internalIPs(node.Status.Addresses), e.key.hop) || !l.in.reaches(e.key.hop) ||
			l.pods.check(node, e.key.prefix, l.in.networks) != nil || isRouteName(e.key.name) && l.routes.watch.live(node) {
			continue
		}
		for _, cidr := range node.Spec.PodCIDRs {
			if prefix, err := parsePodCIDR(cidr); err == nil && prefix == e.key.prefix {
				l.shown = append(l.shown, &cloudprovider.Route{Name: e.key.name, DestinationCIDR: cidr, TargetNode: nodeName(node)})
			}
		}
	}
}

// decide shows the controller those of the leaving routes that are the cluster's.
func (l *listing) decide(ctx context.Context) {
	if len(l.leaving) == 0 {
		return
	}
	var routes []cloud.StaticRoute
	for _, leaving := range l.leaving {
		routes = append(routes, leaving.entry.route)
	}
	mine := l.routes.mine(ctx, l.owner, l.in.networks, routes)
	for _, leaving := range l.leaving {
		outside := !l.pods.isAllowed(leaving.entry.key.prefix)
		switch {
		case !mine[leaving.entry.key]:
		case leaving.shown == nil || outside:
			if l.pods.arePlausible() {
				l.refused = append(l.refused, leaving.entry)
			}
		default:
			l.shown = append(l.shown, leaving.shown)
		}
	}
}

// removeRefused removes routes that the controller does not: those of Pod CIDRs that may not have one.
func (r *Routes) removeRefused(ctx context.Context, router string, owner Owner, refused []entry) {
	if len(refused) == 0 {
		return
	}
	var changes []*change
	for _, e := range refused {
		klog.FromContext(ctx).Info("Removing a static route whose prefix is no valid Pod CIDR", "router", router, "route", e.key.name, "prefix", e.key.prefix)
		changes = append(changes, newChange(e.key.name, e.key.prefix, netip.Addr{}))
	}
	if err := r.writerOf(router, owner).do(ctx, changes...); err != nil {
		klog.FromContext(ctx).Error(err, "Failed to remove static routes", "router", router)
	}
}
