package simulator

import (
	"net/http"
	"net/netip"
	"slices"
)

// Types of network and of interface.
const (
	networkPublic  = "public"
	networkUtility = "utility"
	networkPrivate = "private"
)

const (
	familyIPv4 = "IPv4"
	familyIPv6 = "IPv6"
)

type network struct {
	uuid, name, zone, kind string
	router                 string
	labels                 []Label
	ip                     []ipNetwork
	used                   map[netip.Addr]bool
	cursor                 netip.Addr // where the search for a free address goes on
}

// ipNetwork is an IP network on a network, as the API writes it.
type ipNetwork struct {
	Address                 string         `json:"address"`
	DHCP                    yesNo          `json:"dhcp"`
	DHCPDefaultRoute        yesNo          `json:"dhcp_default_route"`
	DHCPDNS                 []string       `json:"dhcp_dns,omitempty"`
	DHCPEffectiveRoutes     []struct{}     `json:"dhcp_effective_routes"`
	DHCPRoutes              []string       `json:"dhcp_routes,omitempty"`
	DHCPRoutesConfiguration *dhcpRouteConf `json:"dhcp_routes_configuration,omitempty"`
	Family                  string         `json:"family"`
	Gateway                 string         `json:"gateway,omitempty"`
}

type dhcpRouteConf struct {
	AutoPopulation struct {
		Enabled             yesNo    `json:"enabled"`
		ExcludeBySource     []string `json:"exclude_by_source,omitempty"`
		FilterByDestination []string `json:"filter_by_destination,omitempty"`
		FilterByRouteType   []string `json:"filter_by_route_type,omitempty"`
	} `json:"effective_routes_auto_population"`
}

type networkEntry struct {
	EffectiveRoutes []struct{}     `json:"effective_routes"`
	IPNetworks      ipNetworkList  `json:"ip_networks"`
	Labels          []Label        `json:"labels"`
	Name            string         `json:"name"`
	Router          string         `json:"router,omitempty"`
	Servers         *networkOwners `json:"servers,omitempty"`
	Type            string         `json:"type"`
	UUID            string         `json:"uuid"`
	Zone            string         `json:"zone"`
}

type ipNetworkList struct {
	IPNetwork []ipNetwork `json:"ip_network"`
}

type networkOwners struct {
	Server []serverName `json:"server"`
}

type serverName struct {
	Title string `json:"title"`
	UUID  string `json:"uuid"`
}

type networkAnswer struct {
	Network networkEntry `json:"network"`
}

type networkList struct {
	Networks struct {
		Network []networkEntry `json:"network"`
	} `json:"networks"`
}

func (n *network) entry(servers []serverName) networkEntry {
	e := networkEntry{
		EffectiveRoutes: []struct{}{}, IPNetworks: ipNetworkList{n.ip}, Labels: labelsOrNone(n.labels), Name: n.name,
		Router: n.router, Type: n.kind, UUID: n.uuid, Zone: n.zone,
	}
	if len(servers) > 0 {
		e.Servers = &networkOwners{servers}
	}
	return e
}

// serversByNetwork returns who is on which network, in one pass over the servers.
func (s *Simulator) serversByNetwork() map[string][]serverName {
	out := make(map[string][]serverName)
	for v := range s.servers.all() {
		for i, n := range v.nics {
			sameNetwork := func(o *nic) bool { return o.network == n.network }
			if !slices.ContainsFunc(v.nics[:i], sameNetwork) {
				out[n.network.uuid] = append(out[n.network.uuid], serverName{v.title, v.uuid})
			}
		}
	}
	return out
}

func (s *Simulator) networkAnswer(n *network) networkAnswer {
	return networkAnswer{n.entry(s.serversByNetwork()[n.uuid])}
}

func (s *Simulator) network(uuid string) (*network, error) {
	if !validUUID(uuid) {
		return nil, badRequest("NETWORK_INVALID", "The network UUID is invalid.")
	}
	n, ok := s.networks.get(uuid)
	if !ok {
		return nil, notFound("NETWORK_NOT_FOUND", "The network %s does not exist.", uuid)
	}
	return n, nil
}

func (s *Simulator) ownNetwork(uuid string) (*network, error) {
	n, err := s.network(uuid)
	if err != nil {
		return nil, err
	}
	if n.kind != networkPrivate {
		return nil, refuse(http.StatusForbidden, "NETWORK_FORBIDDEN", "The network %s is not yours to change.", uuid)
	}
	return n, nil
}

func (s *Simulator) listNetworks(c *call) (any, error) {
	zone := c.query("zone")
	if zone != "" {
		if err := s.checkZone(zone); err != nil {
			return nil, err
		}
	}
	filters := labelFilters(c.request.URL.Query())
	servers := s.serversByNetwork()
	var out networkList
	out.Networks.Network = make([]networkEntry, 0, s.networks.len())
	for n := range s.networks.all() {
		if (zone == "" || n.zone == zone) && matchLabels(n.labels, filters) {
			out.Networks.Network = append(out.Networks.Network, n.entry(servers[n.uuid]))
		}
	}
	return out, nil
}

func (s *Simulator) getNetwork(c *call) (any, error) {
	n, err := s.network(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	return s.networkAnswer(n), nil
}

type networkRequest struct {
	Network struct {
		Name       string        `json:"name"`
		Zone       string        `json:"zone"`
		Router     nullable      `json:"router"`
		IPNetworks ipNetworkList `json:"ip_networks"`
		Labels     *[]Label      `json:"labels"`
	} `json:"network"`
}

// nullable is a string for which null is not the same as absent.
type nullable struct {
	given bool
	value string
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *nullable) UnmarshalJSON(b []byte) error {
	n.given = true
	if string(b) == "null" {
		return nil
	}
	return unmarshalString(b, &n.value)
}

func (s *Simulator) createNetwork(c *call) (any, error) {
	var req networkRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := &req.Network
	if r.Name == "" {
		return nil, badRequest("NETWORK_NAME_MISSING", "The required attribute 'name' is missing from the request.")
	}
	if len(r.Name) > maxTitle {
		return nil, badRequest("NETWORK_NAME_INVALID", "The attribute 'name' has more than %d characters.", maxTitle)
	}
	if err := s.checkZone(r.Zone); err != nil {
		return nil, err
	}
	n := &network{uuid: s.newUUID(networkKind), name: r.Name, zone: r.Zone, kind: networkPrivate, used: map[netip.Addr]bool{}}
	if len(r.IPNetworks.IPNetwork) != 1 {
		return nil, badRequest("IP_NETWORKS_MISSING", "A network needs one IP network.")
	}
	if err := n.setIPNetworks(r.IPNetworks.IPNetwork); err != nil {
		return nil, err
	}
	if r.Labels != nil {
		if err := checkLabels(*r.Labels); err != nil {
			return nil, err
		}
		n.labels = *r.Labels
	}
	if err := s.checkNetworkLimit(); err != nil {
		return nil, err
	}
	if err := s.setRouter(n, r.Router); err != nil {
		return nil, err
	}
	s.networks.put(n.uuid, n)
	s.carryRoutes(n.router)
	return s.networkAnswer(n), nil
}

// setIPNetworks checks the IP networks, and fills in what the request may leave out.
func (n *network) setIPNetworks(asked []ipNetwork) error {
	out := make([]ipNetwork, 0, len(asked))
	for _, a := range asked {
		prefix, err := netip.ParsePrefix(a.Address)
		if err != nil {
			return badRequest("IP_NETWORK_ADDRESS_INVALID", "The IP network address '%s' is not valid.", a.Address)
		}
		if a.Family == "" || a.Family != familyOf(prefix.Addr()) {
			return badRequest("IP_NETWORK_FAMILY_INVALID", "The family '%s' does not fit the address '%s'.", a.Family, a.Address)
		}
		if a.Gateway == "" {
			a.Gateway = prefix.Masked().Addr().Next().String()
		}
		if gw, err := netip.ParseAddr(a.Gateway); err != nil || !prefix.Masked().Contains(gw) {
			return badRequest("GATEWAY_INVALID", "The gateway '%s' is not in the network '%s'.", a.Gateway, a.Address)
		}
		if a.DHCPRoutesConfiguration == nil {
			a.DHCPRoutesConfiguration = &dhcpRouteConf{}
		}
		a.DHCPEffectiveRoutes = []struct{}{}
		out = append(out, a)
	}
	n.ip = out
	return nil
}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return familyIPv4
	}
	return familyIPv6
}

func (s *Simulator) setRouter(n *network, router nullable) error {
	if !router.given {
		return nil
	}
	if router.value != "" {
		if _, err := s.router(router.value); err != nil {
			return err
		}
	}
	former := n.router
	n.router = router.value
	s.carryRoutes(former)
	s.carryRoutes(n.router)
	return nil
}

func (s *Simulator) modifyNetwork(c *call) (any, error) {
	n, err := s.ownNetwork(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req networkRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := &req.Network
	if r.Labels != nil {
		if err := checkLabels(*r.Labels); err != nil {
			return nil, err
		}
	}
	if err := s.setRouter(n, r.Router); err != nil {
		return nil, err
	}
	if len(r.IPNetworks.IPNetwork) > 0 {
		if err := n.changeIPNetworks(r.IPNetworks.IPNetwork); err != nil {
			return nil, err
		}
	}
	n.name = or(r.Name, n.name)
	if r.Labels != nil {
		n.labels = *r.Labels
	}
	return s.networkAnswer(n), nil
}

// changeIPNetworks changes how an IP network is served; its address, which is taken over when absent, stays.
func (n *network) changeIPNetworks(asked []ipNetwork) error {
	for i := range asked {
		for _, now := range n.ip {
			if asked[i].Family != now.Family {
				continue
			}
			asked[i].Address = or(asked[i].Address, now.Address)
			asked[i].Gateway = or(asked[i].Gateway, now.Gateway)
			asked[i].DHCPRoutesConfiguration = now.DHCPRoutesConfiguration.changed(asked[i].DHCPRoutesConfiguration)
			if asked[i].Address != now.Address {
				return badRequest("IP_NETWORK_ADDRESS_INVALID", "The address of an IP network cannot be changed.")
			}
		}
	}
	return n.setIPNetworks(asked)
}

// changed returns the configuration after a change: lists that it leaves out stay, as recorded.
func (c *dhcpRouteConf) changed(by *dhcpRouteConf) *dhcpRouteConf {
	if by == nil || c == nil {
		return c
	}
	next, before := *by, c.AutoPopulation
	a := &next.AutoPopulation
	for _, list := range []struct {
		to   *[]string
		from []string
	}{
		{&a.ExcludeBySource, before.ExcludeBySource}, {&a.FilterByDestination, before.FilterByDestination},
		{&a.FilterByRouteType, before.FilterByRouteType},
	} {
		if *list.to == nil {
			*list.to = list.from
		}
	}
	return &next
}

func (s *Simulator) deleteNetwork(c *call) (any, error) {
	n, err := s.ownNetwork(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	for lb := range s.loadBalancers.all() {
		if slices.ContainsFunc(lb.Networks, func(o LoadBalancerNetwork) bool { return o.UUID == n.uuid }) {
			return nil, conflict("NETWORK_NOT_EMPTY", "The network %s is used by the load balancer %s.", n.uuid, lb.UUID)
		}
	}
	if len(n.used) > 0 || len(s.serversByNetwork()[n.uuid]) > 0 {
		return nil, conflict("NETWORK_NOT_EMPTY", "The network %s still is in use.", n.uuid)
	}
	s.networks.remove(n.uuid)
	s.carryRoutes(n.router)
	return nil, nil
}
