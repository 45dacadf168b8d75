package simulator

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ipAddress is an address of the account. Private ones are known to their interface alone: the API's lists of
// addresses leave them out, as the recordings of servers with private interfaces show.
type ipAddress struct {
	addr          netip.Addr
	access        string // public, utility or private
	floating      bool
	ptr           string
	zone          string
	releasePolicy string
	network       *network
	nic           *nic   // nil: a floating address that is attached to nothing, or to a load balancer
	loadBalancer  string // UUID
}

type addressEntry struct {
	Access        string  `json:"access"`
	Address       string  `json:"address"`
	Family        string  `json:"family"`
	Floating      yesNo   `json:"floating,omitempty"` // as recorded: left out when no
	MAC           string  `json:"mac,omitempty"`
	PTRRecord     string  `json:"ptr_record"`
	ReleasePolicy string  `json:"release_policy,omitempty"`
	Server        *string `json:"server,omitempty"`
	Zone          string  `json:"zone"`
}

type addressAnswer struct {
	IPAddress addressEntry `json:"ip_address"`
}

type addressListAnswer struct {
	IPAddresses struct {
		IPAddress []addressEntry `json:"ip_address"`
	} `json:"ip_addresses"`
}

// addressList is the short form in a server's details.
type addressList struct {
	IPAddress []shortAddress `json:"ip_address"`
}

type shortAddress struct {
	Access  string `json:"access"`
	Address string `json:"address"`
	Family  string `json:"family"`
}

// shortAddresses are the server's public and utility addresses, utility ones first, then IPv6, then IPv4.
func shortAddresses(v *server) []shortAddress {
	out := []shortAddress{}
	for _, n := range v.nics {
		if n.kind == networkPrivate {
			continue
		}
		for _, a := range n.addresses {
			out = append(out, shortAddress{a.access, a.addr.String(), familyOf(a.addr)})
		}
	}
	rank := func(a shortAddress) string { return fmt.Sprint(a.Access != networkUtility, a.Family != familyIPv6) }
	slices.SortStableFunc(out, func(a, b shortAddress) int { return strings.Compare(rank(a), rank(b)) })
	return out
}

func (a *ipAddress) entry() addressEntry {
	e := addressEntry{
		Access: a.access, Address: a.addr.String(), Family: familyOf(a.addr), Floating: yesNo(a.floating),
		PTRRecord: a.ptr, ReleasePolicy: a.releasePolicy, Zone: a.zone,
	}
	if a.nic != nil {
		e.MAC, e.Server = a.nic.mac, &a.nic.server.uuid
	}
	return e
}

func ptrRecord(a netip.Addr, zone string) string {
	if a.Is4() {
		return strings.ReplaceAll(a.String(), ".", "-") + "." + zone + ".upcloud.host"
	}
	full := a.StringExpanded()
	return strings.ReplaceAll(full[20:], ":", "-") + ".v6." + zone + ".upcloud.host"
}

func (s *Simulator) listAddresses(*call) (any, error) {
	all := make([]*ipAddress, 0, len(s.addresses))
	for _, a := range s.addresses {
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b *ipAddress) int { // IPv6 first, as recorded
		if a.addr.Is4() != b.addr.Is4() {
			return b.addr.BitLen() - a.addr.BitLen()
		}
		return a.addr.Compare(b.addr)
	})
	var out addressListAnswer
	out.IPAddresses.IPAddress = make([]addressEntry, 0, len(all))
	for _, a := range all {
		out.IPAddresses.IPAddress = append(out.IPAddresses.IPAddress, a.entry())
	}
	return out, nil
}

func (s *Simulator) address(text string) (*ipAddress, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return nil, badRequest("IP_ADDRESS_INVALID", "The IP address %s is not valid.", text)
	}
	a, ok := s.addresses[addr]
	if !ok {
		return nil, notFound("IP_ADDRESS_NOT_FOUND", "The IP address %s does not exist.", text)
	}
	return a, nil
}

func (s *Simulator) getAddress(c *call) (any, error) {
	a, err := s.address(c.path("address"))
	if err != nil {
		return nil, err
	}
	return addressAnswer{a.entry()}, nil
}

type addressBody struct {
	IPAddress struct {
		Access        string   `json:"access"`
		Family        string   `json:"family"`
		Floating      yesNo    `json:"floating"`
		MAC           nullable `json:"mac"`
		PTRRecord     *string  `json:"ptr_record"`
		ReleasePolicy string   `json:"release_policy"`
		Server        string   `json:"server"`
		Zone          string   `json:"zone"`
	} `json:"ip_address"`
}

func (s *Simulator) createAddress(c *call) (any, error) {
	var req addressBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := &req.IPAddress
	if r.Access != "" && r.Access != networkPublic {
		return nil, refuse(http.StatusForbidden, "IP_ADDRESS_FORBIDDEN", "Only public addresses can be had.")
	}
	family := or(r.Family, familyIPv4)
	if r.Floating {
		return s.createFloating(family, r.MAC.value, r.Zone)
	}
	v, err := s.server(r.Server)
	if err != nil {
		return nil, err
	}
	if err := v.requireState(serverStopped); err != nil {
		return nil, err
	}
	for _, n := range v.nics {
		if n.kind != networkPublic {
			continue
		}
		if addr, err := n.network.allocate(family, netip.Addr{}); err == nil {
			return addressAnswer{s.giveAddress(n, addr, false).entry()}, nil
		}
	}
	return nil, conflict("IP_ADDRESS_RESOURCES_UNAVAILABLE", "The server %s has no public interface for %s.", v.uuid, family)
}

func (s *Simulator) createFloating(family, mac, zone string) (any, error) {
	if family != familyIPv4 {
		return nil, badRequest("FLOATING_IP_NOT_AVAILABLE", "Floating IP addresses are IPv4.")
	}
	var target *nic
	if mac != "" {
		var err error
		if target, err = s.publicNIC(mac); err != nil {
			return nil, err
		}
		zone = target.server.zone
	}
	if err := s.checkZone(zone); err != nil {
		return nil, err
	}
	n, err := s.networkFor(zone, interfaceRequest{Type: networkPublic}, family)
	if err != nil {
		return nil, err
	}
	addr, err := n.allocate(family, netip.Addr{})
	if err != nil {
		return nil, err
	}
	a := &ipAddress{addr: addr, access: networkPublic, floating: true, zone: zone, network: n, ptr: ptrRecord(addr,
		zone), releasePolicy: "keep"}
	s.addresses[addr] = a
	if target != nil {
		moveFloating(a, target)
	}
	return addressAnswer{a.entry()}, nil
}

// publicNIC returns the public interface that has the MAC address.
func (s *Simulator) publicNIC(mac string) (*nic, error) {
	n, ok := s.interfaces[strings.ToLower(mac)]
	if !ok {
		return nil, notFound("INTERFACE_NOT_FOUND", "No interface has the MAC address %s.", mac)
	}
	if n.kind != networkPublic {
		return nil, badRequest("MAC_INVALID", "The interface %s is not public.", mac)
	}
	return n, nil
}

// moveFloating attaches the address to an interface, or to none.
func moveFloating(a *ipAddress, to *nic) {
	if a.nic != nil {
		a.nic.addresses = slices.DeleteFunc(a.nic.addresses, func(o *ipAddress) bool { return o == a })
	}
	a.nic = to
	if to != nil {
		to.addresses = append(to.addresses, a)
	}
}

func (s *Simulator) modifyAddress(c *call) (any, error) {
	a, err := s.address(c.path("address"))
	if err != nil {
		return nil, err
	}
	var req addressBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := &req.IPAddress
	if r.MAC.given {
		if !a.floating {
			return nil, conflict("IP_ADDRESS_FORBIDDEN", "The IP address %s is not a floating one.", a.addr)
		}
		if a.loadBalancer != "" {
			return nil, conflict("ADDRESS_ATTACHED", "The IP address %s is attached to the load balancer %s.", a.addr,
				a.loadBalancer)
		}
		var to *nic
		if r.MAC.value != "" {
			if to, err = s.publicNIC(r.MAC.value); err != nil {
				return nil, err
			}
			if to.server.zone != a.zone {
				return nil, conflict("ZONE_MISMATCH", "The IP address %s is in the zone %s, the server in %s.", a.addr, a.zone,
					to.server.zone)
			}
		}
		moveFloating(a, to)
	}
	if r.PTRRecord != nil {
		a.ptr = *r.PTRRecord
	}
	a.releasePolicy = or(r.ReleasePolicy, a.releasePolicy)
	return addressAnswer{a.entry()}, nil
}

func (s *Simulator) deleteAddress(c *call) (any, error) {
	a, err := s.address(c.path("address"))
	if err != nil {
		return nil, err
	}
	switch {
	case a.loadBalancer != "":
		return nil, conflict("ADDRESS_ATTACHED", "The IP address %s is attached to the load balancer %s.", a.addr,
			a.loadBalancer)
	case a.floating && a.nic != nil:
		return nil, conflict("ADDRESS_ATTACHED", "The IP address %s is attached to the server %s.", a.addr, a.nic.server.uuid)
	case a.nic != nil && a.access != networkPublic:
		return nil, refuse(http.StatusForbidden, "IP_ADDRESS_FORBIDDEN", "The IP address %s cannot be released.", a.addr)
	case a.nic != nil:
		if err := a.nic.server.requireState(serverStopped); err != nil {
			return nil, err
		}
		a.nic.addresses = slices.DeleteFunc(a.nic.addresses, func(o *ipAddress) bool { return o == a })
	}
	a.network.release(a.addr)
	delete(s.addresses, a.addr)
	return nil, nil
}
