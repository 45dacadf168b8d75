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
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// annotated is the load balancer that the annotation names, or nil.
func (l *LoadBalancers) annotated(ctx context.Context, service *v1.Service) (*cloud.LoadBalancer, error) {
	id, err := uuid.Parse(service.Annotations[settings.AnnotationID])
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
func (l *LoadBalancers) referred(ctx context.Context, reference settings.Reference, known *cloud.LoadBalancer) (*cloud.LoadBalancer, error) {
	if known != nil && reference.Names(known) {
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
		filter = cloud.Labels{settings.LabelSharedGroup: reference.Group}
	}
	all, err := l.config.Cloud.LoadBalancers(ctx, filter)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(lb cloud.LoadBalancer) bool { return reference.Names(&lb) })
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
	if before != nil && reference.Names(before) {
		return before, nil
	}
	lb, err := w.referred(ctx, reference, nil)
	if err != nil {
		return nil, err
	}
	if lb == nil {
		if lb, err = w.missing(ctx, reference, before); err != nil {
			return nil, err
		}
	}
	refused := lb.State.Deleting() || madeForOne(lb, reference) != nil || settings.MayShare(w.access, lb, reference, w.service, w.settings) != nil
	if refused {
		return lb, nil // the caller tells of it
	}
	if problem, _, err := w.mayPresent(ctx, lb); problem != nil || err != nil {
		return lb, err // the caller tells of it
	}
	if before != nil {
		if len(w.awaits) > 0 { // it keeps what it has until it can have as much
			return nil, w.refuseSecrets(ctx, w.identity, w.service, w.settings, w.awaits)
		}
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
	shares := plan.ShareDiff(plan.SharedState(w.input(lb.Networks), lb), lb, plan.SessionLimits{})
	if shares.Claims > 0 {
		return nil
	}
	w.tellShared(lb, shares, nil)
	return w.nothing(shares)
}

// missing makes the load balancer that a reference means, or says that it has to be made. before is the one that the Service uses.
func (w *work) missing(ctx context.Context, reference settings.Reference, before *cloud.LoadBalancer) (*cloud.LoadBalancer, error) {
	if reference.Group != "" {
		return w.createForGroup(ctx, reference)
	}
	remedy, err := w.remedyOfMissing(ctx, reference, before)
	if err != nil {
		return nil, err
	}
	problem := settings.Problem{Reason: "NoSuchLoadBalancer", Message: fmt.Sprintf("annotation %s%s=%s: the account has no such load balancer: %s",
		settings.AnnotationPrefix, settings.SharedName, reference, remedy)}
	w.said.say(w.service, []settings.Problem{problem}, w.warn)
	return nil, because(problem.Reason, api.NewRetryError(problem.Message, sharedRetry))
}

// remedyOfMissing says what to do where there is no load balancer that a reference means. The one that the Service used may have been
// renamed, or replaced by another one of its name.
func (w *work) remedyOfMissing(ctx context.Context, reference settings.Reference, before *cloud.LoadBalancer) (string, error) {
	const entry = ", and in the entry of sharedLoadBalancers in the controller's configuration if that names the former"
	if before != nil && plan.HasParts(before, w.identity.Key()) {
		return fmt.Sprintf("the Service uses %s (%s), which stays as it is, and its members follow the nodes. If it was renamed, set the annotation to "+
			"%[2]s or %[1]s%[3]s; or give it back its name", before.ID, before.Name, entry), nil
	}
	if name := w.service.Annotations[settings.AnnotationName]; before == nil && reference.ID != "" && name != "" {
		lb, err := w.referred(ctx, settings.Reference{Name: name}, nil)
		if err != nil {
			return "", err
		}
		// The Service's user writes the name.
		known := w.config.Tenants == nil || lb != nil && settings.MayShare(w.access, lb, settings.Reference{Name: name}, w.service, w.settings) == nil
		if lb != nil && known {
			return fmt.Sprintf("there is another one with its name, %s, whose UUID is %s. If that replaced it, set the annotation to %[1]s or %[2]s%s",
				lb.Name, lb.ID, entry), nil
		}
	}
	return "make it, or name one that there is, or set create/NAME to have one made", nil
}

// leave takes the Service off what it used before it joins another: a shared load balancer, or one of its own.
func (w *work) leave(ctx context.Context, before, joined *cloud.LoadBalancer) error {
	if before != nil && plan.HasParts(before, w.identity.Key()) {
		if err := w.release(ctx, w.service, w.identity, before); err != nil {
			return err
		}
	}
	own := w.service
	if before != nil && !w.identity.OwnsNamed(before) {
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
func (w *work) createForGroup(ctx context.Context, reference settings.Reference) (*cloud.LoadBalancer, error) {
	if problem := settings.MayShare(w.access, &cloud.LoadBalancer{Name: reference.Group}, reference, w.service, w.settings); problem != nil {
		return nil, w.refuse(w.service, []settings.Problem{*problem})
	}
	if problem, _, err := w.mayPresent(ctx, &cloud.LoadBalancer{Name: reference.Group}); problem != nil || err != nil {
		if err == nil {
			err = w.refuse(w.service, []settings.Problem{*problem})
		}
		return nil, err
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
	labels := cloud.Labels{settings.LabelSharedGroup: reference.Group, settings.LabelClusterName: w.identity.ClusterName}
	if w.identity.Namespace != "" {
		labels[settings.LabelNamespace] = w.identity.Namespace
		if w.identity.ClusterUID != "" { // or it counts for the namespace of the same name in a cluster of the same name
			labels[settings.LabelClusterUID] = w.identity.ClusterUID
		}
	}
	lb, err := w.withRoom(ctx, func() (*cloud.LoadBalancer, error) {
		return w.config.Cloud.CreateLoadBalancer(ctx, cloud.LoadBalancer{
			Name: reference.Group, Zone: place.Zone, Plan: plan, Networks: place.Networks, ConfiguredStatus: "started",
			Labels: labels, Frontends: []cloud.Frontend{}, Backends: []cloud.Backend{},
		})
	})
	if errors.Is(err, cloud.ErrAlreadyExists) || errors.Is(err, cloud.ErrBusy) {
		if lb, err := w.referred(ctx, reference, nil); lb != nil || err != nil {
			return lb, err
		}
		return nil, fmt.Errorf("annotation %s%s=%s: a load balancer of that name exists, and was not made for a group: choose another name, "+
			"or set the name alone to use that one: %w", settings.AnnotationPrefix, settings.SharedName, reference, err)
	}
	if err != nil {
		return nil, err
	}
	klog.FromContext(ctx).Info("Made a load balancer for a group", "service", klog.KObj(w.service), "loadBalancer", lb.ID, "name", lb.Name)
	w.tell(w.service, "NewLoadBalancer", "Made load balancer %s (%s) in %s, to be shared", lb.ID, lb.Name, lb.Zone)
	return lb, nil
}
