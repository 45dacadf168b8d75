package loadbalancer

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"
	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// find returns the Service's load balancer, or nil. With the annotation it takes one call; without, or with a wrong one,
// the labels tell, also of a load balancer whose making was never answered.
func (l *LoadBalancers) find(ctx context.Context, service *v1.Service, identity Identity) (*cloud.LoadBalancer, error) {
	lb, err := l.findByAnnotation(ctx, service, identity)
	if err != nil || lb != nil {
		return lb, err
	}
	all, err := l.findByLabels(ctx, identity)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// findByAnnotation follows the annotation, and believes it only if the load balancer's labels agree.
func (l *LoadBalancers) findByAnnotation(
	ctx context.Context, service *v1.Service, identity Identity,
) (*cloud.LoadBalancer, error) {
	parsed, err := uuid.Parse(service.Annotations[AnnotationID])
	if err != nil {
		return nil, nil //nolint:nilerr // no annotation, or what cannot be an ID, names nothing
	}
	id := parsed.String() // whatever form it has in the annotation
	lb, err := l.config.Cloud.LoadBalancer(ctx, id)
	if errors.Is(err, cloud.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !identity.Owns(lb) && hasParts(lb, identity.serviceKey()) {
		return nil, &sharesError{lb}
	}
	if !identity.Owns(lb) {
		l.warn(service, "ForeignLoadBalancer", "Annotation %s names load balancer %s (%s), whose labels do not say that it is this "+
			"Service's: it is not touched", AnnotationID, id, lb.Name)
		return nil, nil
	}
	return lb, nil
}

// findByLabels returns all load balancers that are the Service's, the oldest first. There is one, unless somebody copied
// labels.
func (l *LoadBalancers) findByLabels(ctx context.Context, identity Identity) ([]cloud.LoadBalancer, error) {
	var owned []cloud.LoadBalancer
	filters := []cloud.Labels{{LabelServiceUID: identity.ServiceUID}}
	if identity.ClusterID != "" {
		// Made by UpCloud's own CCM. Without a cluster's ID the labels say no more than the names, and as every cluster is
		// called kubernetes and has a default/web, those may be another cluster's: then the annotation must name it too.
		filters = append(filters, cloud.Labels{LabelGeneratedName: identity.LegacyName})
	}
	for _, filter := range filters {
		found, err := l.config.Cloud.LoadBalancers(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, lb := range found {
			if identity.Owns(&lb) {
				owned = append(owned, lb)
			}
		}
		if len(owned) > 0 {
			break
		}
	}
	slices.SortFunc(owned, func(a, b cloud.LoadBalancer) int { return a.Created.Compare(b.Created) })
	if len(owned) > 1 {
		klog.FromContext(ctx).Info("Several load balancers claim to be one Service's: the oldest is used",
			"serviceUID", identity.ServiceUID, "loadBalancer", owned[0].ID, "count", len(owned))
	}
	return owned, nil
}
