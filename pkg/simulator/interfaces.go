package simulator

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

func unmarshalString(b []byte, to *string) error { return json.Unmarshal(b, to) }

// nic is a network interface of a server.
type nic struct {
	index             int
	mac, kind         string
	network           *network
	server            *server
	addresses         []*ipAddress
	sourceIPFiltering bool
	bootable          bool
}

type networking struct {
	Interfaces interfaceList `json:"interfaces"`
}

type interfaceList struct {
	Interface []interfaceEntry `json:"interface"`
}

type interfaceEntry struct {
	Bootable          yesNo                `json:"bootable"`
	Index             int                  `json:"index"`
	IPAddresses       interfaceAddressList `json:"ip_addresses"`
	MAC               string               `json:"mac"`
	Network           string               `json:"network"`
	SourceIPFiltering yesNo                `json:"source_ip_filtering"`
	Type              string               `json:"type"`
}

type interfaceAddressList struct {
	IPAddress []interfaceAddress `json:"ip_address"`
}

type interfaceAddress struct {
	Address       string `json:"address"`
	DHCPProvided  yesNo  `json:"dhcp_provided"`
	Family        string `json:"family"`
	Floating      yesNo  `json:"floating"`
	ReleasePolicy string `json:"release_policy,omitempty"`
}

type interfaceAnswer struct {
	Interface interfaceEntry `json:"interface"`
}

type networkingRequest struct {
	Interfaces struct {
		Interface []interfaceRequest `json:"interface"`
	} `json:"interfaces"`
}

type interfaceRequest struct {
	Index             number `json:"index"`
	Type              string `json:"type"`
	Network           string `json:"network"`
	SourceIPFiltering *yesNo `json:"source_ip_filtering"`
	Bootable          *yesNo `json:"bootable"`
	IPAddresses       *struct {
		IPAddress []addressRequest `json:"ip_address"`
	} `json:"ip_addresses"`
}

type addressRequest struct {
	Family  string `json:"family"`
	Address string `json:"address"`
}

func (n *nic) entry() interfaceEntry {
	e := interfaceEntry{
		Bootable: yesNo(n.bootable), Index: n.index, MAC: n.mac, Network: n.network.uuid,
		SourceIPFiltering: yesNo(n.sourceIPFiltering), Type: n.kind,
	}
	e.IPAddresses.IPAddress = make([]interfaceAddress, 0, len(n.addresses))
	for _, a := range n.addresses {
		e.IPAddresses.IPAddress = append(e.IPAddresses.IPAddress, interfaceAddress{
			Address: a.addr.String(), DHCPProvided: yesNo(!a.floating), Family: familyOf(a.addr), Floating: yesNo(a.floating),
			ReleasePolicy: a.releasePolicy,
		})
	}
	return e
}

func networkingOf(v *server) networking {
	out := networking{interfaceList{make([]interfaceEntry, 0, len(v.nics))}}
	for _, n := range v.nics {
		out.Interfaces.Interface = append(out.Interfaces.Interface, n.entry())
	}
	return out
}

type networkingAnswer struct {
	Networking networking `json:"networking"`
}

func (s *Simulator) getNetworking(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	return networkingAnswer{networkingOf(v)}, nil
}

// defaultInterfaces is what a server gets whose creation names none.
func defaultInterfaces() *networkingRequest {
	r := &networkingRequest{}
	r.Interfaces.Interface = []interfaceRequest{{Type: networkPublic}, {Type: networkUtility}}
	return r
}

// addNICs gives a new server its interfaces. On an error it has none.
func (s *Simulator) addNICs(v *server, asked *networkingRequest) error {
	if asked == nil {
		asked = defaultInterfaces()
	}
	if len(asked.Interfaces.Interface) == 0 {
		return badRequest("INTERFACES_MISSING", "A server needs one interface at least.")
	}
	for _, r := range asked.Interfaces.Interface {
		if _, err := s.addNIC(v, r); err != nil {
			s.dropNICs(v)
			return err
		}
	}
	return nil
}

func (s *Simulator) dropNICs(v *server) {
	for _, n := range slices.Clone(v.nics) {
		s.removeNIC(n)
	}
}

func (s *Simulator) addNIC(v *server, r interfaceRequest) (*nic, error) {
	index := int(r.Index)
	if index == 0 {
		index = v.freeIndex()
	}
	if v.nic(index) != nil {
		return nil, conflict("INTERFACE_EXISTS", "The server %s has an interface %d.", v.uuid, index)
	}
	n := &nic{index: index, kind: r.Type, server: v, mac: s.newMAC(), sourceIPFiltering: true}
	if r.SourceIPFiltering != nil {
		if !*r.SourceIPFiltering && r.Type != networkPrivate {
			return nil, badRequest("SOURCE_IP_FILTERING_INVALID", "Only private interfaces can do without source IP filtering.")
		}
		n.sourceIPFiltering = bool(*r.SourceIPFiltering)
	}
	n.bootable = r.Bootable != nil && bool(*r.Bootable)
	asked := []addressRequest{{Family: familyIPv4}}
	if r.IPAddresses != nil && len(r.IPAddresses.IPAddress) > 0 {
		asked = r.IPAddresses.IPAddress
	}
	var err error
	if n.network, err = s.networkFor(v.zone, r, asked[0].Family); err != nil {
		return nil, err
	}
	if err := s.giveAddresses(n, asked); err != nil {
		return nil, err
	}
	s.interfaces[n.mac] = n
	v.nics = append(v.nics, n)
	slices.SortFunc(v.nics, func(a, b *nic) int { return a.index - b.index })
	return n, nil
}

// networkFor returns the network an interface is to be on: the one named for private interfaces, the zone's own else.
func (s *Simulator) networkFor(zone string, r interfaceRequest, family string) (*network, error) {
	switch r.Type {
	case networkPrivate:
		n, err := s.network(r.Network)
		if err != nil {
			return nil, err
		}
		if n.zone != zone || n.kind != networkPrivate {
			return nil, badRequest("NETWORK_INVALID", "The network %s is not a private network of the zone %s.", n.uuid, zone)
		}
		return n, nil
	case networkPublic, networkUtility:
		for n := range s.networks.all() {
			if n.zone != zone || n.kind != r.Type {
				continue
			}
			if _, _, ok := n.prefix(family); ok {
				return n, nil
			}
		}
		return nil, badRequest("IP_ADDRESS_INVALID", "The zone %s has no %s addresses for %s interfaces.", zone, family, r.Type)
	case "":
		return nil, badRequest("NETWORK_TYPE_MISSING", "The required attribute 'type' is missing from the request.")
	}
	return nil, badRequest("NETWORK_TYPE_INVALID", "The interface type '%s' is not valid.", r.Type)
}

// giveAddresses gives the interface the addresses asked for. On an error it has none.
func (s *Simulator) giveAddresses(n *nic, asked []addressRequest) error {
	for _, r := range asked {
		var want netip.Addr
		if r.Address != "" {
			var err error
			if want, err = netip.ParseAddr(r.Address); err != nil || n.kind != networkPrivate {
				s.takeAddresses(n)
				return badRequest("IP_ADDRESS_INVALID", "The address '%s' cannot be chosen.", r.Address)
			}
			r.Family = or(r.Family, familyOf(want))
		}
		addr, err := n.network.allocate(or(r.Family, familyIPv4), want)
		if err != nil {
			s.takeAddresses(n)
			return err
		}
		s.giveAddress(n, addr, false)
	}
	return nil
}

func (s *Simulator) giveAddress(n *nic, addr netip.Addr, floating bool) *ipAddress {
	a := &ipAddress{addr: addr, access: n.kind, floating: floating, zone: n.server.zone, network: n.network, nic: n,
		releasePolicy: "release"}
	if a.access == networkPublic {
		a.ptr = ptrRecord(addr, a.zone)
	}
	n.addresses = append(n.addresses, a)
	if n.kind != networkPrivate {
		s.addresses[addr] = a
	}
	return a
}

// takeAddresses frees the interface's addresses; floating ones stay the account's, attached to nothing.
func (s *Simulator) takeAddresses(n *nic) {
	for _, a := range n.addresses {
		if a.floating {
			a.nic = nil
			continue
		}
		n.network.release(a.addr)
		if n.kind != networkPrivate {
			delete(s.addresses, a.addr)
		}
	}
	n.addresses = nil
}

func (s *Simulator) removeNIC(n *nic) {
	s.takeAddresses(n)
	delete(s.interfaces, n.mac)
	n.server.nics = slices.DeleteFunc(n.server.nics, func(o *nic) bool { return o == n })
}

func (s *Simulator) newMAC() string {
	s.nextMAC++
	return fmt.Sprintf("da:45:c4:%02x:%02x:%02x", s.nextMAC>>16&0xff, s.nextMAC>>8&0xff, s.nextMAC&0xff)
}

func (v *server) nic(index int) *nic {
	for _, n := range v.nics {
		if n.index == index {
			return n
		}
	}
	return nil
}

func (v *server) freeIndex() int {
	index := 1
	for v.nic(index) != nil {
		index++
	}
	return index
}
