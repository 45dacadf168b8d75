package loadbalancer

import (
	"context"
	"slices"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// FollowPods brings load balancers whose members are Pods up to date whenever Pods come and go, until ctx ends.
func (l *LoadBalancers) FollowPods(ctx context.Context, services corelisters.ServiceLister, nodes corelisters.NodeLister) {
	if !l.config.PodMembers {
		return
	}
	factory := informers.NewSharedInformerFactoryWithOptions(l.client, 0, informers.WithTransform(withoutManagedFields))
	endpoints := factory.Discovery().V1().EndpointSlices()
	l.pods.slices = endpoints.Lister()
	follower{
		factory: factory, informer: endpoints.Informer(), on: onSlices, synced: func() { close(l.pods.ready) },
		do: func(ctx context.Context, name cache.ObjectName) error {
			return l.updatePods(ctx, name, services, nodes)
		},
		failed: "Not all Pods of a Service that are ready are members of its load balancer, or some that are not",
	}.run(ctx)
}

// onSlices queues the Services of EndpointSlices that come, change or go.
func onSlices(queue nameQueue) cache.ResourceEventHandler {
	changed := func(object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		if slice, ok := object.(*discovery.EndpointSlice); ok {
			queue.AddAfter(cache.NewObjectName(slice.Namespace, slice.Labels[discovery.LabelServiceName]), podsSettle)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: changed, DeleteFunc: changed,
		UpdateFunc: func(before, after any) {
			changed(before) // it may have been another Service's
			changed(after)
		},
	}
}

// withoutManagedFields leaves out what nobody here reads and is half of many a slice.
func withoutManagedFields(object any) (any, error) {
	if slice, ok := object.(*discovery.EndpointSlice); ok {
		slice.ManagedFields = nil
	}
	return object, nil
}

// updatePods does what the controller does when nodes come and go, whatever else of the Service waits to be corrected: the addresses
// of Pods that have gone are soon others'.
func (l *LoadBalancers) updatePods(
	ctx context.Context, name cache.ObjectName, services corelisters.ServiceLister, nodes corelisters.NodeLister,
) (err error) {
	service, err := services.Services(name.Namespace).Get(name.Name)
	if err != nil || !l.hasPods(service) {
		return nil //nolint:nilerr // a Service that is gone has no Pods
	}
	defer recoverTo(&err, service)
	ctx, done, err := l.begin(ctx, service.Namespace, service.UID)
	if err != nil {
		return err
	}
	defer done()
	// One that the controller has not come to, or has let go, has no load balancer of its own.
	one, known := l.tending.get(service.UID)
	if !known {
		return nil
	}
	if current, wanted := one.service(service.UID, services); wanted {
		return l.update(ctx, l.identity(ctx, l.lastClusterName(), current), current, one.present(nodes))
	}
	asked, _ := settings.Parse(service)
	if !isKept(service, asked) {
		return nil
	}
	identity := l.identity(ctx, l.lastClusterName(), service)
	lb, err := l.find(ctx, service, identity)
	if err != nil || lb == nil || lb.State.Deleting() {
		return err
	}
	return l.updateProtected(ctx, identity, service, asked, lb)
}

// hasPods says whether a Service may have a load balancer whose members are Pods to be followed. While it goes its lock is held for
// long, but if the load balancer is protected.
func (l *LoadBalancers) hasPods(service *v1.Service) bool {
	one, known := l.tending.get(service.UID)
	if service.Spec.Type == v1.ServiceTypeLoadBalancer && service.DeletionTimestamp == nil {
		_, problems := settings.Parse(service)
		return l.byPods(service) || one.pods && len(problems) > 0 // it had Pods, and what it asks for now is refused
	}
	asked, _ := settings.Parse(service)
	return known && l.config.PodMembers && isKept(service, asked)
}

// updateProtected brings those members up to date that are Pods, of a load balancer that is not deleted though its Service is about to
// go, or no longer of type LoadBalancer: it leads to them still. Other members stay, as nodes are not told of any more.
func (l *LoadBalancers) updateProtected(
	ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings, lb *cloud.LoadBalancer,
) error {
	isPods := podBackends(lb)
	if !l.config.PodMembers || !slices.ContainsFunc(lb.Backends, func(b cloud.Backend) bool { return isPods(b.Name) }) {
		return nil
	}
	if _, known := l.tending.get(service.UID); !known {
		l.tending.note(service, nil)
	}
	w := &work{LoadBalancers: l, service: service, identity: identity.Of(lb), settings: &settings.Settings{
		Ports: l.portsAsStood(asked), MaxMembers: asked.MaxMembers,
	}}
	var err error
	w.pods, err = l.podsOf(ctx, service, func(v1.ServicePort) bool { return true }) // its ports may have node ports by now, or none
	if err != nil {
		return err
	}
	l.membership.forget(service)
	desired := plan.DesiredState(w.input(lb.Networks))
	desired.DefaultPlan = lb.Plan // to which no change is due
	desired.Backends = slices.DeleteFunc(desired.Backends, func(b plan.Backend) bool { return !isPods(b.Name) })
	limits, err := w.sessions(ctx, desired, lb)
	if err != nil {
		return err
	}
	return l.apply(ctx, service, lb, plan.BackendChanges(desired, lb, limits))
}

// podBackends says of a load balancer's backends, by name, whether their members are Pods.
func podBackends(lb *cloud.LoadBalancer) func(string) bool {
	ours := plan.NotesOf(lb.Labels, settings.LabelComponents)
	return func(backend string) bool { return ours.Has(plan.NotePods(backend)) }
}

// takePodsOff leaves no Pods as members of a load balancer that nobody keeps up to date from now on: their addresses will be other
// Pods'. It says whether there were any, or had been before somebody was interrupted here.
func (l *LoadBalancers) takePodsOff(ctx context.Context, service *v1.Service, lb *cloud.LoadBalancer) (bool, error) {
	isPods, had := podBackends(lb), false
	var changes []plan.Change
	for _, backend := range lb.Backends {
		if !isPods(backend.Name) || lb.State.Deleting() {
			continue
		}
		had = true
		if members, changed := (plan.Backend{Pods: true}).MembersOf(backend.Members, plan.SessionLimits{}); changed {
			changes = append(changes, plan.Change{Name: backend.Name, ModifyBackend: &cloud.BackendPatch{Members: members}})
		}
	}
	return had, l.apply(ctx, service, lb, changes)
}
