package fairness

import (
	"context"
	"fmt"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// nodeChanges brings load balancers up to date whose members change because nodes come and go. The library does that for all Services at
// one time, and comes to the next change of nodes only when the last Service of the last one is done: one Service that takes long would
// keep the nodes from all others. So it only says here which nodes there are.
type nodeChanges struct {
	controller *Controller
	turns      *Turns
	queue      workqueue.TypedRateLimitingInterface[cache.ObjectName]
	events     record.EventRecorder

	mu     sync.Mutex
	latest map[cache.ObjectName]nodeChange
}

// nodeChange is what the library said last.
type nodeChange struct {
	clusterName string
	service     *v1.Service
	nodes       []*v1.Node
}

func newNodeChanges(c *Controller) *nodeChanges {
	return &nodeChanges{
		controller: c, turns: NewTurns(1), latest: map[cache.ObjectName]nodeChange{}, events: &record.FakeRecorder{},
		queue: NewQueue(func(name cache.ObjectName) string { return name.Namespace },
			workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()),
	}
}

func (n *nodeChanges) add(clusterName string, service *v1.Service, nodes []*v1.Node) {
	name := cache.MetaObjectToName(service)
	n.mu.Lock()
	n.latest[name] = nodeChange{clusterName: clusterName, service: service, nodes: nodes}
	n.mu.Unlock()
	n.queue.Add(name)
}

// start works until ctx ends; ended waits for that.
func (n *nodeChanges) start(ctx context.Context, workers int) (ended func()) {
	n.turns.setWorkers(workers)
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: n.controller.client.CoreV1().Events("")})
	n.events = broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "service-controller"})
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for n.next(ctx) {
			}
		})
	}
	return func() {
		n.queue.ShutDown()
		all.Wait()
		broadcaster.Shutdown()
	}
}

func (n *nodeChanges) next(ctx context.Context) bool {
	name, ended := n.queue.Get()
	if ended {
		return false
	}
	defer n.queue.Done(name)
	if again, ok := n.turns.Take(name.Namespace, name.Name); !ok {
		n.queue.AddAfter(name, again)
		return true
	}
	n.turns.Begin(name.Namespace, name.Name)
	defer n.turns.End(name.Namespace, name.Name)
	n.mu.Lock()
	change, known := n.latest[name]
	delete(n.latest, name)
	n.mu.Unlock()
	if known {
		n.do(ctx, name, change)
	}
	return true
}

// do changes the members of one Service's load balancer. Where that fails, the Service gets all that it lacks from the library's queue, as
// the library does it.
func (n *nodeChanges) do(ctx context.Context, name cache.ObjectName, change nodeChange) {
	service, err := n.controller.services.Services(name.Namespace).Get(name.Name)
	if err != nil || service.UID != change.service.UID {
		return // it is gone
	}
	err = n.controller.balancers.UpdateLoadBalancer(ctx, change.clusterName, service, change.nodes)
	if pause, ok := IsContinues(err); ok {
		n.mu.Lock()
		if _, newer := n.latest[name]; !newer {
			n.latest[name] = change
		}
		n.mu.Unlock()
		n.queue.AddAfter(name, pause)
		return
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		klog.FromContext(ctx).Error(err, "Failed to update the members of a load balancer", "service", klog.KObj(service))
		n.events.Eventf(service, v1.EventTypeWarning, "UpdateLoadBalancerFailed",
			"Error updating load balancer with new hosts %v [node names limited, total number of nodes: %d], error: %v",
			someNames(change.nodes), len(change.nodes), err)
		n.controller.enqueue(service)
	case len(change.nodes) == 0:
		n.events.Event(service, v1.EventTypeWarning, "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
	default:
		n.events.Event(service, v1.EventTypeNormal, "UpdatedLoadBalancer", "Updated load balancer with new hosts")
	}
}

// someNames are the names of nodes for an event.
func someNames(nodes []*v1.Node) string {
	const most = 20
	var names []string
	for _, node := range nodes[:min(most, len(nodes))] {
		names = append(names, node.Name)
	}
	if more := len(nodes) - most; more > 0 {
		names = append(names, fmt.Sprintf("<%d more>", more))
	}
	return strings.Join(names, " ")
}
