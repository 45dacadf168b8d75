package loadbalancer

import (
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// said remembers which remarks a Service has been told, so that a reconcile with nothing new says nothing. It is lost at a
// restart, after which each is said once more.
type said struct {
	mu    sync.Mutex
	bySvc map[types.UID][]Problem
}

// say says those remarks that were not among the Service's last ones.
func (s *said) say(service *v1.Service, remarks []Problem, warn func(runtime.Object, string, string, ...any)) {
	s.mu.Lock()
	if s.bySvc == nil {
		s.bySvc = map[types.UID][]Problem{}
	}
	before := s.bySvc[service.UID]
	if len(remarks) == 0 {
		delete(s.bySvc, service.UID)
	} else {
		s.bySvc[service.UID] = slices.Clone(remarks)
	}
	s.mu.Unlock()
	for _, remark := range remarks {
		if !slices.Contains(before, remark) {
			warn(service, remark.Reason, "%s", remark.Message)
		}
	}
}

// last are the remarks that were said last.
func (s *said) last(service *v1.Service) []Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.bySvc[service.UID])
}

// forget forgets a Service that has gone.
func (s *said) forget(service *v1.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bySvc, service.UID)
}
