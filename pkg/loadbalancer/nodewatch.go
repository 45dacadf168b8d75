package loadbalancer

import (
	"context"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// The service controller tells of nodes that come, go or get ready. Labels, by which Services and the configuration select nodes, it does
// not look at, but for one that excludes nodes from all load balancers.

// labelsSettle is how long the labels of nodes are given to change together.
const labelsSettle = time.Second

// FollowNodeLabels brings the members of load balancers up to date whenever labels of nodes change, until ctx ends. A Service that gets
// the same members as before costs no call. The informer is run by others.
func (l *LoadBalancers) FollowNodeLabels(ctx context.Context, services corelisters.ServiceLister, nodes coreinformers.NodeInformer) {
	follower{
		informer: nodes.Informer(), on: func(queue nameQueue) cache.ResourceEventHandler { return l.onNodeLabels(queue, services) },
		do: func(ctx context.Context, name cache.ObjectName) error {
			return l.updateSelected(ctx, name, services, nodes.Lister())
		},
		failed: "The members of a load balancer do not follow the labels of nodes",
	}.run(ctx)
}

// onNodeLabels queues the Services that select nodes by labels. Where the configuration does, those are all.
func (l *LoadBalancers) onNodeLabels(queue nameQueue, services corelisters.ServiceLister) cache.ResourceEventHandler {
	selects := func(name cache.ObjectName) bool {
		service, err := services.Services(name.Namespace).Get(name.Name)
		return err == nil && service.Annotations[settings.AnnotationNodeSelector] != ""
	}
	return cache.ResourceEventHandlerFuncs{UpdateFunc: func(before, after any) {
		was, ok := before.(*v1.Node)
		is, also := after.(*v1.Node)
		if !ok || !also || maps.Equal(was.Labels, is.Labels) {
			return
		}
		scope := l.config.Scope
		every := scope != nil && scope.Matches(labels.Set(was.Labels)) != scope.Matches(labels.Set(is.Labels))
		for _, name := range append(l.tending.names(), l.sharing.names()...) {
			if every || selects(name) {
				queue.AddAfter(name, labelsSettle)
			}
		}
	}}
}

// updateSelected does what the controller does when nodes come and go, and says why.
func (l *LoadBalancers) updateSelected(
	ctx context.Context, name cache.ObjectName, services corelisters.ServiceLister, nodes corelisters.NodeLister,
) error {
	service, err := services.Services(name.Namespace).Get(name.Name)
	if err != nil {
		return nil //nolint:nilerr // it is gone, and the controller sees to what it had
	}
	return l.whileKnown(ctx, service, services, nodes, func(ctx context.Context, current *v1.Service, present []*v1.Node) error {
		ctx, changes := recording(ctx)
		err := l.update(ctx, l.identity(ctx, l.lastClusterName(), current), current, present)
		if len(*changes) > 0 {
			l.tell(current, "UpdatedMembers", "Labels of nodes changed, and with them the nodes that get traffic: %s", inShort(*changes))
		}
		return err
	})
}

// whileKnown calls do with a Service's lock, for the Service as it is now and the nodes that the controller named last and that there are
// still. It does nothing for a Service that the controller has not come to, or has let go.
func (l *LoadBalancers) whileKnown(
	ctx context.Context, service *v1.Service, services corelisters.ServiceLister, nodes corelisters.NodeLister,
	do func(context.Context, *v1.Service, []*v1.Node) error,
) (err error) {
	defer recoverTo(&err, service)
	ctx, done, err := l.begin(ctx, service.Namespace, service.UID)
	if err != nil {
		return err
	}
	defer done()
	// Not before: while the lock is waited for, the controller may do more recent work.
	one, known := l.tending.get(service.UID)
	if !known {
		one, known = l.sharing.get(service.UID)
	}
	current, wanted := one.service(service.UID, services)
	if !known || !wanted {
		return nil
	}
	return do(ctx, current, one.present(nodes))
}
