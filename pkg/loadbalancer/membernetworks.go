package loadbalancer

import (
	"context"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// inNetworks returns the nodes with the address first that is in one of these networks, where a node has several. A node without one there
// stays as it is. The networks of a load balancer never change, and the list of networks serves all Services for some minutes, so that
// this rarely costs a call; for nodes with one address it never does.
func (l *LoadBalancers) inNetworks(ctx context.Context, attached []cloud.LoadBalancerNetwork, nodes []*v1.Node) ([]*v1.Node, error) {
	if !plan.HaveSeveralAddresses(nodes) || !plan.HasPrivate(attached) {
		return nodes, nil
	}
	all, err := l.config.Cloud.NetworksSince(ctx, time.Now().Add(-settledAge))
	if err != nil {
		return nil, err
	}
	ordered, unclear := plan.InNetworks(all, attached, nodes)
	if len(unclear) == 0 {
		return ordered, nil
	}
	// A server may be attached since.
	if all, err = l.config.Cloud.NetworksSince(ctx, l.sought.moment(unclear, time.Now())); err != nil {
		return nil, err
	}
	ordered, _ = plan.InNetworks(all, attached, nodes)
	return ordered, nil
}

// readNodes finds the nodes that may be members, out of those that the controller names. For missed and err see withAddresses.
func (w *work) readNodes(ctx context.Context, nodes []*v1.Node, selector labels.Selector) (missed, err error) {
	w.nodes, missed, err = w.withAddresses(ctx, plan.Eligible(nodes, w.config.Scope, selector))
	return missed, err
}

// readNodesAsPlaced is readNodes with each node's address in the networks that the Service's load balancer had when it was seen last, and with
// the nodes that serve.
func (w *work) readNodesAsPlaced(ctx context.Context, nodes []*v1.Node, selector labels.Selector) (missed, err error) {
	if missed, err = w.readNodes(ctx, nodes, selector); err != nil {
		return nil, err
	}
	if err := w.placeNodes(ctx, w.membership.networks(w.service)); err != nil {
		return nil, err
	}
	w.readServing(ctx)
	return missed, nil
}

// placeNodes chooses the address of each node's members for the networks of the Service's load balancer.
func (w *work) placeNodes(ctx context.Context, attached []cloud.LoadBalancerNetwork) (err error) {
	w.nodes, err = w.inNetworks(ctx, attached, w.nodes)
	return err
}

// namedNodes is how many nodes an event names.
const namedNodes = 5

// foreignNodes is the remark that nodes are another cloud's, and get no traffic.
func (w *work) foreignNodes() []settings.Problem {
	names := plan.ForeignNodes(w.told, w.config.Scope, w.settings.Selector)
	if len(names) == 0 {
		return nil
	}
	text := strings.Join(names[:min(namedNodes, len(names))], ", ")
	if more := len(names) - namedNodes; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return []settings.Problem{{Reason: "NodesOfOtherClouds", Message: fmt.Sprintf("Nodes %s are not servers of UpCloud, by their provider IDs, and get no traffic "+
		"from the load balancer: Pods there are reached through the other nodes, unless externalTrafficPolicy is Local", text)}}
}
