package instances

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// nodeAddresses turns a server's addresses into a Node's.
//
//   - InternalIP: those of private networks; without one, the utility network's; without that, the public ones.
//   - ExternalIP: the public ones.
//   - Floating addresses may be another server's in a moment, and are left out.
//   - What the kubelet was told with --node-ip is always among them, whatever its kind, and the node controller then drops
//     the others of that kind.
//
// IPv4 comes first, as many programs look at the first address only.
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
	all = appendAddresses(all, v1.NodeInternalIP, internal)
	return appendAddresses(all, v1.NodeExternalIP, byAccess["public"]), nil
}

// loses says whether the Node has an IP address that is not among these.
func loses(node *v1.Node, addresses []v1.NodeAddress) bool {
	return slices.ContainsFunc(node.Status.Addresses, func(have v1.NodeAddress) bool {
		isIP := have.Type == v1.NodeInternalIP || have.Type == v1.NodeExternalIP
		return isIP && !slices.Contains(addresses, have)
	})
}

// providedNodeIPs reads the annotation in which a kubelet repeats its --node-ip.
func providedNodeIPs(node *v1.Node) ([]netip.Addr, error) {
	annotation, ok := node.Annotations[cloudproviderapi.AnnotationAlphaProvidedIPAddr]
	if !ok {
		return nil, nil
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

func appendAddresses(all []v1.NodeAddress, kind v1.NodeAddressType, ips []netip.Addr) []v1.NodeAddress {
	for _, wantV4 := range []bool{true, false} {
		for _, ip := range ips {
			if ip.Is4() == wantV4 {
				all = append(all, v1.NodeAddress{Type: kind, Address: ip.String()})
			}
		}
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
