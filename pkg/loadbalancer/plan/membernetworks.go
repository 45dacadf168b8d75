package plan

import (
	"net/netip"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// HaveSeveralAddresses says whether any node has more than one address that its members could get.
func HaveSeveralAddresses(nodes []*v1.Node) bool {
	return slices.ContainsFunc(nodes, func(node *v1.Node) bool { return len(InternalIPv4s(node.Status.Addresses)) > 1 })
}

// HasPrivate says whether there is a private network among those of a load balancer.
func HasPrivate(attached []cloud.LoadBalancerNetwork) bool {
	return slices.ContainsFunc(attached, func(n cloud.LoadBalancerNetwork) bool { return n.ID != "" })
}

// InNetworks returns the nodes, each with an address first by which a load balancer that is attached to these networks reaches it: the
// first that is in any of them. Nodes without one stay as they are. unclear are the server IDs of those that have several addresses
// and none there.
func InNetworks(
	all []cloud.PrivateNetwork, attached []cloud.LoadBalancerNetwork, nodes []*v1.Node,
) (ordered []*v1.Node, unclear []string) {
	all = attachedTo(all, attached)
	for _, node := range nodes {
		ips := InternalIPv4s(node.Status.Addresses)
		id, err := providerid.Parse(node.Spec.ProviderID)
		if len(ips) < 2 || err != nil {
			ordered = append(ordered, node)
			continue
		}
		at := slices.IndexFunc(ips, func(ip netip.Addr) bool {
			return slices.ContainsFunc(all, LocatedNode{serverID: id, ips: []netip.Addr{ip}}.within)
		})
		if at < 0 {
			unclear = append(unclear, id)
		}
		ordered = append(ordered, withFirst(node, ips, at))
	}
	return ordered, unclear
}

// withFirst is the node with one of its addresses before the others.
func withFirst(node *v1.Node, ips []netip.Addr, at int) *v1.Node {
	if at <= 0 {
		return node
	}
	ordered := *node
	first := v1.NodeAddress{Type: v1.NodeInternalIP, Address: ips[at].String()}
	ordered.Status.Addresses = append([]v1.NodeAddress{first}, node.Status.Addresses...)
	return &ordered
}

func attachedTo(all []cloud.PrivateNetwork, attached []cloud.LoadBalancerNetwork) []cloud.PrivateNetwork {
	return slices.DeleteFunc(slices.Clone(all), func(network cloud.PrivateNetwork) bool {
		return !slices.ContainsFunc(attached, func(n cloud.LoadBalancerNetwork) bool { return n.ID == network.ID })
	})
}
