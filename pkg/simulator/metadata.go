package simulator

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// instanceMetadata is what a server learns about itself, in the form of metadata/v1.json.
type instanceMetadata struct {
	CloudName  string            `json:"cloud_name"`
	InstanceID string            `json:"instance_id"`
	Hostname   string            `json:"hostname"`
	Platform   string            `json:"platform"`
	Subplan    string            `json:"subplatform"`
	Network    metadataNetwork   `json:"network"`
	PublicKeys []string          `json:"public_keys"`
	Region     string            `json:"region"`
	Storage    map[string]string `json:"storage"`
	Tags       []string          `json:"tags"`
	UserData   string            `json:"user_data"`
	VendorData string            `json:"vendor_data"`
}

type metadataNetwork struct {
	Interfaces []metadataInterface `json:"interfaces"`
	DNS        []string            `json:"dns"`
}

type metadataInterface struct {
	Index       int               `json:"index"`
	IPAddresses []metadataAddress `json:"ip_addresses"`
	MAC         string            `json:"mac"`
	NetworkID   string            `json:"network_id"`
	Type        string            `json:"type"`
}

type metadataAddress struct {
	Address  string   `json:"address"`
	DHCP     bool     `json:"dhcp"`
	DNS      []string `json:"dns"`
	Family   string   `json:"family"`
	Floating bool     `json:"floating"`
	Gateway  string   `json:"gateway"`
	Network  string   `json:"network"`
}

// MetadataHandler returns the instance metadata service. Which server asks is told by the address the request comes
// from; a server made without metadata, or an address that is no server's, gets 404.
func (s *Simulator) MetadataHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = r.RemoteAddr
		}
		addr, _ := netip.ParseAddr(host)
		s.serveMetadata(w, r, func() *server { return s.serverAt(addr.Unmap()) })
	})
}

// MetadataHandlerFor returns the instance metadata service as that one server sees it.
func (s *Simulator) MetadataHandlerFor(serverUUID string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.serveMetadata(w, r, func() *server {
			v, _ := s.servers.get(serverUUID)
			return v
		})
	})
}

// serverAt returns the server that has the address on an interface; of several, one that is started.
func (s *Simulator) serverAt(addr netip.Addr) *server {
	var found *server
	for v := range s.servers.all() {
		for _, n := range v.nics {
			for _, a := range n.addresses {
				if a.addr == addr && (found == nil || found.state != serverStarted) {
					found = v
				}
			}
		}
	}
	return found
}

func (s *Simulator) serveMetadata(w http.ResponseWriter, r *http.Request, find func() *server) {
	s.mu.Lock()
	s.runDue()
	v := find()
	var m instanceMetadata
	if v != nil && v.metadata {
		m = s.metadataOf(v)
	}
	s.mu.Unlock()
	if m.InstanceID == "" {
		http.NotFound(w, r)
		return
	}
	path := strings.Trim(r.URL.Path, "/")
	if path == "metadata/v1.json" {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(m)
		return
	}
	text, ok := m.plain(path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text)
}

func (s *Simulator) metadataOf(v *server) instanceMetadata {
	m := instanceMetadata{
		CloudName: "upcloud", InstanceID: v.uuid, Hostname: v.hostname, Platform: "upcloud",
		Subplan: "metadata (http://169.254.169.254)", PublicKeys: append([]string{}, v.sshKeys...), Region: v.zone,
		Storage: map[string]string{}, Tags: append([]string{}, v.tags...), UserData: v.userData,
	}
	for i, dev := range v.devices {
		m.Storage[fmt.Sprintf("disk-%d", i)] = dev.storage
	}
	m.Network.DNS = []string{"94.237.127.9", "94.237.40.9"}
	m.Network.Interfaces = make([]metadataInterface, 0, len(v.nics))
	for _, n := range v.nics {
		m.Network.Interfaces = append(m.Network.Interfaces, n.metadata())
	}
	return m
}

func (n *nic) metadata() metadataInterface {
	out := metadataInterface{Index: n.index, MAC: n.mac, NetworkID: n.network.uuid, Type: n.kind,
		IPAddresses: []metadataAddress{}}
	for _, a := range n.addresses {
		prefix, gateway, _ := n.network.prefix(familyOf(a.addr))
		e := metadataAddress{
			Address: a.addr.String(), DHCP: !a.floating, DNS: []string{}, Family: familyOf(a.addr), Floating: a.floating,
			Network: prefix.String(),
		}
		if gateway.IsValid() {
			e.Gateway = gateway.String()
		}
		out.IPAddresses = append(out.IPAddresses, e)
	}
	return out
}

// plain answers the paths below metadata/v1.
func (m *instanceMetadata) plain(path string) (string, bool) {
	switch strings.TrimPrefix(path, "metadata/v1/") {
	case "metadata/v1":
		return "cloud_name\nhostname\ninstance_id\nnetwork/\npublic_keys\nregion\ntags\nuser_data\nvendor_data\n", true
	case "cloud_name":
		return m.CloudName, true
	case "hostname":
		return m.Hostname, true
	case "instance_id":
		return m.InstanceID, true
	case "region":
		return m.Region, true
	case "public_keys":
		return strings.Join(m.PublicKeys, "\n"), true
	case "tags":
		return strings.Join(m.Tags, "\n"), true
	case "user_data":
		return m.UserData, true
	case "vendor_data":
		return m.VendorData, true
	}
	return "", false
}
