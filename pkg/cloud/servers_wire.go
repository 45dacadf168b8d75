package cloud

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

type wireServer struct {
	UUID        string          `json:"uuid"`
	Hostname    string          `json:"hostname"`
	Title       string          `json:"title"`
	Zone        string          `json:"zone"`
	Plan        string          `json:"plan"`
	State       string          `json:"state"`
	Host        json.RawMessage `json:"host"` // a number
	ServerGroup string          `json:"server_group"`
	Labels      Labels          `json:"labels"`
	Networking  struct {
		Interfaces struct {
			Interface []wireInterface `json:"interface"`
		} `json:"interfaces"`
	} `json:"networking"` // only in details
}

type wireInterface struct {
	Index     int    `json:"index"`
	Type      string `json:"type"`
	Network   string `json:"network"`
	Filtering string `json:"source_ip_filtering"`
	Addresses struct {
		Address []wireAddress `json:"ip_address"`
	} `json:"ip_addresses"`
}

type wireAddress struct {
	Address  string `json:"address"`
	Access   string `json:"access"`
	Floating string `json:"floating"`
	Server   string `json:"server"`
}

func (w *wireServer) server() (*Server, error) {
	server := &Server{
		ID: w.UUID, Hostname: w.Hostname, Title: w.Title, Zone: w.Zone, Plan: w.Plan, State: w.State,
		ServerGroup: w.ServerGroup, Labels: w.Labels,
	}
	if host := strings.Trim(string(w.Host), `"`); host != "null" && host != "0" {
		server.Host = host
	}
	for _, nic := range w.Networking.Interfaces.Interface {
		if nic.Type == "private" {
			server.privateNetworks = append(server.privateNetworks, nic.Network)
		}
		for _, wire := range nic.Addresses.Address {
			address, err := wire.address()
			if err != nil {
				return nil, fmt.Errorf("server %s: %w", w.UUID, err)
			}
			address.Access, address.NetworkID, address.Interface = nic.Type, nic.Network, nic.Index
			address.Filtered = nic.Type == "private" && nic.Filtering == "yes"
			server.Addresses = append(server.Addresses, address)
		}
	}
	slices.Sort(server.privateNetworks)
	server.privateNetworks = slices.Compact(server.privateNetworks)
	slices.SortStableFunc(server.Addresses, func(a, b Address) int { return cmp.Compare(a.Interface, b.Interface) })
	return server, nil
}

func (w *wireAddress) address() (Address, error) {
	ip, err := netip.ParseAddr(w.Address)
	if err != nil {
		return Address{}, fmt.Errorf("the API lists %q as an IP address: %w", w.Address, err)
	}
	return Address{IP: ip, Access: w.Access, Floating: w.Floating == "yes"}, nil
}
