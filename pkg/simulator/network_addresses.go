package simulator

import (
	"net/http"
	"net/netip"
)

// prefix returns the IP network of the family.
func (n *network) prefix(family string) (netip.Prefix, netip.Addr, bool) {
	for _, ip := range n.ip {
		if ip.Family == family {
			gateway, _ := netip.ParseAddr(ip.Gateway)
			return netip.MustParsePrefix(ip.Address).Masked(), gateway, true
		}
	}
	return netip.Prefix{}, netip.Addr{}, false
}

// allocate takes an address of the network: the one asked for, or the next one that is free.
func (n *network) allocate(family string, asked netip.Addr) (netip.Addr, error) {
	prefix, gateway, ok := n.prefix(family)
	if !ok {
		return netip.Addr{}, badRequest("IP_ADDRESS_INVALID", "The network %s has no %s addresses.", n.uuid, family)
	}
	if asked.IsValid() {
		if !prefix.Contains(asked) || asked == gateway || asked == prefix.Addr() {
			return netip.Addr{}, badRequest("IP_ADDRESS_INVALID", "The address %s is not available in the network %s.", asked,
				n.uuid)
		}
		if n.used[asked] {
			return netip.Addr{}, conflict("IP_ADDRESS_RESOURCES_UNAVAILABLE", "The address %s is in use in the network %s.",
				asked, n.uuid)
		}
		n.used[asked] = true
		return asked, nil
	}
	free := func(a netip.Addr) bool {
		return a != gateway && a != prefix.Addr() && !n.used[a] && (!a.Is4() || prefix.Contains(a.Next()))
	}
	for range 2 {
		a := n.cursor
		if !a.IsValid() || !prefix.Contains(a) {
			a = prefix.Addr().Next()
		}
		for ; prefix.Contains(a); a = a.Next() {
			if free(a) {
				n.used[a], n.cursor = true, a.Next()
				return a, nil
			}
		}
		n.cursor = netip.Addr{}
	}
	return netip.Addr{}, refuse(http.StatusServiceUnavailable, "IP_ADDRESS_RESOURCES_UNAVAILABLE",
		"The network %s has no free address.", n.uuid)
}

// release gives an address back. The lowest free one is given out first, so that small networks are used evenly.
func (n *network) release(a netip.Addr) {
	delete(n.used, a)
	if n.kind == networkPrivate && (!n.cursor.IsValid() || a.Less(n.cursor)) {
		n.cursor = a
	}
}
