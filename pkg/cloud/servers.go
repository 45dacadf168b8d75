package cloud

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"k8s.io/klog/v2"
)

// Server is a cloud server.
type Server struct {
	ID, Hostname, Title, Zone, Plan string
	State                           string // started, stopped, maintenance or error
	Host                            string // the physical host's number, empty when stopped
	ServerGroup                     string
	Labels                          map[string]string
	Addresses                       []Address // from a ServerSet: public and utility ones; see Cloud.ServerAddresses

	attached []string // private networks, in a ServerSet
}

// Address is an IP address of a server.
type Address struct {
	IP        netip.Addr
	Access    string // public, private or utility
	NetworkID string // empty when read from the list of addresses, which does not tell
	Floating  bool   // may move to another server at any time
	Interface int    // index, 0 when read from the list of addresses
}

// Server reads one server with its interfaces. Errors: ErrNotFound, which is the API's word on this very UUID.
func (c *Cloud) Server(ctx context.Context, id string) (*Server, error) {
	var answer struct {
		Server wireServer `json:"server"`
	}
	err := c.call(ctx, http.MethodGet, "/server/"+url.PathEscape(id), nil, &answer)
	if !hasCode(err, upcloud.ErrCodeServerNotFound) {
		err = notMissing(err)
	}
	if err != nil {
		return nil, err
	}
	if answer.Server.UUID != id {
		return nil, fmt.Errorf("server %s: the API answered with server %q", id, answer.Server.UUID)
	}
	return answer.Server.server()
}

// notMissing turns a "not found" that is not about a resource, but comes from a proxy, a wrong base URL or a list, into what
// it is: an API that cannot be asked. Nodes are deleted on the word of this package.
func notMissing(err error) error {
	var failed *Error
	if !errors.As(err, &failed) || !errors.Is(failed.Kind, ErrNotFound) {
		return err
	}
	unavailable := *failed
	unavailable.Kind = ErrUnavailable
	return &unavailable
}

// serverSnapshotAge is for how long one reading of all servers serves every reader. Ten seconds is two passes of the node
// lifecycle controller, and what a new node waits at most for its own server to be seen is a refresh, not this.
const serverSnapshotAge = 10 * time.Second

// serverSnapshotTimeout bounds a reading that outlives the caller who began it.
const serverSnapshotTimeout = time.Minute

// ServerSet is all servers of the account as they were at one moment. It is shared: nobody may change what is in it.
type ServerSet struct {
	Taken  time.Time // when the reading began
	byID   map[string]*Server
	byName map[string][]*Server
}

// Server finds a server by UUID. One that is absent may be newer than the set, or may not be listed: only
// Cloud.Server answers whether it exists.
func (s *ServerSet) Server(id string) (*Server, bool) {
	server, ok := s.byID[id]
	return server, ok
}

// Named returns the servers whose host name, in lower case, or title is exactly this, ordered by UUID.
func (s *ServerSet) Named(name string) []*Server { return s.byName[name] }

// Len is the number of servers.
func (s *ServerSet) Len() int { return len(s.byID) }

// sharedReads are answers of the API that serve many readers for a while.
type sharedReads struct {
	servers           serverSnapshot
	serverDetails     serverDetails
	loadBalancerPlans loadBalancerPlans
	backups           shared[[]*Snapshot]
	volumes           shared[[]*Volume]
	account           shared[*upcloud.Account]
	policies          shared[map[string]bool] // volumes that say what becomes of their backups
}

// serverSnapshot remembers the last ServerSet, and lets all who want a newer one wait for the same reading.
type serverSnapshot struct {
	once    sync.Once
	reading *flights[*ServerSet]

	mu   sync.Mutex
	last *ServerSet
}

func (s *serverSnapshot) since(moment time.Time) *ServerSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || s.last.Taken.Before(moment) {
		return nil
	}
	return s.last
}

// Servers returns all servers as they were some seconds ago at most: three calls for any number of servers and readers.
func (c *Cloud) Servers(ctx context.Context) (*ServerSet, error) {
	return c.ServersSince(ctx, time.Now().Add(-serverSnapshotAge))
}

// ServersSince returns all servers as read at that moment or later: what a reader asks for who missed a server in an older
// set. A reading that began earlier and is still under way is waited for, and then followed by another.
func (c *Cloud) ServersSince(ctx context.Context, moment time.Time) (*ServerSet, error) {
	snapshot := &c.shared.servers
	snapshot.once.Do(func() { snapshot.reading = newFlights[*ServerSet](c.life, &c.work) })
	for {
		if set := snapshot.since(moment); set != nil {
			return set, nil
		}
		_, err := snapshot.reading.do(ctx, "servers", func(w *work) (*ServerSet, error) { return c.readServers(w.ctx) })
		if err != nil {
			return nil, explain(notMissing(err), Error{Op: "list", Resource: "servers"})
		}
	}
}

// readServers reads all servers, and remembers them. It belongs to no caller: the first may leave, others still wait.
func (c *Cloud) readServers(ctx context.Context) (*ServerSet, error) {
	ctx, cancel := context.WithTimeout(ctx, serverSnapshotTimeout)
	defer cancel()
	set := &ServerSet{Taken: time.Now(), byID: map[string]*Server{}, byName: map[string][]*Server{}}
	var servers struct {
		Servers struct {
			Server []wireServer `json:"server"`
		} `json:"servers"`
	}
	if err := c.call(ctx, http.MethodGet, "/server", nil, &servers); err != nil {
		return nil, err
	}
	var addresses struct {
		Addresses struct {
			Address []wireAddress `json:"ip_address"`
		} `json:"ip_addresses"`
	}
	if err := c.call(ctx, http.MethodGet, "/ip_address", nil, &addresses); err != nil {
		return nil, err
	}
	for i := range servers.Servers.Server {
		server, err := servers.Servers.Server[i].server()
		if err != nil {
			return nil, err
		}
		if server.ID == "" {
			continue
		}
		set.byID[server.ID] = server
	}
	for _, wire := range addresses.Addresses.Address {
		server, ok := set.byID[wire.Server]
		if !ok {
			continue // a floating address that is attached to nothing, or a server newer than the list
		}
		address, err := wire.address()
		if err != nil {
			// One server's odd address must not hide all the others. Whoever misses it asks for that server's details.
			klog.FromContext(ctx).Error(err, "An address is left out", "server", wire.Server)
			continue
		}
		server.Addresses = append(server.Addresses, address)
	}
	networks, err := c.privateNetworks(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, network := range networks {
		for _, id := range network.ServerIDs {
			if server, ok := set.byID[id]; ok {
				server.attached = append(server.attached, network.ID)
			}
		}
	}
	set.index()
	c.shared.servers.mu.Lock()
	defer c.shared.servers.mu.Unlock()
	c.shared.servers.last = set
	return set, nil
}

// index orders what the API lists in any order, and makes servers findable by name.
func (s *ServerSet) index() {
	for _, server := range s.byID {
		slices.Sort(server.attached)
		slices.SortFunc(server.Addresses, func(a, b Address) int {
			return cmp.Or(cmp.Compare(a.Interface, b.Interface), cmp.Compare(a.Access, b.Access), a.IP.Compare(b.IP))
		})
		hostname := strings.ToLower(server.Hostname) // as kubelets name their Nodes
		s.byName[hostname] = append(s.byName[hostname], server)
		if server.Title != hostname {
			s.byName[server.Title] = append(s.byName[server.Title], server)
		}
	}
	for _, named := range s.byName {
		slices.SortFunc(named, func(a, b *Server) int { return strings.Compare(a.ID, b.ID) })
	}
}

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
		for _, wire := range nic.Addresses.Address {
			address, err := wire.address()
			if err != nil {
				return nil, fmt.Errorf("server %s: %w", w.UUID, err)
			}
			address.Access, address.NetworkID, address.Interface = nic.Type, nic.Network, nic.Index
			server.Addresses = append(server.Addresses, address)
		}
	}
	return server, nil
}

func (w *wireAddress) address() (Address, error) {
	ip, err := netip.ParseAddr(w.Address)
	if err != nil {
		return Address{}, fmt.Errorf("the API lists %q as an IP address: %w", w.Address, err)
	}
	return Address{IP: ip, Access: w.Access, Floating: w.Floating == "yes"}, nil
}
