package loadbalancer

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// noNodesRetry is when to look again for nodes: no event tells of the first one that a Service waits for.
const noNodesRetry = 5 * time.Second

// Placement is where a new load balancer goes. Neither can be changed later.
type Placement struct {
	Zone      string
	NetworkID string // private network through which it reaches the nodes
	// Outside names the nodes that are not in that network.
	Outside  []string
	Networks []cloud.LoadBalancerNetwork // all that the load balancer is made on
}

// place finds the zone and the private network of the nodes: the network in which most of them have the address that
// becomes their member's. What the Service asks for wins.
func (l *LoadBalancers) place(ctx context.Context, settings *Settings, nodes []*v1.Node) (Placement, error) {
	located, err := l.locate(ctx, nodes, time.Now().Add(-recentAge))
	if err != nil {
		return Placement{}, err
	}
	if len(located) == 0 {
		return Placement{}, api.NewRetryError("no node is known to be an UpCloud server yet, so there is no zone and no network "+
			"to make a load balancer in", noNodesRetry)
	}
	zones := map[string]int{}
	for _, node := range located {
		zones[node.zone]++
	}
	zone := mostOf(zones)
	networks, err := l.config.Cloud.PrivateNetworks(ctx, zone)
	if err != nil {
		return Placement{}, err
	}
	place, err := choosePlacement(zone, located, wanted(networks, settings))
	if err != nil {
		return Placement{}, err
	}
	place.Networks = planNetworks(settings, place.NetworkID)
	if place.Zone = settings.Zone; place.Zone == "" {
		place.Zone, err = l.loadBalancerZone(ctx, zone)
	}
	return place, err
}

// wanted leaves out the networks that the load balancer will not be on, if the Service says which ones it will.
func wanted(networks []cloud.PrivateNetwork, settings *Settings) []cloud.PrivateNetwork {
	ids := slices.Clone(settings.Private)
	for _, network := range settings.Networks {
		if network.Type == "private" {
			ids = append(ids, network.ID)
		}
	}
	if len(ids) == 0 || slices.Contains(ids, "") {
		return networks
	}
	return slices.DeleteFunc(slices.Clone(networks), func(n cloud.PrivateNetwork) bool { return !slices.Contains(ids, n.ID) })
}

// planNetworks are the networks of a new load balancer: those of the Service's JSON, in which a private network without UUID is
// the nodes', or the public and the nodes' one.
func planNetworks(settings *Settings, nodes string) []cloud.LoadBalancerNetwork {
	if len(settings.Networks) > 0 {
		all := slices.Clone(settings.Networks)
		for i := range all {
			if all[i].Type == "private" && all[i].ID == "" {
				all[i].ID = nodes
			}
		}
		return all
	}
	var all []cloud.LoadBalancerNetwork
	if settings.Visibility != visibilityPrivate {
		all = append(all, cloud.LoadBalancerNetwork{Name: networkPublic, Type: "public", Family: "IPv4"})
	}
	ids := settings.Private
	if len(ids) == 0 {
		ids = []string{nodes}
	}
	for i, id := range ids {
		name := networkPrivate
		if i > 0 {
			name = fmt.Sprintf("%s-%d", networkPrivate, i+1)
		}
		all = append(all, cloud.LoadBalancerNetwork{Name: name, Type: "private", Family: "IPv4", ID: id})
	}
	return all
}

// locate finds the nodes' servers, as they were at that moment or later. Nodes that are not initialized yet, are another cloud's, or
// have no server any more are left out.
func (l *LoadBalancers) locate(ctx context.Context, nodes []*v1.Node, since time.Time) ([]locatedNode, error) {
	set, err := l.config.Cloud.ServersSince(ctx, since)
	if err != nil {
		return nil, err
	}
	located, missing := locateIn(set, nodes)
	if len(missing) == 0 {
		return located, nil
	}
	// A server may be newer than the list.
	if set, err = l.config.Cloud.ServersSince(ctx, l.sought.moment(missing, time.Now())); err != nil {
		return nil, err
	}
	located, _ = locateIn(set, nodes)
	return located, nil
}

func locateIn(set *cloud.ServerSet, nodes []*v1.Node) (located []locatedNode, missing []string) {
	for _, node := range nodes {
		id, err := providerid.Parse(node.Spec.ProviderID)
		if err != nil {
			continue
		}
		server, ok := set.Server(id)
		if !ok {
			missing = append(missing, id)
			continue
		}
		ip, _ := internalIPv4(node)
		located = append(located, locatedNode{name: node.Name, serverID: id, zone: server.Zone, ip: ip})
	}
	return located, missing
}

// insideOf returns the names of those nodes that are in one of the networks, by their servers and by their addresses.
func (l *LoadBalancers) insideOf(ctx context.Context, attached []cloud.LoadBalancerNetwork, nodes []locatedNode) (map[string]bool, error) {
	all, err := l.config.Cloud.NetworksSince(ctx, time.Now().Add(-settledAge))
	if err != nil {
		return nil, err
	}
	inside, outside := insideOfAny(all, attached, nodes)
	if len(outside) == 0 {
		return inside, nil
	}
	// A server may be attached since.
	if all, err = l.config.Cloud.NetworksSince(ctx, l.sought.moment(outside, time.Now())); err != nil {
		return nil, err
	}
	inside, _ = insideOfAny(all, attached, nodes)
	return inside, nil
}

func insideOfAny(
	all []cloud.PrivateNetwork, attached []cloud.LoadBalancerNetwork, nodes []locatedNode,
) (inside map[string]bool, outside []string) {
	all = slices.DeleteFunc(slices.Clone(all), func(network cloud.PrivateNetwork) bool {
		return !slices.ContainsFunc(attached, func(n cloud.LoadBalancerNetwork) bool { return n.ID == network.ID })
	})
	inside = map[string]bool{}
	for _, node := range nodes {
		if slices.ContainsFunc(all, node.within) {
			inside[node.name] = true
		} else {
			outside = append(outside, node.serverID)
		}
	}
	return inside, outside
}

// loadBalancerZone is the zone itself, or the parent of a private cloud's zone, as load balancers are offered in public
// zones only.
func (l *LoadBalancers) loadBalancerZone(ctx context.Context, id string) (string, error) {
	zones, err := l.config.Cloud.Zones(ctx)
	if err != nil {
		return "", err
	}
	for _, zone := range zones {
		if zone.ID == id && !zone.Public && zone.ParentID != "" {
			return zone.ParentID, nil
		}
	}
	return id, nil
}

// locatedNode is a node whose server is known.
type locatedNode struct {
	name, serverID, zone string
	ip                   netip.Addr // of its members
}

func (n locatedNode) within(network cloud.PrivateNetwork) bool {
	return slices.Contains(network.ServerIDs, n.serverID) &&
		slices.ContainsFunc(network.Prefixes, func(prefix netip.Prefix) bool { return prefix.Contains(n.ip) })
}

// choosePlacement is the thinking part of place.
func choosePlacement(zone string, nodes []locatedNode, networks []cloud.PrivateNetwork) (Placement, error) {
	type score struct{ attached, reachable int }
	best, bestScore := -1, score{}
	for i, network := range networks {
		var s score
		for _, node := range nodes {
			if slices.Contains(network.ServerIDs, node.serverID) {
				s.attached++
			}
			if node.within(network) {
				s.reachable++
			}
		}
		order := cmp.Or(cmp.Compare(s.reachable, bestScore.reachable), cmp.Compare(s.attached, bestScore.attached))
		if s.attached > 0 && (order > 0 || order == 0 && best >= 0 && network.ID < networks[best].ID) {
			best, bestScore = i, s
		}
	}
	if best < 0 {
		return Placement{}, fmt.Errorf("none of the nodes in zone %s is in a private (SDN) network that the load balancer may be on, "+
			"through which it reaches them: attach their servers to one private network, or name theirs in annotation %sprivate-networks",
			zone, AnnotationPrefix)
	}
	place := Placement{Zone: zone, NetworkID: networks[best].ID}
	for _, node := range nodes {
		if !node.within(networks[best]) {
			place.Outside = append(place.Outside, node.name)
		}
	}
	slices.Sort(place.Outside)
	return place, nil
}

// mostOf returns the key with the highest count, the first in the alphabet of several.
func mostOf(counts map[string]int) string {
	var best string
	for key, count := range counts {
		if best == "" || cmp.Or(cmp.Compare(count, counts[best]), strings.Compare(best, key)) > 0 {
			best = key
		}
	}
	return best
}

// checkAddresses refuses a floating IP address that the account has not, before the load balancer loses another for it. It costs a call
// for each address that is new.
func (w *work) checkAddresses(ctx context.Context, desired Desired, lb *cloud.LoadBalancer) error {
	for _, want := range desired.Addresses {
		if slices.ContainsFunc(lb.Addresses, func(have cloud.FloatingAddress) bool { return have.Address == want.Address }) {
			continue
		}
		free, err := w.config.Cloud.FreeFloatingAddress(ctx, want.Address)
		if err != nil {
			return err
		}
		if free {
			continue
		}
		const why = "the account has no such floating IP address, or it leads to a server: want one that is free"
		problem := invalidAnnotation(floatingIPsName, want.Address, why)
		if len(w.settings.Addresses) == 0 {
			problem = Problem{"UnsupportedLoadBalancerIP", fmt.Sprintf("spec.loadBalancerIP %s: %s", want.Address, why)}
		}
		w.said.say(w.service, []Problem{problem}, w.warn)
		return because(problem.Reason, api.NewRetryError(problem.Message, sharedRetry)) // nothing tells when it is free
	}
	return nil
}
