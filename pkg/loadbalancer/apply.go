package loadbalancer

import (
	"cmp"
	"context"
	"encoding/json"
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
	if settings.Shared != nil {
		return l.updateSharing(ctx, identity, service, settings, problems, nodes)
	}
	l.tending.note(service, nodes)
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: settings}
	if err := w.readPods(ctx); err != nil {
		return err
	}
	var missed error
	if len(problems) == 0 {
		w.nodes, missed = l.withAddresses(ctx, Eligible(nodes, l.config.Scope, settings.Selector))
		if l.membership.has(service, w.members(w.nodes)) {
			return missed
		}
	}
	l.membership.forget(service)
	lb, err := l.find(ctx, service, identity)
	if err != nil || lb == nil || lb.State.Deleting() {
		return err
	}
	if len(problems) > 0 { // which nodes may join is not known for certain: those that leave do; Pods join, too
		w.settings = &Settings{Ports: settings.Ports, MaxMembers: max(len(nodes), cmp.Or(settings.MaxMembers, l.config.MaxMembers))}
		w.nodes, missed = l.withAddresses(ctx, onlyMembers(Eligible(nodes, l.config.Scope, settings.Selector), lb))
	}
	w.remark(lb, nil, "")
	full := DesiredState(w.input(lb.Networks))
	foreign := Foreign(full, lb)
	desired := full.without(foreign)
	limits, err := w.sessions(ctx, desired, lb)
	if err != nil {
		return err
	}
	changes := joinAside(desired, lb, BackendChanges(desired, lb, limits))
	if err := l.apply(ctx, service, lb, changes); err != nil {
		return err
	}
	l.joinings.see(service, lb, changes, l.now())
	if len(problems)+len(foreign) == 0 {
		l.membership.set(service, lb.ID, full.members())
	}
	return missed
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
