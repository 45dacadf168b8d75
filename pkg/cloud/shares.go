package cloud

import (
	"context"
	"slices"
)

// Requests that have to wait for this client's limits are admitted in turns: first between the groups of work, then between the tenants
// of a group, then in the order of their arrival. So a tenant with a thousand requests delays another tenant's first one by one request.

// Share says whose work a request belongs to.
type Share struct {
	// Group is the kind of work. Groups that have to wait get the same number of requests. Empty: the work of nodes, and of any program
	// that makes no difference.
	Group string
	// Tenant is whom within the group the work is for, such as a namespace. Tenants that have to wait get the same number of requests.
	Tenant string
}

type shareKey struct{}

// WithShare marks the requests of a context. Requests without a mark are of the zero Share.
func WithShare(ctx context.Context, share Share) context.Context {
	return context.WithValue(ctx, shareKey{}, share)
}

func shareOf(ctx context.Context) Share {
	share, _ := ctx.Value(shareKey{}).(Share)
	return share
}

// shareLimits bound the requests under way at one time; 0: no bound of its own.
type shareLimits struct{ group, tenant int }

// shares are the requests that wait or are under way. It is not safe for concurrent use.
type shares struct {
	limits shareLimits
	clock  uint64 // counts arrivals and admissions
	groups map[string]*shareGroup
}

type shareGroup struct {
	name     string
	admitted uint64 // when a request was last admitted, by shares.clock
	under    int    // requests under way
	tenants  map[string]*shareTenant
}

type shareTenant struct {
	name     string
	group    *shareGroup
	admitted uint64
	under    int
	waiting  []*waiter
}

// waiter is one request that waits for admission.
type waiter struct {
	tenant  *shareTenant
	arrived uint64
	ready   chan struct{} // closed when it is admitted
}

func (s *shares) tick() uint64 {
	s.clock++
	return s.clock
}

// arrive puts a request at the end of its tenant's queue.
func (s *shares) arrive(share Share) *waiter {
	if s.groups == nil {
		s.groups = map[string]*shareGroup{}
	}
	group, known := s.groups[share.Group]
	if !known {
		group = &shareGroup{name: share.Group, tenants: map[string]*shareTenant{}}
		s.groups[share.Group] = group
	}
	tenant, known := group.tenants[share.Tenant]
	if !known {
		tenant = &shareTenant{name: share.Tenant, group: group}
		group.tenants[share.Tenant] = tenant
	}
	one := &waiter{tenant: tenant, arrived: s.tick(), ready: make(chan struct{})}
	tenant.waiting = append(tenant.waiting, one)
	return one
}

// admit takes the request whose turn it is out of its queue; nil: none waits that its group's and tenant's limits let through.
// Its turn it is for whoever has gone without the longest: since the last admission, or since its oldest request came. As that moment
// stays while it waits, and every other's moves on when it gets its turn, nobody waits for ever.
func (s *shares) admit() *waiter {
	var first *shareTenant
	var firstSince uint64
	for _, group := range s.groups {
		tenant, arrived := group.next(s.limits)
		if tenant == nil {
			continue
		}
		if since := max(group.admitted, arrived); first == nil || since < firstSince {
			first, firstSince = tenant, since
		}
	}
	if first == nil {
		return nil
	}
	one := first.waiting[0]
	first.waiting = first.waiting[1:]
	first.under++
	first.group.under++
	first.admitted = s.tick()
	first.group.admitted = first.admitted
	return one
}

// next is the tenant of the group whose turn it is, and when the oldest request came of those that may be admitted.
func (g *shareGroup) next(limits shareLimits) (first *shareTenant, arrived uint64) {
	if limits.group > 0 && g.under >= limits.group {
		return nil, 0
	}
	var firstSince uint64
	for _, tenant := range g.tenants {
		if len(tenant.waiting) == 0 || limits.tenant > 0 && tenant.under >= limits.tenant && tenant.name != "" {
			continue
		}
		oldest := tenant.waiting[0].arrived
		if since := max(tenant.admitted, oldest); first == nil || since < firstSince {
			first, firstSince = tenant, since
		}
		if arrived == 0 || oldest < arrived {
			arrived = oldest
		}
	}
	return first, arrived
}

// withdraw takes a request out of its queue that gives up waiting, and says whether it was there still.
func (s *shares) withdraw(one *waiter) bool {
	at := slices.Index(one.tenant.waiting, one)
	if at < 0 {
		return false
	}
	one.tenant.waiting = slices.Delete(one.tenant.waiting, at, at+1)
	s.tidy(one.tenant)
	return true
}

// end notes that an admitted request is over.
func (s *shares) end(one *waiter) {
	one.tenant.under--
	one.tenant.group.under--
	s.tidy(one.tenant)
}

// tidy forgets a tenant and a group without requests. Nothing is lost: when it was last admitted is before any later arrival.
func (s *shares) tidy(tenant *shareTenant) {
	group := tenant.group
	if len(tenant.waiting) == 0 && tenant.under == 0 && group.tenants[tenant.name] == tenant {
		delete(group.tenants, tenant.name)
	}
	if len(group.tenants) == 0 && s.groups[group.name] == group {
		delete(s.groups, group.name)
	}
}

// waiters is how many requests wait.
func (s *shares) waiters() int {
	total := 0
	for _, group := range s.groups {
		for _, tenant := range group.tenants {
			total += len(tenant.waiting)
		}
	}
	return total
}

// ahead is how many requests get their turn before the last one of a queue, if no more come.
func (s *shares) ahead(last *waiter) int {
	position := len(last.tenant.waiting)
	before := -1 // itself
	for _, tenant := range last.tenant.group.tenants {
		before += min(len(tenant.waiting), position)
	}
	others := 0
	for _, group := range s.groups {
		if group == last.tenant.group {
			continue
		}
		waiting := 0
		for _, tenant := range group.tenants {
			waiting += len(tenant.waiting)
		}
		others += min(waiting, before+1)
	}
	return before + others
}
