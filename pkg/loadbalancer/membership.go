package loadbalancer

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// membership remembers which members each Service's backends were last brought to have. With more nodes than a backend takes
// members, most Services have nothing to do when a node comes or goes: those then cost no call. It is lost at a restart, after
// which each load balancer is looked at once. What somebody else does to members meanwhile is mended in the Service's next reconcile
// or check (see drift.go), which always look.
type membership struct {
	mu    sync.Mutex
	bySvc map[types.UID]broughtTo
}

type broughtTo struct {
	id      string // of the load balancer
	members [sha256.Size]byte
	// outside names the nodes that were out of the reach of a shared load balancer, and are no members for that.
	outside []string
}

// has says whether the load balancer that the Service's annotation names has these members already.
func (m *membership) has(service *v1.Service, members [sha256.Size]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, known := m.bySvc[service.UID]
	return known && last.id == service.Annotations[AnnotationID] && last.members == members
}

// within leaves out the nodes that were out of reach then.
func (m *membership) within(service *v1.Service, nodes []*v1.Node) []*v1.Node {
	m.mu.Lock()
	outside := m.bySvc[service.UID].outside
	m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(nodes), func(node *v1.Node) bool { return slices.Contains(outside, node.Name) })
}

// set is called when all of them have been written.
func (m *membership) set(service *v1.Service, id string, members [sha256.Size]byte, outside ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bySvc == nil {
		m.bySvc = map[types.UID]broughtTo{}
	}
	m.bySvc[service.UID] = broughtTo{id, members, outside}
}

// forget is called before any is written, as what fails half-way leaves some of each, and when a Service has gone.
func (m *membership) forget(service *v1.Service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.bySvc, service.UID)
}

// members is a digest of what members the Service's backends have with these nodes.
func (w *work) members(nodes []*v1.Node) [sha256.Size]byte {
	of := *w
	of.nodes = nodes
	return DesiredState(of.input(nil)).members()
}

// members is a digest of what the members of a desired state follow from.
func (d Desired) members() [sha256.Size]byte {
	digest := sha256.New()
	encoder := json.NewEncoder(digest)
	for _, backend := range d.Backends {
		targets := make([]Target, len(backend.Targets))
		for i, target := range backend.Targets {
			targets[i] = target
			targets[i].Unsure = false // is about which are chosen, and they have been
		}
		// A hash takes everything, and none of this is of a type that JSON has no form for.
		_ = encoder.Encode([]any{backend.Name, backend.NodePort, backend.MaxSessions, backend.Members, targets})
	}
	return [sha256.Size]byte(digest.Sum(nil))
}
