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
	bySvc map[types.UID][]string
}

// say says those remarks that were not among the Service's last ones.
func (s *said) say(service *v1.Service, remarks []Problem, warn func(runtime.Object, string, string, ...any)) {
	var texts []string
	for _, remark := range remarks {
		texts = append(texts, remark.Reason+": "+remark.Message)
	}
	s.mu.Lock()
	if s.bySvc == nil {
		s.bySvc = map[types.UID][]string{}
	}
	before := s.bySvc[service.UID]
	if len(texts) == 0 {
		delete(s.bySvc, service.UID)
	} else {
		s.bySvc[service.UID] = texts
	}
	s.mu.Unlock()
	for i, remark := range remarks {
		if !slices.Contains(before, texts[i]) {
			warn(service, remark.Reason, "%s", remark.Message)
		}
	}
}

// forget forgets a Service that has gone.
func (s *said) forget(service *v1.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bySvc, service.UID)
}
