package loadbalancer

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// noNodesRetry is when to look again for nodes: no event tells of the first one that a Service waits for.
const noNodesRetry = 5 * time.Second

// place finds the zone and the private network of the nodes: the network in which most of them have the address that
// becomes their member's. What the Service asks for wins.
func (l *LoadBalancers) place(ctx context.Context, asked *settings.Settings, nodes []*v1.Node) (plan.Placement, error) {
	located, err := l.locate(ctx, nodes, time.Now().Add(-recentAge))
	if err != nil {
		return plan.Placement{}, err
	}
	if len(located) == 0 {
		return plan.Placement{}, api.NewRetryError("no node is known to be an UpCloud server yet, so there is no zone and no network "+
			"to make a load balancer in", noNodesRetry)
	}
	zones := map[string]int{}
	for _, node := range located {
		zones[node.Zone]++
	}
	zone := plan.MostOf(zones)
	networks, err := l.config.Cloud.PrivateNetworks(ctx, zone)
	if err != nil {
		return plan.Placement{}, err
	}
	place, err := plan.ChoosePlacement(zone, located, plan.Wanted(networks, asked))
	if err != nil {
		return plan.Placement{}, err
	}
	place.Networks = plan.PlanNetworks(asked, place.NetworkID)
	place.Outside = plan.Outside(networks, place.Networks, located)
	if place.Zone = asked.Zone; place.Zone == "" {
		place.Zone, err = l.loadBalancerZone(ctx, zone)
	}
	return place, err
}

// locate finds the nodes' servers, as they were at that moment or later. Nodes that are not initialized yet, are another cloud's, or
// have no server any more are left out.
func (l *LoadBalancers) locate(ctx context.Context, nodes []*v1.Node, since time.Time) ([]plan.LocatedNode, error) {
	set, err := l.config.Cloud.ServersSince(ctx, since)
	if err != nil {
		return nil, err
	}
	located, missing := plan.LocateIn(set, nodes)
	if len(missing) == 0 {
		return located, nil
	}
	// A server may be newer than the list.
	if set, err = l.config.Cloud.ServersSince(ctx, l.sought.moment(missing, time.Now())); err != nil {
		return nil, err
	}
	located, _ = plan.LocateIn(set, nodes)
	return located, nil
}

// insideOf returns the names of those nodes that are in one of the networks, by their servers and by their addresses.
func (l *LoadBalancers) insideOf(ctx context.Context, attached []cloud.LoadBalancerNetwork, nodes []plan.LocatedNode) (map[string]bool, error) {
	all, err := l.config.Cloud.NetworksSince(ctx, time.Now().Add(-settledAge))
	if err != nil {
		return nil, err
	}
	inside, outside := plan.InsideOfAny(all, attached, nodes)
	if len(outside) == 0 {
		return inside, nil
	}
	// A server may be attached since.
	if all, err = l.config.Cloud.NetworksSince(ctx, l.sought.moment(outside, time.Now())); err != nil {
		return nil, err
	}
	inside, _ = plan.InsideOfAny(all, attached, nodes)
	return inside, nil
}

// loadBalancerZone is the zone itself, or the parent of a private cloud's zone, as load balancers are offered in public
// zones only.
func (l *LoadBalancers) loadBalancerZone(ctx context.Context, id string) (string, error) {
	zones, err := l.config.Cloud.Zones(ctx)
	if err != nil {
		return "", err
	}
	for _, zone := range zones {
		if zone.ID == id && !zone.Public && zone.ParentID != "" {
			return zone.ParentID, nil
		}
	}
	return id, nil
}

// checkAddresses refuses a floating IP address that the account has not, before the load balancer is made with it, which the API refuses
// without a word about the address, or loses another for it. It costs a call for each address that is new.
func (w *work) checkAddresses(ctx context.Context, desired plan.Desired, lb *cloud.LoadBalancer) error {
	for _, want := range desired.Addresses {
		if slices.ContainsFunc(lb.Addresses, func(have cloud.FloatingAddress) bool { return have.Address == want.Address }) {
			continue
		}
		free, err := w.config.Cloud.FreeFloatingAddress(ctx, want.Address)
		if err != nil {
			return err
		}
		if free {
			continue
		}
		const why = "the account has no such floating IP address, or it leads to a server: want one that is free"
		problem := settings.InvalidAnnotation(settings.FloatingIPsName, want.Address, why)
		if len(w.settings.Addresses) == 0 {
			problem = settings.Problem{Reason: "UnsupportedLoadBalancerIP", Message: fmt.Sprintf("spec.loadBalancerIP %s: %s", want.Address, why)}
		}
		w.said.say(w.service, []settings.Problem{problem}, w.warn)
		return because(problem.Reason, api.NewRetryError(problem.Message, sharedRetry)) // nothing tells when it is free
	}
	return nil
}
