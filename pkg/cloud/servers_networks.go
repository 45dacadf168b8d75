package cloud

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"k8s.io/klog/v2"
)

// PrivateNetwork is an SDN network of a zone.
type PrivateNetwork struct {
	ID, Name, Zone string
	RouterID       string // empty: it has none
	Prefixes       []netip.Prefix
	ServerIDs      []string // servers with an interface in it
}

// PrivateNetworks lists a zone's SDN networks with the servers attached to them: one call, however many servers.
func (c *Cloud) PrivateNetworks(ctx context.Context, zone string) ([]PrivateNetwork, error) {
	return c.privateNetworks(ctx, "?"+url.Values{"zone": {zone}}.Encode())
}

func (c *Cloud) privateNetworks(ctx context.Context, query string) ([]PrivateNetwork, error) {
	var answer struct {
		Networks struct {
			Network []wireNetwork `json:"network"`
		} `json:"networks"`
	}
	if err := c.call(ctx, http.MethodGet, "/network/"+query, nil, &answer); err != nil {
		return nil, err
	}
	var networks []PrivateNetwork
	for _, wire := range answer.Networks.Network {
		if wire.Type != "private" {
			continue
		}
		network := PrivateNetwork{ID: wire.UUID, Name: wire.Name, Zone: wire.Zone, RouterID: wire.Router}
		for _, ip := range wire.IPNetworks.IPNetwork {
			if prefix, err := netip.ParsePrefix(ip.Address); err == nil {
				network.Prefixes = append(network.Prefixes, prefix)
			}
		}
		for _, server := range wire.Servers.Server {
			network.ServerIDs = append(network.ServerIDs, server.UUID)
		}
		networks = append(networks, network)
	}
	return networks, nil
}

// addressListsAge is for how long the lists of addresses and networks serve: they only tell which server to ask again.
const addressListsAge = time.Minute

// listedAddresses are the account's addresses and private networks, by server, as they were at one moment.
type listedAddresses struct {
	taken    time.Time // when the reading began
	byServer map[string]listing
	byPublic map[netip.Addr][]string // servers that have a public address, floating ones left out
	networks []PrivateNetwork
}

func (l *listedAddresses) of(serverID string) listing { return l.byServer[serverID] }

// addressLists returns the lists as read at that moment or later: two calls, however many servers.
func (c *Cloud) addressLists(ctx context.Context, moment time.Time) (*listedAddresses, error) {
	lists, err := c.shared.listedAddresses.since(ctx, c, moment, c.readAddressLists)
	if err != nil {
		return nil, explain(notMissing(err), Error{Op: "list", Resource: "addresses"})
	}
	return lists, nil
}

func (c *Cloud) readAddressLists(ctx context.Context) (*listedAddresses, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	lists := &listedAddresses{taken: time.Now(), byServer: map[string]listing{}, byPublic: map[netip.Addr][]string{}}
	var answer struct {
		Addresses struct {
			Address []wireAddress `json:"ip_address"`
		} `json:"ip_addresses"`
	}
	if err := c.call(ctx, http.MethodGet, "/ip_address", nil, &answer); err != nil {
		return nil, err
	}
	for _, wire := range answer.Addresses.Address {
		if wire.Server == "" || wire.Access == "private" {
			continue // a floating address that is attached to nothing; one that only the server itself should tell
		}
		address, err := wire.address()
		if err != nil {
			// One server's odd address must not hide all the others.
			klog.FromContext(ctx).Error(err, "An address is left out", "server", wire.Server)
			continue
		}
		l := lists.byServer[wire.Server]
		l.addresses = append(l.addresses, address.IP.String())
		lists.byServer[wire.Server] = l
		if !address.Floating && address.Access == "public" {
			ip := address.IP.Unmap()
			lists.byPublic[ip] = append(lists.byPublic[ip], wire.Server)
		}
	}
	var err error
	if lists.networks, err = c.privateNetworks(ctx, ""); err != nil {
		return nil, err
	}
	for _, network := range lists.networks {
		for _, id := range network.ServerIDs {
			l := lists.byServer[id]
			l.networks = append(l.networks, network.ID)
			lists.byServer[id] = l
		}
	}
	for id, l := range lists.byServer {
		slices.Sort(l.addresses)
		slices.Sort(l.networks)
		l.networks = slices.Compact(l.networks)
		lists.byServer[id] = l
	}
	return lists, nil
}

// NetworksNamed returns the UUIDs of the private networks that have this name; names are not unique.
func (c *Cloud) NetworksNamed(ctx context.Context, name string) ([]string, error) {
	moment := time.Now().Add(-addressListsAge)
	for {
		lists, err := c.addressLists(ctx, moment)
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, network := range lists.networks {
			if network.Name == name {
				ids = append(ids, network.ID)
			}
		}
		// One that is missing may be newer than the lists.
		if recent := time.Now().Add(-recheckAge); len(ids) == 0 && lists.taken.Before(recent) {
			moment = recent
			continue
		}
		return ids, nil
	}
}

// recheckAge is how new a list must be, to be believed that something is not in it.
const recheckAge = 5 * time.Second

// maxServersAsked bounds how many servers are asked one by one for a private address.
const maxServersAsked = 32

// ServersWithPublicAddress returns the UUIDs of the servers that have this public address and do not merely hold it for a while, as a
// floating one. No other machine in the world has it. The addresses of private networks and of the utility network are the same in many
// places.
func (c *Cloud) ServersWithPublicAddress(ctx context.Context, ip netip.Addr) ([]string, error) {
	lists, err := c.addressLists(ctx, time.Now().Add(-recheckAge))
	if err != nil {
		return nil, err
	}
	return lists.byPublic[ip.Unmap()], nil
}

// ServersWithPrivateAddress returns the UUIDs of the servers that have this address on one of these private networks; without
// networks, on any. It asks the servers of those networks, and gives up with ErrExhausted if they are too many.
func (c *Cloud) ServersWithPrivateAddress(ctx context.Context, ip netip.Addr, networks ...string) ([]string, error) {
	lists, err := c.addressLists(ctx, time.Now().Add(-recheckAge))
	if err != nil {
		return nil, err
	}
	return c.privateHolders(ctx, lists, ip, networks)
}

// privateHolders asks the servers on those of the networks that have a prefix with the address; on any, if there are none.
func (c *Cloud) privateHolders(ctx context.Context, lists *listedAddresses, ip netip.Addr, networks []string) ([]string, error) {
	var candidates []string
	for _, network := range lists.networks {
		inside := slices.ContainsFunc(network.Prefixes, func(p netip.Prefix) bool { return p.Contains(ip) })
		if inside && (len(networks) == 0 || slices.Contains(networks, network.ID)) {
			candidates = append(candidates, network.ServerIDs...)
		}
	}
	slices.Sort(candidates)
	candidates = slices.Compact(candidates)
	details := &c.shared.serverDetails
	details.init(c)
	var found []string
	asked := 0
	for _, id := range candidates {
		if _, known := details.get(id); !known {
			if asked++; asked > maxServersAsked {
				return nil, &Error{Kind: ErrExhausted, Message: "too many servers could have the address"}
			}
		}
		addresses, err := c.ServerAddresses(ctx, id) // which asks again where the lists contradict what is known
		if err != nil {
			return nil, notMissing(err)
		}
		if slices.ContainsFunc(addresses, func(a Address) bool { return a.IP.Unmap() == ip && !a.Floating }) {
			found = append(found, id)
		}
	}
	return found, nil
}

type wireNetwork struct {
	UUID       string `json:"uuid"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Zone       string `json:"zone"`
	Router     string `json:"router"`
	IPNetworks struct {
		IPNetwork []struct {
			Address string `json:"address"`
		} `json:"ip_network"`
	} `json:"ip_networks"`
	Servers struct {
		Server []struct {
			UUID string `json:"uuid"`
		} `json:"server"`
	} `json:"servers"`
}
