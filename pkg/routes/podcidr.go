package routes

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// PodCIDRError says why a Node's Pod CIDR gets no route. Whoever may register a Node chooses its Pod CIDR.
type PodCIDRError struct{ text string }

func (e *PodCIDRError) Error() string { return e.text }

// podCIDRs are the Pod CIDRs of all Nodes.
type podCIDRs struct {
	allowed []netip.Prefix // --cluster-cidr; empty: everything
	byCIDR  map[netip.Prefix][]*v1.Node
	within  map[netip.Prefix][]netip.Prefix // smaller ones inside one
}

func newPodCIDRs(allowed []netip.Prefix, nodes []*v1.Node) *podCIDRs {
	p := &podCIDRs{allowed: allowed, byCIDR: map[netip.Prefix][]*v1.Node{}, within: map[netip.Prefix][]netip.Prefix{}}
	for _, node := range nodes {
		for _, prefix := range prefixesOf(node) {
			p.byCIDR[prefix] = append(p.byCIDR[prefix], node)
		}
	}
	for prefix := range p.byCIDR {
		for _, wider := range p.around(prefix) {
			p.within[wider] = append(p.within[wider], prefix)
		}
	}
	return p
}

func prefixesOf(node *v1.Node) (prefixes []netip.Prefix) {
	for _, cidr := range node.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(cidr); err == nil {
			prefixes = append(prefixes, prefix.Masked())
		}
	}
	return prefixes
}

// around are the Pod CIDRs of Nodes that contain the prefix, and are wider.
func (p *podCIDRs) around(prefix netip.Prefix) (wider []netip.Prefix) {
	for bits := prefix.Bits() - 1; bits >= 0; bits-- {
		if at := netip.PrefixFrom(prefix.Addr(), bits).Masked(); len(p.byCIDR[at]) > 0 {
			wider = append(wider, at)
		}
	}
	return wider
}

// isAllowed says that a prefix is inside --cluster-cidr.
func (p *podCIDRs) isAllowed(prefix netip.Prefix) bool {
	return len(p.allowed) == 0 || slices.ContainsFunc(p.allowed, func(a netip.Prefix) bool { return covers(a, prefix) })
}

// arePlausible says that some Node's Pod CIDR is inside --cluster-cidr. If none is, the flag is wrong, and nothing is removed on the
// strength of it.
func (p *podCIDRs) arePlausible() bool {
	for prefix := range p.byCIDR {
		if p.isAllowed(prefix) {
			return true
		}
	}
	return false
}

// check is a PodCIDRError if the node's Pod CIDR must not have a route on a router that joins these networks.
func (p *podCIDRs) check(node *v1.Node, prefix netip.Prefix, networks []cloud.PrivateNetwork) error {
	if !p.isAllowed(prefix) {
		return &PodCIDRError{fmt.Sprintf("Pod CIDR %s is outside --cluster-cidr (%s), no route created; recreate the Node, so that it gets another "+
			"one, or set --cluster-cidr to what the kube-controller-manager has", prefix, joinPrefixes(p.allowed))}
	}
	for _, network := range networks {
		for _, other := range network.Prefixes {
			if other.Overlaps(prefix) {
				return &PodCIDRError{fmt.Sprintf("Pod CIDR %s overlaps private network %s (%s) of the router, no route created; give the cluster a Pod "+
					"network (--cluster-cidr) that no private network overlaps", prefix, network.Name, other)}
			}
		}
	}
	for _, other := range slices.Concat([]netip.Prefix{prefix}, p.around(prefix), p.within[prefix]) {
		for _, rival := range p.byCIDR[other] {
			// A Node that gets no route itself takes none from others.
			if rival.Name != node.Name && before(rival, node) && p.check(rival, other, networks) == nil {
				return &PodCIDRError{fmt.Sprintf("Pod CIDR %s overlaps %s of Node %s, which is older, no route created; recreate one of the two Nodes, "+
					"so that it gets another Pod CIDR", prefix, other, rival.Name)}
			}
		}
	}
	return nil
}

// podCIDRsAge is for how long the Pod CIDRs of all Nodes serve new routes, of which there may be hundreds at once.
const podCIDRsAge = time.Second

// checkPodCIDR checks a Pod CIDR that is about to get a route.
func (r *Routes) checkPodCIDR(node *v1.Node, prefix netip.Prefix, in domain) error {
	r.mu.Lock()
	if time.Since(r.podCIDRsRead) >= podCIDRsAge {
		nodes, err := r.nodes.List(labels.Everything())
		if err != nil {
			r.mu.Unlock()
			return err
		}
		r.podCIDRs, r.podCIDRsRead = newPodCIDRs(r.config.ClusterCIDRs, nodes), time.Now()
	}
	known := r.podCIDRs
	r.mu.Unlock()
	return known.check(node, prefix, in.networks)
}

// before says that a Node is older than another, so that of two with one Pod CIDR it is always the same that has the route.
func before(a, b *v1.Node) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.Name < b.Name
}

// covers says that all of inner is in outer.
func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Overlaps(inner)
}

func joinPrefixes(prefixes []netip.Prefix) string {
	var texts []string
	for _, prefix := range prefixes {
		texts = append(texts, prefix.String())
	}
	return strings.Join(texts, ", ")
}
