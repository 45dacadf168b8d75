package loadbalancer

import (
	"context"
	"encoding/json"
	"fmt"

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
		if err := l.applyOne(ctx, lb.ID, change); err != nil {
			return fmt.Errorf("load balancer %s: %s: %w", lb.ID, change, err)
		}
	}
	return nil
}

func (l *LoadBalancers) applyOne(ctx context.Context, id string, change Change) error {
	api := l.config.Cloud
	switch {
	case change.CreateLabel != nil:
		return api.CreateLoadBalancerLabel(ctx, id, change.Name, *change.CreateLabel)
	case change.ModifyLabel != nil:
		return api.ModifyLoadBalancerLabel(ctx, id, change.Name, *change.ModifyLabel)
	case change.CreateFrontend != nil:
		return api.CreateFrontend(ctx, id, *change.CreateFrontend)
	case change.ModifyFrontend != nil:
		return api.ModifyFrontend(ctx, id, change.Name, *change.ModifyFrontend)
	case change.DeleteFrontend:
		return api.DeleteFrontend(ctx, id, change.Name)
	case change.CreateBackend != nil:
		return api.CreateBackend(ctx, id, *change.CreateBackend)
	case change.ModifyBackend != nil:
		return api.ModifyBackend(ctx, id, change.Name, *change.ModifyBackend)
	case change.DeleteBackend:
		return api.DeleteBackend(ctx, id, change.Name)
	}
	return nil
}

// update changes the members of the Service's backends. A Service without a load balancer gets it elsewhere, in ensure.
func (l *LoadBalancers) update(ctx context.Context, identity Identity, service *v1.Service, nodes []*v1.Node) error {
	lb, err := l.find(ctx, service, identity)
	if err != nil || lb == nil || lb.State.Deleting() {
		return err
	}
	nodes, missed := l.withAddresses(ctx, nodes)
	targets, _ := Targets(nodes)
	desired := DesiredState(identity, service, targets, l.config.MaxMembers)
	desired = desired.without(Foreign(desired, lb))
	sessions, err := l.sessions(ctx, desired, lb)
	if err != nil {
		return err
	}
	if err := l.apply(ctx, service, lb, BackendChanges(desired, lb, sessions)); err != nil {
		return err
	}
	return missed
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
