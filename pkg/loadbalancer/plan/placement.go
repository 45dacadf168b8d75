package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Placement is where a new load balancer goes. Neither can be changed later.
type Placement struct {
	Zone      string
	NetworkID string // private network through which it reaches the nodes
	// Outside names the nodes that are not in that network.
	Outside  []string
	Networks []cloud.LoadBalancerNetwork // all that the load balancer is made on
}

// Wanted leaves out the networks that the load balancer will not be on, if the Service says which ones it will.
func Wanted(networks []cloud.PrivateNetwork, asked *settings.Settings) []cloud.PrivateNetwork {
	ids := slices.Clone(asked.Private)
	for _, network := range asked.Networks {
		if network.Type == "private" {
			ids = append(ids, network.ID)
		}
	}
	if len(ids) == 0 || slices.Contains(ids, "") {
		return networks
	}
	return slices.DeleteFunc(slices.Clone(networks), func(n cloud.PrivateNetwork) bool { return !slices.Contains(ids, n.ID) })
}

// PlanNetworks are the networks of a new load balancer: those of the Service's JSON, in which a private network without UUID is
// the nodes', or the public and the nodes' one.
func PlanNetworks(asked *settings.Settings, nodes string) []cloud.LoadBalancerNetwork {
	if len(asked.Networks) > 0 {
		all := slices.Clone(asked.Networks)
		for i := range all {
			if all[i].Type == "private" && all[i].ID == "" {
				all[i].ID = nodes
			}
		}
		return all
	}
	var all []cloud.LoadBalancerNetwork
	if asked.Visibility != settings.VisibilityPrivate {
		all = append(all, cloud.LoadBalancerNetwork{Name: networkPublic, Type: "public", Family: "IPv4"})
	}
	ids := asked.Private
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

// LocateIn finds the servers of nodes. missing are the IDs of servers that the list does not have.
func LocateIn(set *cloud.ServerSet, nodes []*v1.Node) (located []LocatedNode, missing []string) {
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
		located = append(located, LocatedNode{name: node.Name, serverID: id, Zone: server.Zone, ips: InternalIPv4s(node.Status.Addresses)})
	}
	return located, missing
}

// InsideOfAny says which nodes have their address in a private network that the load balancer is attached to. outside are the server IDs of the others.
func InsideOfAny(
	all []cloud.PrivateNetwork, attached []cloud.LoadBalancerNetwork, nodes []LocatedNode,
) (inside map[string]bool, outside []string) {
	all = attachedTo(all, attached)
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

// LocatedNode is a node whose server is known.
type LocatedNode struct {
	name, serverID, Zone string
	ips                  []netip.Addr // the first is its members', unless another one is in the load balancer's network
}

// ChoosePlacement is the thinking part of place.
func ChoosePlacement(zone string, nodes []LocatedNode, networks []cloud.PrivateNetwork) (Placement, error) {
	type score struct{ attached, reachable, first int }
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
			if slices.Contains(network.ServerIDs, node.serverID) && len(node.ips) > 0 && contains(network, node.ips[0]) {
				s.first++
			}
		}
		order := cmp.Or(cmp.Compare(s.first, bestScore.first), cmp.Compare(s.reachable, bestScore.reachable),
			cmp.Compare(s.attached, bestScore.attached))
		if s.attached > 0 && (order > 0 || order == 0 && best >= 0 && network.ID < networks[best].ID) {
			best, bestScore = i, s
		}
	}
	if best < 0 {
		return Placement{}, fmt.Errorf("none of the nodes in zone %s is in a private (SDN) network that the load balancer may be on, "+
			"through which it reaches them: attach their servers to one private network, or name theirs in annotation %sprivate-networks",
			zone, settings.AnnotationPrefix)
	}
	return Placement{Zone: zone, NetworkID: networks[best].ID}, nil
}

// Outside names the nodes that have no address in a private network that the load balancer is attached to.
func Outside(all []cloud.PrivateNetwork, attached []cloud.LoadBalancerNetwork, nodes []LocatedNode) []string {
	inside, _ := InsideOfAny(all, attached, nodes)
	var names []string
	for _, node := range nodes {
		if !inside[node.name] {
			names = append(names, node.name)
		}
	}
	slices.Sort(names)
	return names
}

// MostOf returns the key with the highest count, the first in the alphabet of several.
func MostOf(counts map[string]int) string {
	var best string
	for key, count := range counts {
		if best == "" || cmp.Or(cmp.Compare(count, counts[best]), strings.Compare(best, key)) > 0 {
			best = key
		}
	}
	return best
}

func (n LocatedNode) within(network cloud.PrivateNetwork) bool {
	return slices.Contains(network.ServerIDs, n.serverID) &&
		slices.ContainsFunc(n.ips, func(ip netip.Addr) bool { return contains(network, ip) })
}

func contains(network cloud.PrivateNetwork, ip netip.Addr) bool {
	return slices.ContainsFunc(network.Prefixes, func(prefix netip.Prefix) bool { return prefix.Contains(ip) })
}
