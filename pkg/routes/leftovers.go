package routes

import (
	"context"
	"net/netip"
	"time"

	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// leftoversAge is how often the account's other routers are looked at for routes of this cluster, one call each time.
const leftoversAge = 5 * time.Minute

// leftovers is when the other routers were looked at, and what was the cluster's router then.
type leftovers struct {
	looked time.Time
	router string
}

// removeLeftovers removes this cluster's routes from routers that the nodes' networks are on no more. What fails is tried again the
// next time.
func (r *Routes) removeLeftovers(ctx context.Context, current string, owner Owner) {
	r.mu.Lock()
	last := r.leftovers
	due := last.router != current || time.Since(last.looked) >= leftoversAge
	if due {
		r.leftovers = leftovers{time.Now(), current}
	}
	r.mu.Unlock()
	if !due {
		return
	}
	routers, err := r.config.Cloud.Routers(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Failed to look for static routes on former routers")
		return
	}
	for _, router := range routers {
		if router.ID != current && router.Type != "service" {
			r.removeFrom(ctx, router, owner)
		}
	}
}

func (r *Routes) removeFrom(ctx context.Context, router cloud.Router, owner Owner) {
	var named []cloud.StaticRoute
	for _, route := range router.Routes {
		if owner.owns(route.Name) {
			named = append(named, route)
		}
	}
	if len(named) == 0 {
		return
	}
	mine := r.mine(ctx, owner, r.networksOf(ctx, router.NetworkIDs), named)
	var changes []*change
	for _, route := range named {
		if key := keyOfRoute(route); mine[key] {
			changes = append(changes, newChange(key.name, key.prefix, netip.Addr{}))
		}
	}
	if len(changes) == 0 {
		return
	}
	log := klog.FromContext(ctx)
	if err := r.writerOf(router.ID, owner).do(ctx, changes...); err != nil {
		log.Error(err, "Failed to remove static routes from a former router", "router", router.ID)
		return
	}
	log.Info("Removed static routes from a router that the nodes' private networks are not attached to any more", "router", router.ID, "routes", len(changes))
}

// networksOf are the private networks with these UUIDs, as they were a while ago at most.
func (r *Routes) networksOf(ctx context.Context, ids []string) (found []cloud.PrivateNetwork) {
	if len(ids) == 0 {
		return nil
	}
	networks, err := r.config.Cloud.NetworksSince(ctx, time.Now().Add(-networksAge))
	if err != nil {
		return nil // the next hop is then looked for on all networks
	}
	for _, network := range networks {
		for _, id := range ids {
			if network.ID == id {
				found = append(found, network)
			}
		}
	}
	return found
}
