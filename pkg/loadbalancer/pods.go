package loadbalancer

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Services without node ports (spec.allocateLoadBalancerNodePorts is false) have their Pods as members, where Config.PodMembers allows
// that. The service controller does not look at Pods: what comes and goes among them is followed here.

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
func (l *LoadBalancers) problems(service *v1.Service, asked *settings.Settings) []settings.Problem {
	all := settings.Problems(service)
	if l.config.PodMembers && asked.Shared == nil {
		all = slices.DeleteFunc(all, func(p settings.Problem) bool { return p.Reason == settings.ReasonNodePortMissing })
	}
	return all
}

// byPods says whether Pods are members of any of the Service's backends.
func (l *LoadBalancers) byPods(service *v1.Service) bool {
	return l.config.PodMembers && slices.ContainsFunc(service.Spec.Ports, func(p v1.ServicePort) bool { return p.NodePort == 0 })
}

// readPods finds the Pods of the ports that have no node port.
func (w *work) readPods(ctx context.Context) (err error) {
	if w.byPods(w.service) && w.settings.Shared == nil {
		w.pods, err = w.podsOf(ctx, w.service, func(port v1.ServicePort) bool { return port.NodePort == 0 })
	}
	return err
}

// podsOf finds the Pods of some ports, by the ports' names. It waits until that can be known: to have none is an order to send nobody
// traffic.
func (l *LoadBalancers) podsOf(ctx context.Context, service *v1.Service, of func(v1.ServicePort) bool) (map[string][]plan.Target, error) {
	ctx, cancel := context.WithTimeout(ctx, l.pods.wait)
	defer cancel()
	select {
	case <-l.pods.ready:
	case <-ctx.Done():
		return nil, fmt.Errorf("which Pods are ready is not known yet, for which the CCM must be allowed to list and watch EndpointSlices: %w",
			ctx.Err())
	}
	all, err := l.pods.slices.EndpointSlices(service.Namespace).List(labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: service.Name}))
	if err != nil {
		return nil, err
	}
	limits, err := l.limitsOf(ctx, service.Namespace)
	if err != nil {
		return nil, err
	}
	pods := map[string][]plan.Target{}
	for _, port := range service.Spec.Ports {
		if of(port) {
			pods[port.Name] = podTargets(all, port.Name, func(slice *discovery.EndpointSlice, ip netip.Addr) bool {
				return limits == nil || slice.Labels[discovery.LabelManagedBy] == sliceController || limits.Reaches(ip.String())
			})
		}
	}
	return pods, nil
}

// sliceController writes the EndpointSlices of Services with a selector: addresses in them are of Pods that run. Others are written by
// people, or are copies of Endpoints that are.
const sliceController = "endpointslice-controller.k8s.io"

// podTargets are the ready endpoints of a port that may be members, ordered by name. An endpoint may be in two slices for a moment
// (discovery.k8s.io/v1, EndpointSlice).
func podTargets(all []*discovery.EndpointSlice, port string, may func(*discovery.EndpointSlice, netip.Addr) bool) []plan.Target {
	targets := []plan.Target{}
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
			if err != nil || !may(slice, ip) {
				continue
			}
			name := "ip-" + strings.ReplaceAll(ip.String(), ".", "-")
			if ref := endpoint.TargetRef; ref != nil && ref.Kind == "Pod" {
				name = plan.MemberName(ref.Name)
			}
			if !slices.ContainsFunc(targets, func(t plan.Target) bool { return t.Name == name }) {
				targets = append(targets, plan.Target{Name: name, IP: ip, Port: number})
			}
		}
	}
	slices.SortFunc(targets, func(a, b plan.Target) int { return strings.Compare(a.Name, b.Name) })
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
