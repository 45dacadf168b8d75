package loadbalancer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Labels can be copied: by Terraform, by a script, in the control panel. Then several load balancers say that they are one Service's. The
// Service goes with the one that is proven to be its own besides, and the others stay.

// toDelete returns the load balancer that goes with the Service, nil if there is none any more, and those that only have its labels.
func (l *LoadBalancers) toDelete(
	ctx context.Context, service *v1.Service, identity plan.Identity, asked *settings.Settings,
) (lb *cloud.LoadBalancer, twins []cloud.LoadBalancer, err error) {
	named, err := l.findAfterLeaving(ctx, service, identity)
	if err != nil || named == nil {
		return nil, nil, err
	}
	all, err := l.findByLabels(ctx, service, identity)
	if err != nil {
		return nil, nil, err
	}
	if !slices.ContainsFunc(all, func(one cloud.LoadBalancer) bool { return one.ID == named.ID }) {
		all = append(all, *named) // that of a cut name, which its annotation proves, or one that the list lacks
	}
	id := ""
	if parsed, err := uuid.Parse(service.Annotations[settings.AnnotationID]); err == nil {
		id = parsed.String()
	}
	own := slices.IndexFunc(all, func(one cloud.LoadBalancer) bool { return one.ID == id })
	if own < 0 && len(all) == 1 {
		gone, err := l.isGone(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		if !gone {
			own = 0
		}
	}
	if own < 0 {
		own = slices.IndexFunc(all, func(one cloud.LoadBalancer) bool { return isNamedFor(&one, identity, asked) })
	}
	if own < 0 {
		return nil, all, nil
	}
	return &all[own], slices.Delete(slices.Clone(all), own, own+1), nil
}

// isGone says whether the annotation names a load balancer that is gone: it may be the one that went with the Service before.
func (l *LoadBalancers) isGone(ctx context.Context, id string) (bool, error) {
	if id == "" {
		return false, nil
	}
	_, err := l.config.Cloud.LoadBalancer(ctx, id)
	if errors.Is(err, cloud.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// isNamedFor says whether a load balancer has the name that the Service's gets. Names are unique in an account, so that a copy has another.
func isNamedFor(lb *cloud.LoadBalancer, identity plan.Identity, asked *settings.Settings) bool {
	return identity.Names(lb.Name) || lb.Name == asked.Load.Name || lb.ID == asked.Adopt
}

// noteOwn writes down which of several load balancers is the Service's, before it goes: when it is gone, nothing else tells it from the others.
func (l *LoadBalancers) noteOwn(ctx context.Context, service *v1.Service, lb *cloud.LoadBalancer) (*v1.Service, error) {
	if strings.EqualFold(service.Annotations[settings.AnnotationID], lb.ID) {
		return service, nil
	}
	noted := service.DeepCopy()
	if noted.Annotations == nil {
		noted.Annotations = map[string]string{}
	}
	noted.Annotations[settings.AnnotationID] = lb.ID
	if l.client == nil {
		return noted, nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{settings.AnnotationID: lb.ID}}})
	if err == nil {
		_, err = l.client.CoreV1().Services(service.Namespace).Patch(ctx, service.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("note load balancer %s on the Service: %w", lb.ID, err)
	}
	return noted, nil
}

// tellTwins tells of the load balancers that have a Service's labels and stay in the account.
func (l *LoadBalancers) tellTwins(service *v1.Service, twins []cloud.LoadBalancer) {
	var problems []settings.Problem
	for _, lb := range twins {
		if lb.State.Deleting() {
			continue
		}
		problems = append(problems, settings.Problem{Reason: "SecondLoadBalancer", Message: fmt.Sprintf("Load balancer %s (%s) stays in the account: it has "+
			"this Service's labels, and neither annotation %s nor its name shows that it was made for it; find out who copied the labels, then delete it or take "+
			"them off. upcloud-doctor load-balancers lists it", lb.ID, lb.Name, settings.AnnotationID)})
	}
	if len(problems) > 0 {
		l.said.say(service, problems, l.warn)
	}
}
