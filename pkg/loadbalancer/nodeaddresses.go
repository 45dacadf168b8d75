package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
)

// A kubelet writes its own Node's status, so a node that is not to be trusted can claim any address there. A load balancer would
// send clients to it: to another server, or out of the account. So the address of a member is one that the account shows at the
// server with the Node's provider ID; the status only chooses among them.

const (
	// provenAge is how long an address is used without asking the account again. pkg/instances reads the servers every five minutes
	// anyway, so that asking again rarely costs a call.
	provenAge = 10 * time.Minute
	// addressesAtOnce bounds how many nodes are looked up at one time: after a restart, each costs a call.
	addressesAtOnce = 32
)

// nodeClaim is what a Node says about its address.
type nodeClaim struct {
	providerID string
	address    netip.Addr // the first internal IPv4 address; zero: none
}

// provenAddress is what the account said to a claim.
type provenAddress struct {
	claim     nodeClaim
	addresses []netip.Addr // all that the account shows; the first is the one claimed, if it is shown; none: the node cannot be a member
	at        time.Time
}

// provenAddresses remembers the answers by the name of the Node.
type provenAddresses struct {
	mu     sync.Mutex
	byNode map[string]provenAddress
}

// get returns the last answer to this claim, and whether it is young enough to be used without asking again.
func (p *provenAddresses) get(node string, claim nodeClaim, now time.Time) (last provenAddress, known, fresh bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, known = p.byNode[node]
	known = known && last.claim == claim
	return last, known, known && now.Sub(last.at) < provenAge
}

func (p *provenAddresses) set(node string, proven provenAddress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byNode == nil {
		p.byNode = map[string]provenAddress{}
	}
	if _, known := p.byNode[node]; !known {
		for name, other := range p.byNode { // Nodes that are gone
			if proven.at.Sub(other.at) > 6*provenAge {
				delete(p.byNode, name)
			}
		}
	}
	p.byNode[node] = proven
}

// withAddresses returns the nodes with the addresses that their members get: see plan.InternalIPv4. Nodes that the account does not know
// have none. The service controller reports a node when it gets its provider ID, a moment before it gets its addresses, and then no
// more. So when the API does not answer for such a node, missed is the error to return once the others are served: nothing else
// would make that node a member. err means that no member may be changed, as nodes that may be members now would lose their place.
func (l *LoadBalancers) withAddresses(ctx context.Context, nodes []*v1.Node) (completed []*v1.Node, missed, err error) {
	if l.config.NodeAddresses == nil {
		return nodes, nil, nil
	}
	completed = slices.Clone(nodes)
	misses := make([]error, len(nodes))
	var group errgroup.Group
	group.SetLimit(addressesAtOnce)
	for i, node := range nodes {
		group.Go(func() error {
			addresses, err := l.provenAddresses(ctx, node)
			switch claimed, _ := plan.InternalIPv4(node); {
			case err == nil:
			case claimed.IsValid():
				return err
			default:
				misses[i] = err
			}
			completed[i] = withAddresses(node, addresses)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	return completed, errors.Join(misses...), nil
}

// provenAddresses returns the addresses of the node's server that its members may get, the first unless a load balancer is in the
// network of another one; none: it cannot be a member. An error means that the account cannot be asked.
func (l *LoadBalancers) provenAddresses(ctx context.Context, node *v1.Node) ([]netip.Addr, error) {
	claim := nodeClaim{providerID: node.Spec.ProviderID}
	claim.address, _ = plan.InternalIPv4(node)
	last, known, fresh := l.proven.get(node.Name, claim, l.now())
	if fresh {
		return last.addresses, nil
	}
	proven := provenAddress{claim: claim, at: l.now()}
	if claim.providerID == "" {
		if claim.address.IsValid() {
			l.notMember(ctx, node, known, errors.New("the Node has no provider ID"))
			l.proven.set(node.Name, proven)
		}
		return nil, nil
	}
	addresses, err := l.config.NodeAddresses(ctx, node)
	switch {
	case err == nil:
		proven.addresses = memberAddresses(claim.address, addresses)
	case errors.Is(err, cloud.ErrUnavailable), ctx.Err() != nil:
		if known {
			return last.addresses, nil
		}
		return nil, fmt.Errorf("node %s is not a member yet, as the account cannot be asked for its addresses: %w", node.Name, err)
	}
	switch {
	case len(proven.addresses) == 0: // does not pass by itself, and must not hold up every Service
		l.notMember(ctx, node, known, err)
		if !claim.address.IsValid() {
			return nil, nil // it may get one any moment
		}
	case claim.address.IsValid() && claim.address != proven.addresses[0] && !known:
		l.warn(node, "AddressNotOfServer", "Load balancers use %s instead of InternalIP %s, which is not an address of server %s; restart the "+
			"kubelet with a --node-ip of its server, or without one", proven.addresses[0], claim.address, claim.providerID)
	}
	l.proven.set(node.Name, proven)
	return proven.addresses, nil
}

// notMember reports once for each claim that the node is left out.
func (l *LoadBalancers) notMember(ctx context.Context, node *v1.Node, reported bool, why error) {
	if reported {
		return
	}
	klog.FromContext(ctx).Info("Node is not a member of load balancers: no address of its server is known", "node", klog.KObj(node),
		"providerID", node.Spec.ProviderID, "err", why)
	if why != nil {
		l.warn(node, "NotLoadBalancerMember", "Load balancers do not use this node: no address of its server is known: %v", why)
	}
}

// memberAddresses are the account's internal ones, the claimed one first if it is among them.
func memberAddresses(claimed netip.Addr, addresses []v1.NodeAddress) []netip.Addr {
	all := plan.InternalIPv4s(addresses)
	if at := slices.Index(all, claimed); at > 0 {
		all = slices.Insert(slices.Delete(all, at, at+1), 0, claimed)
	}
	return all
}

// withAddresses is the node with these internal addresses only.
func withAddresses(node *v1.Node, addresses []netip.Addr) *v1.Node {
	if slices.Equal(plan.InternalIPv4s(node.Status.Addresses), addresses) {
		return node
	}
	proven := *node
	proven.Status.Addresses = nil
	for _, address := range addresses {
		proven.Status.Addresses = append(proven.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: address.String()})
	}
	return &proven
}
