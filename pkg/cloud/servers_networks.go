package cloud

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
)

// PrivateNetwork is an SDN network of a zone.
type PrivateNetwork struct {
	ID, Name, Zone string
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
		network := PrivateNetwork{ID: wire.UUID, Name: wire.Name, Zone: wire.Zone}
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

type wireNetwork struct {
	UUID       string `json:"uuid"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Zone       string `json:"zone"`
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
