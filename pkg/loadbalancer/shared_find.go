package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// LabelSharedGroup is on load balancers made for a group: its name. It tells them from what a person called the same.
const LabelSharedGroup = "ccm_shared_group"

// names says whether a load balancer is the one that a reference means.
func (r Reference) names(lb *cloud.LoadBalancer) bool {
	switch {
	case r.Group != "":
		return lb.Name == r.Group && lb.Labels[LabelSharedGroup] == r.Group
	case r.ID != "":
		return lb.ID == r.ID
	}
	return lb.Name == r.Name
}

// annotated is the load balancer that the annotation names, or nil.
func (l *LoadBalancers) annotated(ctx context.Context, service *v1.Service) (*cloud.LoadBalancer, error) {
	id, err := uuid.Parse(service.Annotations[AnnotationID])
	if err != nil {
		return nil, nil //nolint:nilerr // no annotation, or what cannot be an ID, names nothing
	}
	lb, err := l.config.Cloud.LoadBalancer(ctx, id.String())
	if errors.Is(err, cloud.ErrNotFound) {
		return nil, nil
	}
	return lb, err
}

// referred finds the load balancer that a reference means, or nil. known is one that is likely it.
func (l *LoadBalancers) referred(ctx context.Context, reference Reference, known *cloud.LoadBalancer) (*cloud.LoadBalancer, error) {
	if known != nil && reference.names(known) {
		return known, nil
	}
	if reference.ID != "" {
		lb, err := l.config.Cloud.LoadBalancer(ctx, reference.ID)
		if errors.Is(err, cloud.ErrNotFound) {
			return nil, nil
		}
		return lb, err
	}
	var filter cloud.Labels
	if reference.Group != "" {
		filter = cloud.Labels{LabelSharedGroup: reference.Group}
	}
	all, err := l.config.Cloud.LoadBalancers(ctx, filter)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(lb cloud.LoadBalancer) bool { return reference.names(&lb) })
	if i < 0 {
		return nil, nil
	}
	return &all[i], nil
}

// sharedRetry is when to look again for what somebody else has to make.
const sharedRetry = time.Minute

// join returns the load balancer that the Service is to use. Whatever the Service had elsewhere goes first: two places to clean up
// cannot be remembered. But it stays until it is known that there is a load balancer to join, and that the Service may: a slip in the
// annotation must not cost the Service what it has.
func (w *work) join(ctx context.Context) (*cloud.LoadBalancer, error) {
	reference := *w.settings.Shared
	before, err := w.annotated(ctx, w.service)
	if err != nil {
		return nil, err
	}
	if before != nil && reference.names(before) {
		return before, nil
	}
	lb, err := w.referred(ctx, reference, nil)
	if err != nil {
		return nil, err
	}
	if lb == nil {
		if lb, err = w.missing(ctx, reference); err != nil {
			return nil, err
		}
	}
	if refused := lb.State.Deleting() || mayShare(w.config.Shared, lb, reference, w.service, w.settings) != nil; refused {
		return lb, nil // the caller tells of it
	}
	if before != nil {
		if err := w.mayExchange(ctx, lb); err != nil {
			return nil, err
		}
	}
	return lb, w.leave(ctx, before, lb)
}

// mayExchange returns an error if the Service would get nothing of a load balancer now. It changes nothing of the Service's.
func (w *work) mayExchange(ctx context.Context, lb *cloud.LoadBalancer) error {
	if err := w.notDoomed(ctx, lb); err != nil {
		return err
	}
	if err := w.checkBundles(ctx, w.service, w.settings, lb); err != nil {
		return err
	}
	nodes, _, err := w.reachable(ctx, lb, w.nodes)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return outOfReach(lb)
	}
	plan := shareDiff(sharedState(w.input(lb.Networks), lb), lb, sessionLimits{})
	if plan.claims > 0 {
		return nil
	}
	w.tellShared(lb, plan, nil)
	return w.nothing(plan)
}

// missing makes the load balancer that a reference means, or says that somebody has to.
func (w *work) missing(ctx context.Context, reference Reference) (*cloud.LoadBalancer, error) {
	if reference.Group != "" {
		return w.createForGroup(ctx, reference)
	}
	problem := Problem{"NoSuchLoadBalancer", fmt.Sprintf("annotation %s%s=%s: the account has no such load balancer: make it, or name one that "+
		"there is, or set create/NAME to have one made", AnnotationPrefix, sharedName, reference)}
	w.said.say(w.service, []Problem{problem}, w.warn)
	return nil, because(problem.Reason, api.NewRetryError(problem.Message, sharedRetry))
}

// leave takes the Service off what it used before it joins another: a shared load balancer, or one of its own.
func (w *work) leave(ctx context.Context, before, joined *cloud.LoadBalancer) error {
	if before != nil && hasParts(before, w.identity.serviceKey()) {
		if err := w.release(ctx, w.service, w.identity, before); err != nil {
			return err
		}
	}
	own := w.service
	if before != nil && !w.identity.Owns(before) {
		own = withoutID(own)
	}
	lb, err := w.find(ctx, own, w.identity)
	if err != nil || lb == nil || lb.ID == joined.ID {
		return err
	}
	return w.deleteOwn(ctx, w.identity, own, w.settings)
}

// createForGroup makes a load balancer without any ports. Its name is unique in the account: of several clusters that do so at one
// time, the others find that it exists.
func (w *work) createForGroup(ctx context.Context, reference Reference) (*cloud.LoadBalancer, error) {
	if problem := mayShare(w.config.Shared, &cloud.LoadBalancer{Name: reference.Group}, reference, w.service, w.settings); problem != nil {
		return nil, w.refuse(w.service, []Problem{*problem})
	}
	place, err := w.place(ctx, w.settings, w.nodes)
	if err != nil {
		return nil, err
	}
	plan := w.settings.Load.Plan
	if plan == "" {
		plan = w.config.Plan
	}
	if _, err := w.plan(ctx, plan); err != nil {
		return nil, err
	}
	lb, err := w.config.Cloud.CreateLoadBalancer(ctx, cloud.LoadBalancer{
		Name: reference.Group, Zone: place.Zone, Plan: plan, Networks: place.Networks, ConfiguredStatus: "started",
		Labels:    cloud.Labels{LabelSharedGroup: reference.Group, LabelClusterName: w.identity.ClusterName},
		Frontends: []cloud.Frontend{}, Backends: []cloud.Backend{},
	})
	if errors.Is(err, cloud.ErrAlreadyExists) || errors.Is(err, cloud.ErrBusy) {
		if lb, err := w.referred(ctx, reference, nil); lb != nil || err != nil {
			return lb, err
		}
		return nil, fmt.Errorf("annotation %s%s=%s: a load balancer of that name exists, and was not made for a group: choose another name, "+
			"or set the name alone to use that one: %w", AnnotationPrefix, sharedName, reference, err)
	}
	if err != nil {
		return nil, err
	}
	klog.FromContext(ctx).Info("Made a load balancer for a group", "service", klog.KObj(w.service), "loadBalancer", lb.ID, "name", lb.Name)
	w.tell(w.service, "NewLoadBalancer", "Made load balancer %s (%s) in %s, to be shared", lb.ID, lb.Name, lb.Zone)
	return lb, nil
}
