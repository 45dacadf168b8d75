package loadbalancer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// apply carries out changes one after the other, and stops at the first that fails: the next reconcile looks anew and goes
// on from there.
func (l *LoadBalancers) apply(ctx context.Context, service *v1.Service, lb *cloud.LoadBalancer, changes []Change) error {
	logger := klog.FromContext(ctx)
	for _, change := range changes {
		logger.Info("Changing a load balancer", "service", klog.KObj(service), "loadBalancer", lb.ID, "change", change.String())
		if err := change.do(ctx, l.config.Cloud, lb.ID); err != nil {
			return fmt.Errorf("load balancer %s: %s: %w", lb.ID, change, err)
		}
		noteDone(ctx, change)
	}
	return nil
}

// update changes the members of the Service's backends. A Service without a load balancer gets it elsewhere, in ensure. One whose
// members are to stay as they were brought to be last takes no call.
func (l *LoadBalancers) update(ctx context.Context, identity Identity, service *v1.Service, nodes []*v1.Node) error {
	settings, problems := ParseSettings(service)
	if settings.Shared != nil && !l.byPods(service) {
		return l.updateSharing(ctx, identity, service, settings, len(problems) == 0, nodes)
	}
	l.tending.note(service, nodes)
	if settings.Shared != nil || len(problems) > 0 {
		return l.updateRefused(ctx, identity, service, settings, nodes)
	}
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: settings}
	if err := w.readPods(ctx); err != nil {
		return err
	}
	var missed error
	w.nodes, missed = l.withAddresses(ctx, Eligible(nodes, l.config.Scope, settings.Selector))
	if l.membership.has(service, w.members(w.nodes)) {
		return missed
	}
	l.membership.forget(service)
	lb, err := l.find(ctx, service, identity)
	var shares *sharesError
	if errors.As(err, &shares) { // which it has not left yet: its Secret is missing, say
		return l.updateSharing(ctx, identity, service, settings, false, nodes)
	}
	if err != nil || lb == nil || lb.State.Deleting() {
		return err
	}
	full := DesiredState(w.input(lb.Networks))
	foreign := Foreign(full, lb)
	if err := w.updateMembers(ctx, lb, full.without(foreign)); err != nil {
		return err
	}
	if len(foreign) == 0 {
		l.membership.set(service, lb.ID, full.members())
	}
	return missed
}

// updateRefused is update for a Service with a mistake, or one that cannot yet have what it wants to share, whose load balancer stands
// as it was: which nodes may join is not known for certain. Those that leave do, and Pods join, too. Pods cannot be members of a shared
// load balancer, so that to ask for one is such a mistake.
func (l *LoadBalancers) updateRefused(
	ctx context.Context, identity Identity, service *v1.Service, settings *Settings, nodes []*v1.Node,
) error {
	l.membership.forget(service)
	lb, err := l.find(ctx, service, identity)
	var shares *sharesError
	if errors.As(err, &shares) { // since before its Pods were to be members, or it was to have one of its own
		return l.updateSharing(ctx, identity, service, settings, false, nodes)
	}
	if err != nil || lb == nil || lb.State.Deleting() {
		return err
	}
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: &Settings{
		Ports: settings.Ports, MaxMembers: max(len(nodes), cmp.Or(settings.MaxMembers, l.config.MaxMembers)),
	}}
	isPods := podBackends(lb)
	l.tending.setPods(service.UID, slices.ContainsFunc(lb.Backends, func(b cloud.Backend) bool { return isPods(b.Name) }))
	asItStood := func(port v1.ServicePort) bool { return port.NodePort == 0 || isPods(portName(port)) }
	if l.config.PodMembers && slices.ContainsFunc(service.Spec.Ports, asItStood) {
		if w.pods, err = l.podsOf(ctx, service, asItStood); err != nil {
			return err
		}
	}
	var missed error
	w.nodes, missed = l.withAddresses(ctx, onlyMembers(Eligible(nodes, l.config.Scope, settings.Selector), lb))
	full := DesiredState(w.input(lb.Networks))
	full.defaultPlan = lb.Plan // to which no change is due
	if err := w.updateMembers(ctx, lb, full.without(Foreign(full, lb))); err != nil {
		return err
	}
	return missed
}

// updateMembers brings the members of those of the desired backends up to date that there are.
func (w *work) updateMembers(ctx context.Context, lb *cloud.LoadBalancer, desired Desired) error {
	w.remark(lb, nil, "")
	limits, err := w.sessions(ctx, desired, lb)
	if err != nil {
		return err
	}
	changes := joinAside(desired, lb, BackendChanges(desired, lb, limits))
	if err := w.apply(ctx, w.service, lb, changes); err != nil {
		return err
	}
	w.joinings.see(w.service, lb, changes, w.now())
	return nil
}

// onlyMembers leaves out the nodes that are no members.
func onlyMembers(nodes []*v1.Node, lb *cloud.LoadBalancer) []*v1.Node {
	member := map[string]bool{}
	for _, backend := range lb.Backends {
		for _, one := range backend.Members {
			member[one.Name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(node *v1.Node) bool { return !member[memberName(node.Name)] })
}

// annotate writes annotations on the Service, nil removing one, if that changes any. They are a convenience: the labels
// tell the same, so that a failure is logged and no more.
func (l *LoadBalancers) annotate(ctx context.Context, service *v1.Service, annotations map[string]any) {
	changed := false
	for key, value := range annotations {
		have, ok := service.Annotations[key]
		changed = changed || (value == nil && ok) || (value != nil && (!ok || have != value))
	}
	if !changed || l.client == nil {
		return
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err == nil {
		_, err = l.client.CoreV1().Services(service.Namespace).
			Patch(ctx, service.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		klog.FromContext(ctx).Error(err, "The annotations of a load balancer cannot be written", "service", klog.KObj(service))
	}
}
