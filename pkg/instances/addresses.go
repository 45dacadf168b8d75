package instances

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// addresses are the Node's. A new node's come from the server itself. Later they are what it said then, as long as lists
// agree; and an address that the Node has is taken away only on the server's own word.
func (i *Instances) addresses(ctx context.Context, node *v1.Node, server *cloud.Server) ([]v1.NodeAddress, error) {
	if initializing(node) {
		return i.nodeAddresses(ctx, node, server)
	}
	found, err := i.cloud.ServerAddresses(ctx, server.ID)
	if err != nil {
		return nil, err
	}
	remembered := *server
	remembered.Addresses = found
	addresses, err := i.nodeAddresses(ctx, node, &remembered)
	if err == nil && !loses(node, addresses) {
		return addresses, nil
	}
	if server, err = i.cloud.ServerSince(ctx, server.ID, time.Now().Add(-initialAge)); err != nil {
		return nil, err
	}
	return i.nodeAddresses(ctx, node, server)
}

func (i *Instances) nodeAddresses(ctx context.Context, node *v1.Node, server *cloud.Server) ([]v1.NodeAddress, error) {
	chosen, err := i.chosen(ctx, server.Addresses)
	if err != nil {
		return nil, fmt.Errorf("node %s, server %s: %w", node.Name, server.ID, err)
	}
	addresses, err := nodeAddresses(node, chosen)
	if err != nil {
		return nil, fmt.Errorf("node %s, server %s: %w", node.Name, server.ID, err)
	}
	return addresses, nil
}

// nodeAddresses turns a server's addresses into a Node's.
//
//   - InternalIP: those of private networks; without one, the utility network's; without that, the public ones.
//   - ExternalIP: the public ones.
//   - Floating addresses may be another server's in a moment, and are left out.
//   - What the kubelet was told with --node-ip is always among them, whatever its kind, and the node controller then drops
//     the others of that kind.
//
// The order matters, as many programs look at the first address only: what --node-ip names comes first and in its order,
// then the family of its first address, which is IPv4 where there is none.
func nodeAddresses(node *v1.Node, addresses []cloud.Address) ([]v1.NodeAddress, error) {
	provided, err := providedNodeIPs(node)
	if err != nil {
		return nil, err
	}
	byAccess := map[string][]netip.Addr{}
	for _, address := range addresses {
		if !address.Floating || slices.Contains(provided, address.IP.Unmap()) {
			byAccess[address.Access] = append(byAccess[address.Access], address.IP.Unmap())
		}
	}
	internal := firstNonEmpty(byAccess["private"], byAccess["utility"], byAccess["public"])
	if len(internal) == 0 {
		// Written down, it would take from the Node those that it has.
		return nil, fmt.Errorf("the API shows no IP address of the server but floating ones (%s): give it a network interface",
			cmp.Or(join(addresses), "none at all"))
	}
	for _, ip := range provided {
		switch {
		case slices.Contains(internal, ip) || slices.Contains(byAccess["public"], ip):
		case slices.Contains(byAccess["private"], ip) || slices.Contains(byAccess["utility"], ip):
			internal = append(slices.Clone(internal), ip)
		default:
			return nil, fmt.Errorf("the kubelet's --node-ip %s is none of the server's addresses (%s): set it to one of them, or "+
				"leave it out", ip, join(addresses))
		}
	}
	all := []v1.NodeAddress{{Type: v1.NodeHostName, Address: hostname(node)}}
	all = appendAddresses(all, v1.NodeInternalIP, internal, provided)
	return appendAddresses(all, v1.NodeExternalIP, byAccess["public"], provided), nil
}

// loses says whether the Node has an IP address that is not among these.
func loses(node *v1.Node, addresses []v1.NodeAddress) bool {
	return slices.ContainsFunc(node.Status.Addresses, func(have v1.NodeAddress) bool {
		isIP := have.Type == v1.NodeInternalIP || have.Type == v1.NodeExternalIP
		return isIP && !slices.Contains(addresses, have)
	})
}

// maxProvidedIPs is how many bytes the annotation of a kubelet's --node-ip may have, which holds one or two addresses.
const maxProvidedIPs = 1 << 10

// providedNodeIPs reads the annotation in which a kubelet repeats its --node-ip.
func providedNodeIPs(node *v1.Node) ([]netip.Addr, error) {
	annotation, ok := node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr]
	if !ok {
		return nil, nil
	}
	if err := bounded.Text(annotation, maxProvidedIPs); err != nil {
		return nil, fmt.Errorf("annotation %s: %w", cloudproviderapi.AnnotationAlphaProvidedIPAddr, err)
	}
	var ips []netip.Addr
	for text := range strings.SplitSeq(annotation, ",") {
		ip, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("annotation %s=%q: want IP addresses", cloudproviderapi.AnnotationAlphaProvidedIPAddr, annotation)
		}
		ips = append(ips, ip.Unmap())
	}
	return ips, nil
}

// hostname is the kubelet's own word, as the API server reaches the kubelet by it, and else the node's name.
func hostname(node *v1.Node) string {
	for _, address := range node.Status.Addresses {
		if address.Type == v1.NodeHostName {
			return address.Address
		}
	}
	return node.Name
}

func appendAddresses(all []v1.NodeAddress, kind v1.NodeAddressType, ips, provided []netip.Addr) []v1.NodeAddress {
	v4First := len(provided) == 0 || provided[0].Is4()
	rank := func(ip netip.Addr) int {
		if at := slices.Index(provided, ip); at >= 0 {
			return at
		}
		if ip.Is4() == v4First {
			return len(provided)
		}
		return len(provided) + 1
	}
	ips = slices.Clone(ips)
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { return cmp.Compare(rank(a), rank(b)) })
	for _, ip := range slices.Compact(ips) {
		all = append(all, v1.NodeAddress{Type: kind, Address: ip.String()})
	}
	return all
}

func firstNonEmpty(lists ...[]netip.Addr) []netip.Addr {
	for _, list := range lists {
		if len(list) > 0 {
			return list
		}
	}
	return nil
}

func join(addresses []cloud.Address) string {
	var texts []string
	for _, address := range addresses {
		texts = append(texts, address.IP.String()+" "+address.Access)
	}
	return strings.Join(texts, ", ")
}
