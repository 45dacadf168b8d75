package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// Server is a cloud server.
type Server struct {
	ID, Hostname, Title, Zone, Plan string
	State                           string // started, stopped, maintenance or error
	Host                            string // the physical host's number, empty when stopped
	ServerGroup                     string
	Labels                          map[string]string
	Addresses                       []Address // in the order of its interfaces; none in a ServerSet

	privateNetworks []string // that its interfaces are on; none in a ServerSet
}

// Address is an IP address of a server.
type Address struct {
	IP        netip.Addr
	Access    string // public, private or utility
	NetworkID string
	Floating  bool // may move to another server at any time
	Interface int  // index
	Filtered  bool // on a private interface that drops packets from addresses which are not its own
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

// serverSnapshotAge is for how long one reading of all servers serves those who do not say how new it must be.
const serverSnapshotAge = 30 * time.Second

// listTimeout bounds the reading of a list, which outlives the caller who began it.
const listTimeout = time.Minute

// ServerSet is all servers of the account as they were at one moment, without their addresses: see Cloud.ServerAddresses.
// It is shared: nobody may change what is in it.
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

// ids returns the servers' UUIDs in lower case.
func (s *ServerSet) ids() []string {
	ids := make([]string, 0, len(s.byID))
	for id := range s.byID {
		ids = append(ids, canonicalID(id))
	}
	return ids
}

// Len is the number of servers.
func (s *ServerSet) Len() int { return len(s.byID) }

// sharedReads are answers of the API that serve many readers for a while.
type sharedReads struct {
	servers           shared[*ServerSet]
	listedAddresses   shared[*listedAddresses]
	serverDetails     serverDetails
	loadBalancerPlans loadBalancerPlans
	backups           shared[[]*Snapshot]
	volumes           shared[[]*Volume]
	halfMade          shared[map[string][]string] // disks that nobody knows of, by title
	account           shared[*upcloud.Account]
	policies          shared[map[string]bool] // volumes that say what becomes of their backups
	networks          shared[[]PrivateNetwork]
}

// Servers returns all servers as they were half a minute ago at most: one call for any number of servers and readers.
func (c *Cloud) Servers(ctx context.Context) (*ServerSet, error) {
	return c.ServersSince(ctx, c.now().Add(-serverSnapshotAge))
}

// ServersSince returns all servers as read at that moment or later: what a reader asks for who missed a server in an older
// set. A reading that began earlier and is still under way is waited for, and then followed by another.
func (c *Cloud) ServersSince(ctx context.Context, moment time.Time) (*ServerSet, error) {
	set, err := c.shared.servers.since(ctx, c, moment, c.readServers)
	if err != nil {
		return nil, explain(notMissing(err), Error{Op: "list", Resource: "servers"})
	}
	return set, nil
}

func (c *Cloud) readServers(ctx context.Context) (*ServerSet, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	set := &ServerSet{Taken: time.Now(), byID: map[string]*Server{}, byName: map[string][]*Server{}}
	for {
		listed, added, err := c.readServersFrom(ctx, set)
		if err != nil {
			return nil, err
		}
		if added == 0 || listed%serverPage != 0 {
			break
		}
	}
	set.index()
	return set, nil
}

// serverPage is the page that other lists of the API have. Every recording of the list of servers came whole, but should it
// be cut one day, its length would be a multiple of this: then what follows is asked for, until nothing new comes.
const serverPage = 100

func (c *Cloud) readServersFrom(ctx context.Context, set *ServerSet) (listed, added int, err error) {
	path := "/server"
	if offset := len(set.byID); offset > 0 {
		path += fmt.Sprintf("?limit=%d&offset=%d", serverPage, offset)
	}
	var answer struct {
		Servers struct {
			Server []wireServer `json:"server"`
		} `json:"servers"`
	}
	if err := c.call(ctx, http.MethodGet, path, nil, &answer); err != nil {
		return 0, 0, err
	}
	for i := range answer.Servers.Server {
		server, err := answer.Servers.Server[i].server()
		if err != nil {
			return 0, 0, err
		}
		if _, known := set.byID[server.ID]; known || server.ID == "" {
			continue
		}
		set.byID[server.ID] = server
		added++
	}
	return len(answer.Servers.Server), added, nil
}

// index makes servers findable by name.
func (s *ServerSet) index() {
	for _, server := range s.byID {
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
