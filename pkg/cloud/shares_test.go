package cloud

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/time/rate"
)

// sharedOut sends requests of tenants at one time, in this order, and notes whose reach the API in which.
type sharedOut struct {
	*transport
	t    *testing.T
	mu   sync.Mutex
	sent []string
	done sync.WaitGroup
}

func newSharedOut(t *testing.T, throttle func(*metrics) *throttle, answer func(*http.Request) (*http.Response, error)) *sharedOut {
	s := &sharedOut{t: t}
	var wire *wire
	s.transport, wire = newTestTransport(t, func(r *http.Request) (*http.Response, error) {
		s.mu.Lock()
		s.sent = append(s.sent, shareOf(r.Context()).Group+"/"+shareOf(r.Context()).Tenant)
		s.mu.Unlock()
		return answer(r)
	})
	s.throttle = throttle(s.metrics)
	s.base = wire
	return s
}

// send lets requests wait for their turn.
func (s *sharedOut) send(ctx context.Context, count int, share Share) {
	for range count {
		s.done.Go(func() { _, _ = roundTrip(s.t, s.transport, WithShare(ctx, share), http.MethodGet) })
	}
	synctest.Wait()
}

func (s *sharedOut) order() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent)
}

func TestRequestsOfOneTenantDoNotDelayAnothers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharedOut(t, func(m *metrics) *throttle { return newThrottle(rate.Limit(1), 1, 10, m) }, status(200))
		s.send(t.Context(), 50, Share{Group: "services", Tenant: "noisy"})
		s.send(t.Context(), 2, Share{Group: "services", Tenant: "quiet"})
		s.send(t.Context(), 2, Share{})
		s.done.Wait()
		order := s.order()
		for _, quiet := range []string{"services/quiet", "/"} {
			first := slices.Index(order, quiet)
			second := first + 1 + slices.Index(order[first+1:], quiet)
			if first > 3 || second > 7 {
				t.Errorf("requests of %q were sent as numbers %d and %d: %q", quiet, first, second, order[:10])
			}
		}
		if len(order) != 54 {
			t.Errorf("%d requests were sent, want 54", len(order))
		}
	})
}

// The requests of a tenant that get no answer leave room for other tenants', and those of a group for other groups'.
func TestRequestsWithoutAnswerLeaveRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharedOut(t, func(m *metrics) *throttle {
			throttle := newThrottle(rate.Inf, 1, 8, m)
			throttle.shares.limits = shareLimits{group: 6, tenant: 2}
			return throttle
		}, silent)
		ctx, cancel := context.WithCancel(t.Context())
		for _, tenant := range []string{"a", "b", "c", "d"} {
			s.send(ctx, 5, Share{Group: "services", Tenant: tenant})
		}
		s.send(ctx, 5, Share{})
		counts := map[string]int{}
		for _, share := range s.order() {
			counts[share]++
		}
		if want := (map[string]int{"services/a": 2, "services/b": 2, "services/c": 2, "/": 2}); fmt.Sprint(counts) != fmt.Sprint(want) {
			t.Errorf("under way are %v, want %v", counts, want)
		}
		cancel()
		s.done.Wait()
		if s.throttle.under != 0 || len(s.throttle.shares.groups) != 0 {
			t.Errorf("%d requests are under way, and %d groups are known, after all have ended", s.throttle.under, len(s.throttle.shares.groups))
		}
	})
}

// While a request is the next of its tenant, every other tenant of the group, and every other group, gets one turn at most; and
// requests of one tenant keep their order.
func TestSharesAdmitInTurn(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := &shares{}
		var waiting, under []*waiter
		turns := map[*waiter]map[string]int{} // of other tenants and groups, since it is the next of its tenant
		for range 2000 {
			switch random.IntN(5) {
			case 0, 1:
				waiting = append(waiting, s.arrive(Share{Group: fmt.Sprint("g", random.IntN(3)), Tenant: fmt.Sprint("t", random.IntN(4))}))
			case 2:
				if len(waiting) > 0 && random.IntN(4) == 0 {
					at := random.IntN(len(waiting))
					s.withdraw(waiting[at])
					delete(turns, waiting[at])
					waiting = slices.Delete(waiting, at, at+1)
				}
			case 3:
				if len(under) > 0 {
					s.end(under[0])
					under = under[1:]
				}
			default:
				one := s.admit()
				if (one == nil) != (len(waiting) == 0) {
					t.Fatalf("seed %d: admitted %v with %d waiting", seed, one, len(waiting))
				}
				if one == nil {
					continue
				}
				first := slices.IndexFunc(waiting, func(w *waiter) bool { return w.tenant == one.tenant })
				if waiting[first] != one {
					t.Fatalf("seed %d: a request was admitted before an earlier one of its tenant", seed)
				}
				waiting, under = slices.Delete(waiting, first, first+1), append(under, one)
				delete(turns, one)
				for _, other := range waiting {
					if len(other.tenant.waiting) == 0 || other.tenant.waiting[0] != other || other.tenant == one.tenant {
						continue
					}
					if turns[other] == nil {
						turns[other] = map[string]int{}
					}
					key := one.tenant.group.name + "/" + one.tenant.name
					if turns[other][key]++; one.tenant.group == other.tenant.group && turns[other][key] > 1 {
						t.Fatalf("seed %d: tenant %s had two turns while a request of %s waited", seed, key, other.tenant.name)
					}
				}
			}
			if s.waiters() != len(waiting) {
				t.Fatalf("seed %d: %d requests wait, want %d", seed, s.waiters(), len(waiting))
			}
		}
		for len(waiting) > 0 { // nobody waits for ever
			one := s.admit()
			waiting = slices.DeleteFunc(waiting, func(w *waiter) bool { return w == one })
			under = append(under, one)
		}
		for _, one := range under {
			s.end(one)
		}
		if len(s.groups) != 0 {
			t.Errorf("seed %d: groups are remembered after their last request", seed)
		}
	}
}

// A request that cannot get its turn before its deadline fails at once, others' requests that wait do not count more than their turn.
func TestRequestThatWouldMissItsDeadlineIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSharedOut(t, func(m *metrics) *throttle { return newThrottle(rate.Limit(1), 1, 10, m) }, status(200))
		s.send(t.Context(), 50, Share{Tenant: "noisy"})
		ctx, cancel := context.WithTimeout(t.Context(), 5*1e9)
		defer cancel()
		if _, err := roundTrip(t, s.transport, WithShare(ctx, Share{Tenant: "noisy"}), http.MethodGet); err == nil || ctx.Err() != nil {
			t.Errorf("a request behind 50 of its own tenant got error %v, its context %v", err, ctx.Err())
		}
		if _, err := roundTrip(t, s.transport, WithShare(ctx, Share{Tenant: "quiet"}), http.MethodGet); err != nil {
			t.Errorf("another tenant's request got %v", err)
		}
		s.done.Wait()
	})
}
