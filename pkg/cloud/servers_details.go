package cloud

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// serverDetailsAge is for how long a server's own answer about its addresses serves, give or take a half. When an
	// interface comes or goes, the lists show it; what they do not show is only that somebody gave an interface another
	// private address by hand.
	serverDetailsAge = 4 * time.Hour
	// serverDetailsPace is the least time between two answers that are asked for because of their age alone: ten calls in
	// five minutes, however many servers there are.
	serverDetailsPace = 30 * time.Second
)

// serverDetails remembers, by UUID, what servers said of themselves.
//
// They must be asked one by one: no list has the addresses on private (SDN) networks. So each is asked when its node joins,
// and again when a list contradicts what it said.
type serverDetails struct {
	once    sync.Once
	reading *flights[*Server]
	aged    *rate.Limiter

	mu      sync.Mutex
	entries map[string]serverDetail
	pruned  time.Time
}

type serverDetail struct {
	server  *Server
	taken   time.Time // when the reading began
	expires time.Time
	// contradicts is a listing that says something else, and was there before the server was asked: it is wrong.
	contradicts *listing
}

func (d *serverDetails) init(c *Cloud) {
	d.once.Do(func() {
		d.reading = newFlights[*Server](c.life, &c.work)
		d.aged = rate.NewLimiter(rate.Every(serverDetailsPace), 1)
		d.entries = map[string]serverDetail{}
	})
}

// ServerSince returns what Server does, as read at that moment or later: callers who want the same share one call.
func (c *Cloud) ServerSince(ctx context.Context, id string, moment time.Time) (*Server, error) {
	details := &c.shared.serverDetails
	details.init(c)
	for {
		if entry, found := details.get(id); found && !entry.taken.Before(moment) {
			return entry.server, nil
		}
		if _, err := details.reading.do(ctx, id, func(w *work) (*Server, error) {
			return c.readDetails(w.ctx, id, nil)
		}); err != nil {
			return nil, err
		}
	}
}

func (c *Cloud) readDetails(ctx context.Context, id string, contradicts *listing) (*Server, error) {
	taken := time.Now()
	server, err := c.Server(ctx, id)
	if err == nil || errors.Is(err, ErrNotFound) {
		c.shared.serverDetails.put(id, serverDetail{server: server, taken: taken, contradicts: contradicts})
	}
	return server, err
}

// ServerAddresses returns all addresses of a server, in the order of its interfaces: what the server itself said, for as long
// as the lists of addresses and networks agree with that.
func (c *Cloud) ServerAddresses(ctx context.Context, id string) ([]Address, error) {
	details := &c.shared.serverDetails
	details.init(c)
	entry, found := details.get(id)
	if !found {
		server, err := c.ServerSince(ctx, id, time.Now())
		if err != nil {
			return nil, err
		}
		return server.Addresses, nil
	}
	lists, err := c.addressLists(ctx, time.Now().Add(-addressListsAge))
	if err != nil {
		return nil, err
	}
	listed := lists.of(id)
	agree := listed.equal(listingOf(entry.server)) || entry.contradicts != nil && listed.equal(*entry.contradicts)
	switch {
	case agree && (time.Now().Before(entry.expires) || !details.aged.Allow()):
		return entry.server.Addresses, nil
	case !agree && entry.taken.After(lists.taken):
		return entry.server.Addresses, nil
	}
	server, err := c.readDetails(ctx, id, &listed)
	if err != nil {
		return nil, err
	}
	return server.Addresses, nil
}

func (d *serverDetails) get(id string) (serverDetail, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	entry, found := d.entries[id]
	return entry, found
}

// put remembers an entry, or forgets it when there is no server.
func (d *serverDetails) put(id string, entry serverDetail) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if entry.server == nil {
		delete(d.entries, id)
		return
	}
	entry.expires = now.Add(serverDetailsAge/2 + rand.N(serverDetailsAge))
	d.entries[id] = entry
	if now.Sub(d.pruned) > serverDetailsAge {
		// Those that are asked for are renewed at a pace. What is much older is of servers that are gone.
		maps.DeleteFunc(d.entries, func(_ string, e serverDetail) bool {
			return now.Sub(e.expires) > time.Duration(len(d.entries))*serverDetailsPace+serverDetailsAge
		})
		d.pruned = now
	}
}

// listing is what the lists have about one server's addresses: its public and utility ones, and its private networks.
type listing struct {
	addresses []string
	networks  []string
}

func (l listing) equal(other listing) bool {
	return slices.Equal(l.addresses, other.addresses) && slices.Equal(l.networks, other.networks)
}

// listingOf is what the lists should have about a server.
func listingOf(server *Server) listing {
	var l listing
	for _, address := range server.Addresses {
		if address.Access != "private" {
			l.addresses = append(l.addresses, address.IP.String())
		}
	}
	l.networks = server.privateNetworks
	slices.Sort(l.addresses)
	return l
}

// forget makes the next reader ask for the server's own answer again.
func (d *serverDetails) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.entries, id)
}
