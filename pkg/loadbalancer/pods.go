package loadbalancer

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// Services without node ports (spec.allocateLoadBalancerNodePorts is false) have their Pods as members, where Config.PodMembers allows
// that. The service controller does not look at Pods: what comes and goes among them is followed here.

const reasonNodePortMissing = "NodePortMissing"

// podsSettle is how long changes of a Service's Pods are waited for to become one call.
const podsSettle = 200 * time.Millisecond

// podsWait is how long one call waits until it is known which Pods are ready: without the right to watch them that is never, and
// a worker of the controller that waits keeps other Services waiting.
const podsWait = 10 * time.Second

// podReader reads which Pods are ready.
type podReader struct {
	ready  chan struct{} // closed once slices can be read
	wait   time.Duration
	slices discoverylisters.EndpointSliceLister
}

// problems are Problems, but that Pods may stand in for node ports.
func (l *LoadBalancers) problems(service *v1.Service, settings *Settings) []Problem {
	all := Problems(service)
	if l.config.PodMembers && settings.Shared == nil {
		all = slices.DeleteFunc(all, func(p Problem) bool { return p.Reason == reasonNodePortMissing })
	}
	return all
}

// byPods says whether Pods are members of any of the Service's backends.
func (l *LoadBalancers) byPods(service *v1.Service) bool {
	return l.config.PodMembers && slices.ContainsFunc(service.Spec.Ports, func(p v1.ServicePort) bool { return p.NodePort == 0 })
}

// readPods finds the Pods of the ports that have no node port. It waits until that can be known: to have none is an order to send
// nobody traffic.
func (w *work) readPods(ctx context.Context) error {
	if !w.byPods(w.service) || w.settings.Shared != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.LoadBalancers.pods.wait)
	defer cancel()
	select {
	case <-w.LoadBalancers.pods.ready:
	case <-ctx.Done():
		return fmt.Errorf("which Pods are ready is not known yet, for which the CCM must be allowed to list and watch EndpointSlices: %w",
			ctx.Err())
	}
	all, err := w.LoadBalancers.pods.slices.EndpointSlices(w.service.Namespace).List(
		labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: w.service.Name}))
	if err != nil {
		return err
	}
	w.pods = map[string][]Target{}
	for _, port := range w.service.Spec.Ports {
		if port.NodePort == 0 {
			w.pods[port.Name] = podTargets(all, port.Name)
		}
	}
	return nil
}

// podTargets are the ready endpoints of a port, ordered by name. An endpoint may be in two slices for a moment
// (discovery.k8s.io/v1, EndpointSlice).
func podTargets(all []*discovery.EndpointSlice, port string) []Target {
	targets := []Target{}
	for _, slice := range all {
		number, ok := portNumber(slice, port)
		if !ok || slice.AddressType != discovery.AddressTypeIPv4 {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if ready := endpoint.Conditions.Ready; ready != nil && !*ready || len(endpoint.Addresses) == 0 {
				continue
			}
			ip, err := netip.ParseAddr(endpoint.Addresses[0])
			if err != nil {
				continue
			}
			name := "ip-" + strings.ReplaceAll(ip.String(), ".", "-")
			if ref := endpoint.TargetRef; ref != nil && ref.Kind == "Pod" {
				name = memberName(ref.Name)
			}
			if !slices.ContainsFunc(targets, func(t Target) bool { return t.Name == name }) {
				targets = append(targets, Target{Name: name, IP: ip, Port: number})
			}
		}
	}
	slices.SortFunc(targets, func(a, b Target) int { return strings.Compare(a.Name, b.Name) })
	return targets
}

// portNumber is the number of a Service's port at the endpoints of a slice. Slices written by hand may have one that there is not.
func portNumber(slice *discovery.EndpointSlice, name string) (int, bool) {
	for _, port := range slice.Ports {
		if port.Port != nil && *port.Port > 0 && *port.Port <= 65535 && (port.Name == nil && name == "" || port.Name != nil && *port.Name == name) {
			return int(*port.Port), true
		}
	}
	return 0, false
}

// FollowPods brings load balancers whose members are Pods up to date whenever Pods come and go, until ctx ends.
func (l *LoadBalancers) FollowPods(ctx context.Context, services corelisters.ServiceLister, nodes corelisters.NodeLister) {
	if !l.config.PodMembers {
		return
	}
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	changed := func(object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		if slice, ok := object.(*discovery.EndpointSlice); ok {
			queue.AddAfter(cache.NewObjectName(slice.Namespace, slice.Labels[discovery.LabelServiceName]), podsSettle)
		}
	}
	factory := informers.NewSharedInformerFactoryWithOptions(l.client, 0, informers.WithTransform(withoutManagedFields))
	endpoints := factory.Discovery().V1().EndpointSlices()
	_, err := endpoints.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: changed, DeleteFunc: changed,
		UpdateFunc: func(before, after any) {
			changed(before) // it may have been another Service's
			changed(after)
		},
	})
	if err != nil { // only of an informer that has been stopped already
		klog.FromContext(ctx).Error(err, "Pods are not followed")
		return
	}
	l.pods.slices = endpoints.Lister()
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), endpoints.Informer().HasSynced) {
		return
	}
	close(l.pods.ready)

	var worker sync.WaitGroup
	worker.Go(func() {
		for l.followOnesPods(ctx, queue, services, nodes) {
		}
	})
	<-ctx.Done()
	queue.ShutDown()
	worker.Wait()
}

// withoutManagedFields leaves out what nobody here reads and is half of many a slice.
func withoutManagedFields(object any) (any, error) {
	if slice, ok := object.(*discovery.EndpointSlice); ok {
		slice.ManagedFields = nil
	}
	return object, nil
}

func (l *LoadBalancers) followOnesPods(
	ctx context.Context, queue workqueue.TypedRateLimitingInterface[cache.ObjectName],
	services corelisters.ServiceLister, nodes corelisters.NodeLister,
) bool {
	name, end := queue.Get()
	if end {
		return false
	}
	defer queue.Done(name)
	if err := l.updatePods(ctx, name, services, nodes); err != nil {
		klog.FromContext(ctx).Error(err, "Not all Pods that are ready are members of their load balancer, or some that are not", "service", name)
		queue.AddRateLimited(name)
		return true
	}
	queue.Forget(name)
	return true
}

// updatePods does what the controller does when nodes come and go, whatever else of the Service waits to be corrected: the addresses
// of Pods that have gone are soon others'.
func (l *LoadBalancers) updatePods(
	ctx context.Context, name cache.ObjectName, services corelisters.ServiceLister, nodes corelisters.NodeLister,
) (err error) {
	service, err := services.Services(name.Namespace).Get(name.Name)
	if err != nil || service.DeletionTimestamp != nil || !l.byPods(service) {
		return nil //nolint:nilerr // a Service that is gone has no Pods, and while it goes its lock is held for long
	}
	defer recoverTo(&err, service)
	ctx, done, err := l.begin(ctx, service.UID)
	if err != nil {
		return err
	}
	defer done()
	// One that the controller has not come to, or has let go, has no load balancer of its own.
	one, known := l.tending.get(service.UID)
	service, wanted := one.service(service.UID, services)
	if !known || !wanted {
		return nil
	}
	if settings, _ := ParseSettings(service); settings.Shared != nil {
		return nil // the load balancer that was its own is the controller's to end
	}
	return l.update(ctx, l.identity(l.lastClusterName(), service), service, one.present(nodes))
}
