package loadbalancer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// An entry of sharedLoadBalancers may permit a load balancer by its name, which whoever made the load balancer can change. That must not
// cost the Services there what they have: the operator has not said that they must go.

// reasonRenamed is the reason of a Service on a load balancer that is permitted under its former name only.
const reasonRenamed = "LoadBalancerRenamed"

// formerNames are the names, permitted to the Service, of which one is or may be the former name of a load balancer that is not permitted
// under its present one; none: the Service must go. The Service's annotation has the name under which it was permitted last. Its user
// can write the annotation. So where there are tenants, it counts only if no load balancer has that name now.
func (w *work) formerNames(ctx context.Context, lb *cloud.LoadBalancer) ([]string, error) {
	if w.settings.Shared.Group != "" || !plan.HasParts(lb, w.identity.Key()) {
		return nil, nil
	}
	names := settings.PermittedNames(w.access, w.service, w.settings)
	recorded := w.recordedName(lb)
	if recorded != "" {
		names = slices.DeleteFunc(names, func(name string) bool { return name != recorded })
	}
	if len(names) == 0 || recorded != "" && w.config.Tenants == nil {
		return names, nil
	}
	all, err := w.config.Cloud.LoadBalancers(ctx, nil)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(all, func(other cloud.LoadBalancer) bool { return other.Name == name })
	}), nil
}

// recordedName is the name that the load balancer had when the Service was permitted there last; empty: it is not known.
func (w *work) recordedName(lb *cloud.LoadBalancer) string {
	if w.service.Annotations[settings.AnnotationID] != lb.ID {
		return ""
	}
	return w.service.Annotations[settings.AnnotationName]
}

// renamed leaves what the Service has on a load balancer as it is, adds nothing, and says what to do.
func (w *work) renamed(lb *cloud.LoadBalancer, names []string) error {
	was := fmt.Sprintf("load balancer %q is now called %q (%s)", names[0], lb.Name, lb.ID)
	entry := "that entry"
	if w.recordedName(lb) == "" {
		was = fmt.Sprintf("load balancer %s is called %q, and may have been called %s, which no load balancer is now", lb.ID, lb.Name, strings.Join(names, " or "))
		entry = "its entry"
	}
	problem := settings.Problem{Reason: reasonRenamed, Message: fmt.Sprintf("annotation %s%s=%s: %s: no entry of sharedLoadBalancers in the controller's configuration "+
		"permits it to this Service under this name, and one does under the former. What the Service has there stays as it is, its members follow the nodes, and "+
		"nothing is added: set loadBalancer of %s to %s or %s, or give the load balancer back its name. If the Service is to leave it, remove the annotation",
		settings.AnnotationPrefix, settings.SharedName, w.settings.Shared, was, entry, lb.ID, lb.Name)}
	w.said.say(w.service, []settings.Problem{problem}, w.warn)
	return because(problem.Reason, api.NewRetryError(problem.Message, refusedRetry))
}
