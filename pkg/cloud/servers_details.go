package cloud

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// serverDetailsAge is for how long a server's own answer about its addresses serves, give or take a half. When an
// interface comes or goes, the lists show it at once; what they do not show is only that somebody gave an interface
// another private address by hand.
const serverDetailsAge = 4 * time.Hour

// serverDetails remembers, by UUID, addresses that took a call of their own.
type serverDetails struct {
	mu      sync.Mutex
	entries map[string]serverDetail
}

type serverDetail struct {
	listed    []Address // what the lists said when the details were read
	attached  []string
	addresses []Address
	expires   time.Time
}

// ServerAddresses returns all addresses of a server out of a ServerSet, in the order of its interfaces.
//
// The API's list of addresses leaves out those on private (SDN) networks: of a server that is in one the details are asked
// for, once for as long as the lists show no change. A server without private networks costs nothing.
func (c *Cloud) ServerAddresses(ctx context.Context, server *Server) ([]Address, error) {
	if len(server.attached) == 0 {
		return server.Addresses, nil
	}
	if addresses, ok := c.shared.serverDetails.get(server); ok {
		return addresses, nil
	}
	detailed, err := c.Server(ctx, server.ID)
	if err != nil {
		return nil, err
	}
	c.shared.serverDetails.put(server, detailed.Addresses)
	return detailed.Addresses, nil
}

func (d *serverDetails) get(server *Server) ([]Address, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	entry, ok := d.entries[server.ID]
	if !ok || time.Now().After(entry.expires) ||
		!slices.Equal(entry.listed, server.Addresses) || !slices.Equal(entry.attached, server.attached) {
		return nil, false
	}
	return entry.addresses, true
}

func (d *serverDetails) put(server *Server, addresses []Address) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.entries == nil {
		d.entries = map[string]serverDetail{}
	}
	for id, entry := range d.entries {
		if now.After(entry.expires) {
			delete(d.entries, id)
		}
	}
	d.entries[server.ID] = serverDetail{
		listed: server.Addresses, attached: server.attached, addresses: addresses,
		expires: now.Add(serverDetailsAge/2 + rand.N(serverDetailsAge)),
	}
}
