package loadbalancer

import (
	"context"
	"sync"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// sightings are load balancers as they were a moment ago, so that one look serves all Services that share one.
type sightings struct {
	looking keyedLocks
	mu      sync.Mutex
	byID    map[string]*cloud.LoadBalancer
}

// of returns the load balancer as it was when anybody looked first, or nil.
func (s *sightings) of(ctx context.Context, id string, look func() (*cloud.LoadBalancer, error)) (*cloud.LoadBalancer, error) {
	unlock, err := s.looking.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	s.mu.Lock()
	seen := s.byID[id]
	s.mu.Unlock()
	if seen != nil {
		return seen, nil
	}
	if seen, err = look(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = map[string]*cloud.LoadBalancer{}
	}
	s.byID[id] = seen
	return seen, nil
}

// forget has the next one look again.
func (s *sightings) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, id)
}
