package routes

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

const (
	// foreignAge is for how long a route that leads to a server outside the cluster is not looked into again.
	foreignAge = 5 * time.Minute
	// unknownAge is the same where the API did not tell whose the route's next hop is.
	unknownAge = 30 * time.Second
)

// routeKey is what a route is, however the API writes it.
type routeKey struct {
	name   string
	prefix netip.Prefix
	hop    netip.Addr
}

func keyOfRoute(route cloud.StaticRoute) routeKey {
	key := routeKey{name: route.Name}
	if prefix, err := netip.ParsePrefix(route.Prefix); err == nil {
		key.prefix = prefix.Masked()
	}
	if hop, err := netip.ParseAddr(route.NextHop); err == nil {
		key.hop = hop.Unmap()
	}
	return key
}

// claims decides which static routes this cluster may change or remove. A route's name is not enough: a cluster that was restored from
// another's etcd gives its routes the same names, and a cluster that was made on another's servers finds the other's routes there. A
// route is the cluster's
//
//   - if it has the cluster's name, and this process wrote it, or saw it lead to a Node of its own that is alive;
//   - if it has the name of any CCM of this project, and leads to a Node of the cluster that is alive: no other cluster has it;
//   - if it has the cluster's name, and no server has the address that it leads to.
//
// Everything else stays as it is: above all a route that leads to a server which is not a Node here.
type claims struct {
	mu      sync.Mutex
	proved  map[routeKey]bool
	foreign map[routeKey]time.Time // until when
}

func newClaims() *claims {
	return &claims{proved: map[routeKey]bool{}, foreign: map[routeKey]time.Time{}}
}

// prove notes that a route is the cluster's.
func (c *claims) prove(key routeKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proved[key] = true
	delete(c.foreign, key)
}

// isProved says whether the route was proved to be the cluster's before.
func (c *claims) isProved(key routeKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proved[key]
}

// keepOnly forgets what is known of routes that a router does not have any more. A proof outlives that for as long as it is of use: the
// routes of another program's mistake come back as they were.
func (c *claims) keepOnly(routes []cloud.StaticRoute) {
	there := make(map[routeKey]bool, len(routes))
	for _, route := range routes {
		there[keyOfRoute(route)] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.proved {
		if len(c.proved) > 2*len(there)+1000 && !there[key] {
			delete(c.proved, key)
		}
	}
	for key, until := range c.foreign {
		if time.Now().After(until) {
			delete(c.foreign, key)
		}
	}
}

func (c *claims) denied(key routeKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.foreign[key])
}

// deny notes that a route is not the cluster's for now; new says that it was not known.
func (c *claims) deny(key routeKey, age time.Duration) (isNew bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, known := c.foreign[key]
	c.foreign[key] = time.Now().Add(age)
	return !known
}

// mine returns those of the routes of a router, joined to these networks, that this cluster may change.
func (r *Routes) mine(ctx context.Context, owner Owner, networks []cloud.PrivateNetwork, routes []cloud.StaticRoute) map[routeKey]bool {
	mine := map[routeKey]bool{}
	var live []*v1.Node
	for _, route := range routes {
		key := keyOfRoute(route)
		named := owner.owns(route.Name)
		if !named && !isRouteName(route.Name) {
			continue
		}
		if named && r.claims.isProved(key) {
			mine[key] = true
			continue
		}
		if live == nil {
			live = r.liveNodes()
		}
		if leadsToOneOf(live, networks, key.hop) || named && r.leadsNowhere(ctx, networks, key) {
			mine[key] = true
		}
	}
	return mine
}

// liveNodes are the nodes of this cloud whose kubelets report to this cluster; never nil.
func (r *Routes) liveNodes() []*v1.Node {
	nodes, err := r.allNodes(nil)
	if err != nil {
		return []*v1.Node{}
	}
	return slices.DeleteFunc(nodes, func(node *v1.Node) bool { return !r.watch.live(node) })
}

// leadsToOneOf says that a node has the address, on one of the networks if the router has a network with it.
func leadsToOneOf(nodes []*v1.Node, networks []cloud.PrivateNetwork, hop netip.Addr) bool {
	around := slices.DeleteFunc(slices.Clone(networks), func(n cloud.PrivateNetwork) bool { return !contains(n, hop) })
	return slices.ContainsFunc(nodes, func(node *v1.Node) bool {
		if !slices.Contains(internalIPs(node.Status.Addresses), hop) {
			return false
		}
		server, err := providerid.Parse(node.Spec.ProviderID)
		return err == nil && (len(around) == 0 ||
			slices.ContainsFunc(around, func(n cloud.PrivateNetwork) bool { return slices.Contains(n.ServerIDs, server) }))
	})
}

// leadsNowhere says that no server has the route's next hop. Where that is not known, it is not said.
func (r *Routes) leadsNowhere(ctx context.Context, networks []cloud.PrivateNetwork, key routeKey) bool {
	if !key.hop.IsValid() {
		return true
	}
	if r.claims.denied(key) {
		return false
	}
	var around []string
	for _, network := range networks {
		if contains(network, key.hop) {
			around = append(around, network.ID)
		}
	}
	servers, err := r.config.Cloud.ServersWithPrivateAddress(ctx, key.hop, around...)
	log := klog.FromContext(ctx)
	switch {
	case err != nil:
		r.claims.deny(key, unknownAge)
		log.Error(err, "A static route is left alone, as it is not known which server it leads to", "route", key.name, "prefix", key.prefix, "nexthop", key.hop)
	case len(servers) > 0:
		if r.claims.deny(key, foreignAge) {
			log.Info("A static route with this cluster's name is left alone: it leads to a server that is not a live Node of this cluster",
				"route", key.name, "prefix", key.prefix, "nexthop", key.hop, "servers", servers)
		}
	}
	return err == nil && len(servers) == 0
}
