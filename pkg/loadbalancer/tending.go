package loadbalancer

import (
	"maps"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// tending remembers Services, those that have load balancers of their own apart from those that share, each with the names of the nodes
// that its controller told of last: which nodes it tells of is its own decision, and only names are kept, as old Node objects would fill
// the memory.
type tending struct {
	mu     sync.Mutex
	bySvc  map[types.UID]tended
	recent []string // one list serves all Services that have the same nodes
}

type tended struct {
	namespace, name string
	nodes           []string // sorted
	pods            bool     // Pods are members, or were when somebody looked
}

func (t *tending) note(service *v1.Service, nodes []*v1.Node) {
	names := make([]string, len(nodes))
	for i, node := range nodes {
		names[i] = node.Name
	}
	slices.Sort(names)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Equal(names, t.recent) {
		t.recent = names
	}
	if t.bySvc == nil {
		t.bySvc = map[types.UID]tended{}
	}
	t.bySvc[service.UID] = tended{namespace: service.Namespace, name: service.Name, nodes: t.recent, pods: t.bySvc[service.UID].pods}
}

// setPods notes whether Pods are members.
func (t *tending) setPods(uid types.UID, pods bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one, known := t.bySvc[uid]; known {
		one.pods = pods
		t.bySvc[uid] = one
	}
}

func (t *tending) forget(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.bySvc, uid)
}

func (t *tending) get(uid types.UID) (tended, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one, known := t.bySvc[uid]
	return one, known
}

// byNamespace are the UIDs of the Services.
func (t *tending) byNamespace() map[string][]types.UID {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := map[string][]types.UID{}
	for _, uid := range slices.Sorted(maps.Keys(t.bySvc)) {
		namespace := t.bySvc[uid].namespace
		all[namespace] = append(all[namespace], uid)
	}
	return all
}

// names are those of the Services.
func (t *tending) names() []cache.ObjectName {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]cache.ObjectName, 0, len(t.bySvc))
	for _, one := range t.bySvc {
		all = append(all, cache.NewObjectName(one.namespace, one.name))
	}
	return all
}

// service is the Service as it is now, if its load balancer is still to be tended.
func (t tended) service(uid types.UID, services corelisters.ServiceLister) (*v1.Service, bool) {
	service, err := services.Services(t.namespace).Get(t.name)
	if err != nil || service.UID != uid || service.DeletionTimestamp != nil || service.Spec.Type != v1.ServiceTypeLoadBalancer {
		return nil, false // it is the controller's to see that it goes
	}
	return service, true
}

// present are the nodes as they are now, without those that have gone: the controller is about to tell of those.
func (t tended) present(nodes corelisters.NodeLister) []*v1.Node {
	all := make([]*v1.Node, 0, len(t.nodes))
	for _, name := range t.nodes {
		if node, err := nodes.Get(name); err == nil {
			all = append(all, node)
		}
	}
	return all
}
