package loadbalancer

import (
	"crypto/sha256"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// membership remembers which members each Service's backends were last brought to have. With more nodes than a backend takes
// members, most Services have nothing to do when a node comes or goes: those then cost no call. It is lost at a restart, after
// which each load balancer is looked at once. What somebody else does to members meanwhile is mended in the Service's next reconcile
// or check (see drift.go), which always look.
type membership struct{ *records }

type broughtTo struct {
	id       string // of the load balancer
	members  [sha256.Size]byte
	networks []cloud.LoadBalancerNetwork // of the load balancer, which never change
	// outside names the nodes that were out of the reach of a shared load balancer, and are no members for that.
	outside []string
}

// has says whether the load balancer that the Service's annotation names has these members already.
func (m membership) has(service *v1.Service, members [sha256.Size]byte) bool {
	last := m.get(service.UID).members
	return last != nil && last.id == service.Annotations[settings.AnnotationID] && last.members == members
}

// known says whether members of the Service's were written since the program started.
func (m membership) known(service *v1.Service) bool { return m.get(service.UID).members != nil }

// networks are those of the load balancer then; nil: not known.
func (m membership) networks(service *v1.Service) []cloud.LoadBalancerNetwork {
	if last := m.get(service.UID).members; last != nil {
		return last.networks
	}
	return nil
}

// within leaves out the nodes that were out of reach then.
func (m membership) within(service *v1.Service, nodes []*v1.Node) []*v1.Node {
	last := m.get(service.UID).members
	if last == nil {
		return slices.Clone(nodes)
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(node *v1.Node) bool { return slices.Contains(last.outside, node.Name) })
}

// set is called when all of them have been written.
func (m membership) set(service *v1.Service, lb *cloud.LoadBalancer, members [sha256.Size]byte, outside ...string) {
	m.change(service.UID, func(r *serviceRecord) { r.members = &broughtTo{lb.ID, members, lb.Networks, outside} })
}

// forget is called before any is written, as what fails half-way leaves some of each.
func (m membership) forget(service *v1.Service) {
	m.change(service.UID, func(r *serviceRecord) { r.members = nil })
}

// members is a digest of what members the Service's backends have with these nodes.
func (w *work) members(nodes []*v1.Node) [sha256.Size]byte {
	of := *w
	of.nodes = nodes
	return plan.DesiredState(of.input(nil)).MemberDigest()
}
