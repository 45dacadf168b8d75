package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// find returns the Service's load balancer, or nil. With the annotation it takes one call; without, or with a wrong one,
// the labels tell, also of a load balancer whose making was never answered.
func (l *LoadBalancers) find(ctx context.Context, service *v1.Service, identity plan.Identity) (*cloud.LoadBalancer, error) {
	lb, err := l.findByAnnotation(ctx, service, identity)
	if err != nil || lb != nil {
		return lb, err
	}
	all, err := l.findByLabels(ctx, service, identity)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// findByAnnotation follows the annotation, and believes it only if the load balancer's labels agree.
func (l *LoadBalancers) findByAnnotation(
	ctx context.Context, service *v1.Service, identity plan.Identity,
) (*cloud.LoadBalancer, error) {
	parsed, err := uuid.Parse(service.Annotations[settings.AnnotationID])
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
	if !identity.OwnsNamed(lb) && plan.HasParts(lb, identity.Key()) {
		return nil, &sharesError{lb}
	}
	foreign := func(why, remedy string) {
		if isLeaving(ctx) {
			l.warn(service, "LeftLoadBalancer", "Left load balancer %s (%s), which annotation %s names, in the account: %s; delete it there if it is to go", id,
				lb.Name, settings.AnnotationID, why)
			return
		}
		l.warn(service, "ForeignLoadBalancer", "Load balancer %s (%s), which annotation %s names, is not changed: %s; %s", id, lb.Name,
			settings.AnnotationID, why, remedy)
	}
	switch {
	case identity.OtherCluster(lb.Labels):
		foreign("it belongs to "+identity.WhichOther(lb.Labels), "remove the annotation")
		return nil, nil
	case !identity.OwnsNamed(lb):
		if isLeaving(ctx) || !strings.EqualFold(service.Annotations[settings.AnnotationPrefix+settings.AdoptName], id) { // else adopt tells
			foreign("its labels do not say that it is this Service's", fmt.Sprintf("if they were taken off, by Terraform say, give it back the label %s=%s; %s; or "+
				"remove the annotation", settings.LabelServiceUID, identity.ServiceUID, adoptionRemedy(id)))
		}
		return nil, nil
	}
	rival, err := l.namedByAnother(ctx, identity, service, lb)
	if err != nil {
		return nil, err
	}
	if rival != "" {
		foreign(fmt.Sprintf("Service %s names it, too, and its labels do not tell the two apart", rival), "remove the annotation from one of them")
		return nil, nil
	}
	return lb, nil
}

type leavingKey struct{}

// leaving marks what is done as the end of a Service's load balancer: events about what is not the Service's say that it is left.
func leaving(ctx context.Context) context.Context { return context.WithValue(ctx, leavingKey{}, true) }

func isLeaving(ctx context.Context) bool { return ctx.Value(leavingKey{}) != nil }

// namedByAnother returns the Service that a load balancer without a Service's UID may belong to instead: one for which UpCloud's own CCM
// makes the same name, and whose annotation names the load balancer. It is empty if there is none. Where no annotation names it, any other
// Service of that name will do: a-b/c and a/b-c have the same, whole as it is.
func (l *LoadBalancers) namedByAnother(ctx context.Context, identity plan.Identity, service *v1.Service, lb *cloud.LoadBalancer) (string, error) {
	if _, told := lb.Labels[settings.LabelServiceUID]; told || l.client == nil {
		return "", nil
	}
	all, err := l.client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("cannot tell whether another Service has load balancer %s (%s): %w", lb.ID, lb.Name, err)
	}
	for i := range all.Items {
		other := &all.Items[i]
		if other.Namespace == service.Namespace && other.Name == service.Name {
			continue
		}
		named := strings.EqualFold(other.Annotations[settings.AnnotationID], lb.ID)
		unnamed := !strings.EqualFold(service.Annotations[settings.AnnotationID], lb.ID) && other.Spec.Type == v1.ServiceTypeLoadBalancer
		if !named && !unnamed {
			continue
		}
		if plan.NewIdentity(identity.ClusterID, identity.ClusterName, other).InCluster(identity.ClusterUID).IsGenerated(lb) {
			return other.Namespace + "/" + other.Name, nil
		}
	}
	return "", nil
}

// claim labels the load balancer that the Service's annotation names with the Service's UID, if UpCloud's own CCM made it. It comes before
// anything is refused: until then only a name tells whose it is, and other Services may have the same.
func (l *LoadBalancers) claim(ctx context.Context, identity plan.Identity, service *v1.Service) error {
	id := service.Annotations[settings.AnnotationID]
	if id == "" || l.records.get(service.UID).labelled == id {
		return nil
	}
	lb, err := l.findByAnnotation(ctx, service, identity)
	var shares *sharesError
	if errors.As(err, &shares) {
		return nil
	}
	if err != nil || lb == nil || lb.State.Deleting() {
		return err
	}
	if _, told := lb.Labels[settings.LabelServiceUID]; !told {
		klog.FromContext(ctx).Info("Labelling a load balancer of UpCloud's own CCM", "service", klog.KObj(service), "loadBalancer", lb.ID)
		if err := l.config.Cloud.CreateLoadBalancerLabel(ctx, lb.ID, settings.LabelServiceUID, identity.ServiceUID); err != nil {
			return err
		}
	}
	l.records.change(service.UID, func(r *serviceRecord) { r.labelled = id })
	return nil
}

// findByLabels returns all load balancers that are the Service's, the oldest first. There is one, unless somebody copied
// labels.
func (l *LoadBalancers) findByLabels(ctx context.Context, service *v1.Service, identity plan.Identity) ([]cloud.LoadBalancer, error) {
	var owned []cloud.LoadBalancer
	filters := []cloud.Labels{{settings.LabelServiceUID: identity.ServiceUID}}
	if identity.ClusterID != "" {
		// Made by UpCloud's own CCM. Without a cluster's ID the labels say no more than the names, and as every cluster is
		// called kubernetes and has a default/web, those may be another cluster's: then the annotation must name it too.
		filters = append(filters, cloud.Labels{settings.LabelGeneratedName: identity.LegacyName})
	}
	for _, filter := range filters {
		found, err := l.config.Cloud.LoadBalancers(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, lb := range found {
			if !identity.Owns(&lb) {
				continue
			}
			rival, err := l.namedByAnother(ctx, identity, service, &lb)
			if err != nil {
				return nil, err
			}
			if rival == "" {
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
