package loadbalancer

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Names of load balancers are unique in an account, and Services refer to shared load balancers by name. So a load balancer of a Service's
// own must not get the name of a shared one, and must not be joined by others if it has it.

// madeForOne returns why a load balancer is not to be shared: it was made for one Service, which configures and deletes it. A name can be
// taken by whoever is first; so a load balancer that was one Service's before, and that retain left in the account, is shared only if it is
// named by its UUID, or if the labels that say so are taken off.
func madeForOne(lb *cloud.LoadBalancer, reference settings.Reference) *settings.Problem {
	if _, group := lb.Labels[settings.LabelSharedGroup]; group {
		return nil
	}
	uid, told := lb.Labels[settings.LabelServiceUID]
	owned := uid != "" || !told && lb.Labels[settings.LabelGeneratedName] != ""
	_, noted := lb.Labels[settings.LabelComponents]
	if !owned && (!noted || reference.ID != "") {
		return nil
	}
	return &settings.Problem{Reason: "SharingDenied", Message: fmt.Sprintf("annotation %s%s=%s: load balancer %s (%s) was made for one Service (%s), and is not to be shared: "+
		"name another, or ask the cluster's operator to rename that one", settings.AnnotationPrefix, settings.SharedName, reference, lb.ID, lb.Name,
		cmp.Or(lb.Labels[settings.LabelGeneratedName], "which is gone"))}
}

// toTenant is a problem with a load balancer that may be another's. Where there are tenants, and neither their policy nor an entry of
// sharedLoadBalancers names it for the Service's namespace, it says no more of that than the Service does: names of others' load balancers
// can be guessed, and their UUIDs, and whom they were made for, are no tenant's business.
func (w *work) toTenant(ctx context.Context, problem *settings.Problem) (*settings.Problem, error) {
	if problem == nil {
		return nil, nil
	}
	if shares, err := w.policyShares(ctx, w.settings.Shared.String(), w.service.Namespace); err != nil || shares {
		return problem, err
	}
	return &settings.Problem{Reason: problem.Reason, Message: fmt.Sprintf("annotation %s%s=%s: the controller's configuration does not let this Service use that load "+
		"balancer: ask for an entry in sharedLoadBalancers with its namespace, ports and hosts", settings.AnnotationPrefix, settings.SharedName, w.settings.Shared)}, nil
}

// reservedName returns why a Service may not have a load balancer of the name that it would get: it is that of a shared one.
func reservedName(entries []settings.SharedAccess, identity plan.Identity, asked *settings.Settings) []settings.Problem {
	name := cmp.Or(asked.Load.Name, identity.Name)
	reserved := slices.ContainsFunc(entries, func(entry settings.SharedAccess) bool {
		return strings.TrimPrefix(entry.LoadBalancer, settings.GroupPrefix) == name
	})
	if asked.Shared != nil || !reserved {
		return nil
	}
	remedy := "rename the Service"
	if asked.Load.Name != "" {
		remedy = "choose another name in annotation " + settings.AnnotationConfig
	}
	return []settings.Problem{{Reason: "ReservedName", Message: fmt.Sprintf("the load balancer would be called %s, which is the name of a shared one (sharedLoadBalancers of "+
		"the controller's configuration): %s", name, remedy)}}
}

// others names the Services, but for the one of the key, that have components on a load balancer. What was noted as made for the one that
// the load balancer belongs to does not count, whatever its name.
func others(lb *cloud.LoadBalancer, key plan.Key) []string {
	ours := plan.NotesOf(lb.Labels, settings.LabelComponents)
	byKey := map[string]string{}
	for _, backend := range lb.Backends {
		if other := plan.OwnerKey(backend.Name); other != "" && !key.Is(other) && !ours.HasBackend(backend.Name) {
			byKey[other] = plan.OwnerOf(backend.Name)
		}
	}
	return slices.Sorted(maps.Values(byKey))
}
