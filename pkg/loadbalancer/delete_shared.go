package loadbalancer

import (
	"context"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// leaveTo takes a Service off the load balancer that is its own and that other Services have come to use: the load balancer stays with
// what is theirs, its name and its addresses. The label that proves it to be the Service's goes last, so that an interrupted call is
// taken up again.
func (l *LoadBalancers) leaveTo(ctx context.Context, identity plan.Identity, service *v1.Service, lb *cloud.LoadBalancer, sharers []string) error {
	changes := plan.Diff(plan.Desired{Identity: identity.Of(lb), Awaited: map[string]bool{}}, lb, plan.SessionLimits{})
	changes = slices.DeleteFunc(changes, func(c plan.Change) bool { return c.ModifyLoad != nil || c.DetachAddress })
	if err := l.apply(ctx, service, lb, changes); err != nil {
		return err
	}
	labels := []string{settings.LabelGeneratedName, settings.LabelTrafficPolicy, settings.LabelComponents}
	for key := range lb.Labels {
		if strings.HasPrefix(key, settings.LabelComponents) || strings.HasPrefix(key, plan.LabelBundles) {
			labels = append(labels, key)
		}
	}
	for _, key := range append(labels, settings.LabelServiceUID) {
		if err := l.config.Cloud.DeleteLoadBalancerLabel(ctx, lb.ID, key); err != nil {
			return err
		}
	}
	l.tell(service, "RetainedLoadBalancer", "Load balancer %s (%s) stays in the account with the components of %s", lb.ID, lb.Name,
		strings.Join(sharers, ", "))
	return nil
}
