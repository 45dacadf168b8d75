package loadbalancer

import (
	"fmt"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Change is one API call on one component of a load balancer. Which one is said by the one field that is set beside Name.
type Change struct {
	Name string // of the component

	CreateLabel, ModifyLabel *string // the value
	CreateFrontend           *cloud.Frontend
	ModifyFrontend           *cloud.FrontendPatch
	DeleteFrontend           bool
	CreateBackend            *cloud.Backend
	ModifyBackend            *cloud.BackendPatch
	DeleteBackend            bool
}

// String is for logs and tests.
func (c Change) String() string {
	switch {
	case c.CreateLabel != nil:
		return fmt.Sprintf("create label %s=%s", c.Name, *c.CreateLabel)
	case c.ModifyLabel != nil:
		return fmt.Sprintf("modify label %s=%s", c.Name, *c.ModifyLabel)
	case c.CreateFrontend != nil:
		return fmt.Sprintf("create frontend %s :%d", c.Name, c.CreateFrontend.Port)
	case c.ModifyFrontend != nil:
		return fmt.Sprintf("modify frontend %s%s", c.Name, frontendPatchText(*c.ModifyFrontend))
	case c.DeleteFrontend:
		return "delete frontend " + c.Name
	case c.CreateBackend != nil:
		return fmt.Sprintf("create backend %s (%d members)", c.Name, len(c.CreateBackend.Members))
	case c.ModifyBackend != nil:
		return "modify backend " + c.Name + backendPatchText(*c.ModifyBackend)
	case c.DeleteBackend:
		return "delete backend " + c.Name
	}
	return "nothing on " + c.Name
}

func frontendPatchText(patch cloud.FrontendPatch) string {
	var text string
	if patch.Port != 0 {
		text += fmt.Sprintf(" :%d", patch.Port)
	}
	if patch.DefaultBackend != "" {
		text += " -> " + patch.DefaultBackend
	}
	return text
}

func backendPatchText(patch cloud.BackendPatch) string {
	var text string
	if patch.Members != nil {
		text += fmt.Sprintf(" (%d members)", len(patch.Members))
	}
	if patch.Properties != nil {
		text += fmt.Sprintf(" %v %v", patch.Properties["health_check_type"], patch.Properties["health_check_url"])
	}
	return text
}

// Foreign returns those of the desired ports for which there is a frontend or backend of that name which was not made for
// the Service: whatever is made is noted before. On a load balancer that has no notes yet, because UpCloud's own CCM made
// it, everything of the right name is the Service's.
func Foreign(desired Desired, lb *cloud.LoadBalancer) []string {
	if _, noted := lb.Labels[LabelComponents]; !noted {
		return nil
	}
	ours, there := componentsOf(lb.Labels), map[string]bool{}
	for _, frontend := range lb.Frontends {
		there[frontend.Name] = true
	}
	for _, backend := range lb.Backends {
		there[backend.Name] = true
	}
	return slices.DeleteFunc(desired.portNames(), func(name string) bool { return !there[name] || ours.has(name) })
}

// Diff returns the calls that make a load balancer as desired, in an order that leaves it working after each of them:
// backends come before the frontends that point to them and go after them, and a port is let go before another frontend
// takes it. Nothing to do is no call. sessions is for members that are new.
func Diff(desired Desired, lb *cloud.LoadBalancer, sessions int) []Change {
	ours := componentsOf(lb.Labels)
	wanted := componentSet{}.with(desired.portNames())
	stale := func(name string) bool { return ours.has(name) && !wanted.has(name) }

	// What is about to be made is noted before, and what has gone is struck off after: a crash in between leaves
	// nothing that nobody owns.
	changes := labelChanges(desired.Labels, lb.Labels)
	noted := ours.with(desired.portNames())
	noting := noted.changes(lb.Labels)
	slices.Reverse(noting) // over several labels, names move on to later ones: those first, so that none is lost in between
	changes = append(changes, noting...)

	changes = append(changes, missingBackends(desired, lb, sessions)...)
	changes = append(changes, BackendChanges(desired, lb, sessions)...)
	changes = append(changes, frontendChanges(desired, lb, stale)...)
	gone, left := staleBackends(lb, stale)
	changes = append(changes, gone...)
	return append(changes, wanted.with(left).changes(applied(lb.Labels, noting))...)
}
