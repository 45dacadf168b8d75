package loadbalancer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// With externalTrafficPolicy Local only the nodes that have a ready endpoint serve. Where there are more nodes than members, those are chosen
// first, and where there is no such node, the condition says so. Which they are is not followed before there is such a Service.

// reasonNoLocalEndpoints is the reason of a Service none of whose members can serve, reasonEndpointsUnknown of one of which that is not known.
const (
	reasonNoLocalEndpoints = "NoLocalEndpoints"
	reasonEndpointsUnknown = "EndpointsUnknown"
)

// localReader reads which nodes have ready endpoints.
type localReader struct {
	once   sync.Once
	wanted chan struct{} // closed when the first Service needs it
	ready  chan struct{} // closed once slices can be read
	wait   time.Duration // for that; only the first Services wait
	late   atomic.Bool   // a wait was in vain
	slices discoverylisters.EndpointSliceLister
}

func newLocalReader() *localReader {
	return &localReader{wanted: make(chan struct{}), ready: make(chan struct{}), wait: podsWait}
}

// FollowEndpoints brings the members and conditions of Services with externalTrafficPolicy Local up to date whose endpoints come, move and
// go, until ctx ends. It watches nothing before there is such a Service.
func (l *LoadBalancers) FollowEndpoints(ctx context.Context, services corelisters.ServiceLister, nodes corelisters.NodeLister) {
	select {
	case <-l.local.wanted:
	case <-ctx.Done():
		return
	}
	factory := informers.NewSharedInformerFactoryWithOptions(l.client, 0, informers.WithTransform(nodesOnly))
	endpoints := factory.Discovery().V1().EndpointSlices()
	l.local.slices = endpoints.Lister()
	follower{
		factory: factory, informer: endpoints.Informer(), on: onSlices, synced: func() { close(l.local.ready) },
		do: func(ctx context.Context, name cache.ObjectName) error {
			return l.updateLocal(ctx, name, services, nodes)
		},
		failed: "Nodes with ready endpoints of a Service are not members of its load balancer",
	}.run(ctx)
}

// nodesOnly keeps of an EndpointSlice whose it is, and which nodes have ready endpoints.
func nodesOnly(object any) (any, error) {
	slice, ok := object.(*discovery.EndpointSlice)
	if !ok {
		return object, nil
	}
	kept := &discovery.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: slice.Namespace, Name: slice.Name, UID: slice.UID, ResourceVersion: slice.ResourceVersion,
			Labels: map[string]string{discovery.LabelServiceName: slice.Labels[discovery.LabelServiceName]},
		},
		AddressType: slice.AddressType,
	}
	seen := map[string]bool{}
	for _, endpoint := range slice.Endpoints {
		ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
		if ready && endpoint.NodeName != nil && !seen[*endpoint.NodeName] {
			seen[*endpoint.NodeName] = true
			kept.Endpoints = append(kept.Endpoints, discovery.Endpoint{NodeName: endpoint.NodeName})
		}
	}
	return kept, nil
}

// isLocal says whether only nodes with endpoints serve. Pods that are members of all ports serve wherever they are.
func (w *work) isLocal() bool {
	return w.service.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal &&
		slices.ContainsFunc(w.service.Spec.Ports, func(p v1.ServicePort) bool { return p.NodePort > 0 })
}

// isCrowded says whether nodes have to be chosen by their endpoints: there are more nodes than members, and only those nodes serve.
func (w *work) isCrowded() bool {
	if !w.isLocal() {
		return false
	}
	most := w.settings.MaxMembers
	if most == 0 {
		most = w.config.MaxMembers
	}
	targets, _ := plan.Targets(w.nodes)
	return len(targets) > most
}

// readServing finds the nodes with ready endpoints, where that matters. If it cannot be known, nodes are chosen without. Only who has to
// choose waits for it: the condition follows as soon as it is known.
func (w *work) readServing(ctx context.Context) {
	w.serving = nil
	if !w.isLocal() {
		return
	}
	l := w.local
	l.once.Do(func() { close(l.wanted) })
	if w.isCrowded() && !l.late.Load() {
		ctx, cancel := context.WithTimeout(ctx, l.wait)
		defer cancel()
		select {
		case <-l.ready:
		case <-ctx.Done():
			l.late.Store(true)
		}
	}
	select {
	case <-l.ready:
	default:
		return
	}
	all, err := l.slices.EndpointSlices(w.service.Namespace).List(labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: w.service.Name}))
	if err != nil {
		return
	}
	w.serving = map[string]bool{}
	for _, slice := range all {
		for _, endpoint := range slice.Endpoints {
			w.serving[plan.MemberName(*endpoint.NodeName)] = true
		}
	}
}

// localRemarks tell that no member can serve, or that this is not known.
func (w *work) localRemarks() []settings.Problem {
	switch {
	case !w.isLocal(), len(w.nodes) == 0, w.serving == nil && !w.isCrowded():
		return nil
	case w.serving == nil:
		return []settings.Problem{{Reason: reasonEndpointsUnknown, Message: "There are more nodes than members, and which of them have ready endpoints is not known, so that " +
			"with externalTrafficPolicy Local all members may be without: allow the CCM to list and watch EndpointSlices, or raise annotation " +
			settings.AnnotationPrefix + "max-members"}}
	case w.someServe():
		return nil
	}
	return []settings.Problem{{Reason: reasonNoLocalEndpoints, Message: fmt.Sprintf("None of the %d nodes that may be members has a ready endpoint of the Service, and with "+
		"externalTrafficPolicy Local only such nodes serve: see that its Pods are ready, and on nodes that the Service selects", len(w.nodes))}}
}

func (w *work) someServe() bool {
	targets, _ := plan.Targets(w.nodes)
	return slices.ContainsFunc(targets, func(t plan.Target) bool { return w.serving[t.Name] })
}

// updateLocal does what the controller does when nodes come and go.
func (l *LoadBalancers) updateLocal(
	ctx context.Context, name cache.ObjectName, services corelisters.ServiceLister, nodes corelisters.NodeLister,
) error {
	service, err := services.Services(name.Namespace).Get(name.Name)
	if err != nil || service.Spec.ExternalTrafficPolicy != v1.ServiceExternalTrafficPolicyLocal {
		return nil //nolint:nilerr // a Service that is gone has no endpoints
	}
	return l.whileKnown(ctx, service, services, nodes, func(ctx context.Context, current *v1.Service, present []*v1.Node) error {
		identity := l.identity(ctx, l.lastClusterName(), current)
		if err := l.update(ctx, identity, current, present); err != nil {
			return err
		}
		return l.reportServing(ctx, identity, current, present)
	})
}

// reportServing brings the Service's condition up to date, where it is about endpoints, or has to be from now on.
func (l *LoadBalancers) reportServing(ctx context.Context, identity plan.Identity, service *v1.Service, nodes []*v1.Node) error {
	asked, problems := settings.Parse(service)
	if l.refused(ctx, identity, service, asked, problems) {
		return nil // the controller reports it
	}
	reported := false
	for _, remark := range l.said.last(service) {
		reported = reported || remark.Reason == reasonNoLocalEndpoints || remark.Reason == reasonEndpointsUnknown
	}
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: asked}
	if _, err := w.readNodes(ctx, nodes, asked.Selector); err != nil {
		return err
	}
	w.readServing(ctx)
	if (len(w.localRemarks()) > 0) == reported {
		return nil
	}
	_, err := l.ensure(ctx, identity, service, nodes)
	l.reportOutcome(ctx, service, err)
	if isOnItsWay(err) {
		return nil
	}
	return err
}
