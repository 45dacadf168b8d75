package cloud

import (
	"context"
	"slices"
	"sync"
	"time"
)

// serverDetailsAge is for how long a server's own answer about its addresses serves. A server's interfaces change by hand,
// rarely, and a change of an address that the list shows is noticed at once.
const serverDetailsAge = 10 * time.Minute

// serverDetails remembers, by UUID, addresses that took a call of their own.
type serverDetails struct {
	mu      sync.Mutex
	entries map[string]serverDetail
}

type serverDetail struct {
	listed    []Address // what the list said when the details were read
	addresses []Address
	read      time.Time
}

// ServerAddresses returns the addresses of a server out of a ServerSet, in the order of its interfaces.
//
// The list of all addresses is enough for a server of which it shows one private IPv4 address. It was never seen to show
// those of SDN networks (the recordings have only public and utility ones), and it does not tell the order of interfaces:
// without a private address, or with several, the server itself is asked, once in ten minutes.
func (c *Cloud) ServerAddresses(ctx context.Context, server *Server) ([]Address, error) {
	private := 0
	for _, address := range server.Addresses {
		if address.Access == "private" && address.IP.Is4() && !address.Floating {
			private++
		}
	}
	if private == 1 {
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
	if !ok || time.Since(entry.read) > serverDetailsAge || !slices.Equal(entry.listed, server.Addresses) {
		return nil, false
	}
	return entry.addresses, true
}

func (d *serverDetails) put(server *Server, addresses []Address) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.entries == nil {
		d.entries = map[string]serverDetail{}
	}
	for id, entry := range d.entries {
		if time.Since(entry.read) > serverDetailsAge {
			delete(d.entries, id)
		}
	}
	d.entries[server.ID] = serverDetail{listed: server.Addresses, addresses: addresses, read: time.Now()}
}
