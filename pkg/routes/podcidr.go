package routes

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// PodCIDRError says why a Node's Pod CIDR gets no route. Whoever may register a Node chooses its Pod CIDR.
type PodCIDRError struct{ text string }

func (e *PodCIDRError) Error() string { return e.text }

// podCIDRs are the Pod CIDRs of all Nodes.
type podCIDRs struct {
	allowed []netip.Prefix                  // --cluster-cidr; empty: everything
	byCIDR  map[netip.Prefix][]*v1.Node     // the oldest first
	within  map[netip.Prefix][]netip.Prefix // smaller ones inside one
}

func newPodCIDRs(allowed []netip.Prefix, nodes []*v1.Node) *podCIDRs {
	p := &podCIDRs{allowed: allowed, byCIDR: map[netip.Prefix][]*v1.Node{}, within: map[netip.Prefix][]netip.Prefix{}}
	for _, node := range nodes {
		for _, prefix := range prefixesOf(node) {
			p.byCIDR[prefix] = append(p.byCIDR[prefix], node)
		}
	}
	for prefix, nodes := range p.byCIDR {
		slices.SortFunc(nodes, byAge)
		for _, wider := range p.around(prefix) {
			p.within[wider] = append(p.within[wider], prefix)
		}
	}
	return p
}

// maxPodCIDRs is how many Pod CIDRs a Node has at most, one of IPv4 and one of IPv6; maxPodCIDR is the length of one as text.
const maxPodCIDRs, maxPodCIDR = 2, 64

// parsePodCIDR reads a Pod CIDR. Its host bits are cleared.
func parsePodCIDR(text string) (netip.Prefix, error) {
	if err := bounded.Text(text, maxPodCIDR); err != nil {
		return netip.Prefix{}, fmt.Errorf("Pod CIDR is %w", err)
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("Pod CIDR: %w", err)
	}
	if prefix.Addr().Is4In6() { // which compares as no IPv4 network does
		return netip.Prefix{}, fmt.Errorf("Pod CIDR %q is an IPv4 network written as IPv6; write it as IPv4", text)
	}
	return prefix.Masked(), nil
}

// prefixesOf are a Node's Pod CIDRs, without those that cannot be read. A Node with too many has none.
func prefixesOf(node *v1.Node) (prefixes []netip.Prefix) {
	if len(node.Spec.PodCIDRs) > maxPodCIDRs {
		return nil
	}
	for _, cidr := range node.Spec.PodCIDRs {
		if prefix, err := parsePodCIDR(cidr); err == nil {
			prefixes = append(prefixes, prefix)
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
	if err := bounded.Count(len(node.Spec.PodCIDRs), maxPodCIDRs, "Pod CIDRs"); err != nil {
		return &PodCIDRError{fmt.Sprintf("%v, no route created; recreate the Node, so that it gets one of IPv4, one of IPv6, or both", err)}
	}
	return p.checkAmong(node, prefix, networks, map[podCIDROf]error{})
}

// podCIDROf is a Pod CIDR of a Node.
type podCIDROf struct {
	node   string
	prefix netip.Prefix
}

// checkAmong is check, for which each Pod CIDR of a rival is judged once: many Nodes may have the same, or some within others'.
func (p *podCIDRs) checkAmong(node *v1.Node, prefix netip.Prefix, networks []cloud.PrivateNetwork, judged map[podCIDROf]error) error {
	of := podCIDROf{node.Name, prefix}
	if err, known := judged[of]; known {
		return err
	}
	judged[of] = p.judge(node, prefix, networks, judged)
	return judged[of]
}

func (p *podCIDRs) judge(node *v1.Node, prefix netip.Prefix, networks []cloud.PrivateNetwork, judged map[podCIDROf]error) error {
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
			if byAge(rival, node) >= 0 {
				break // it and all others are younger
			}
			// A Node that gets no route itself takes none from others.
			if rival.Name != node.Name && p.checkAmong(rival, other, networks, judged) == nil {
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

// byAge orders Nodes by age, the oldest first, so that of two with one Pod CIDR it is always the same that has the route.
func byAge(a, b *v1.Node) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
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
