package loadbalancer

import (
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// frontendChanges deletes, modifies and makes frontends, in this order. Mode, timeouts, rules and certificates of those that
// are there stay as they are.
func frontendChanges(desired Desired, lb *cloud.LoadBalancer, stale func(name string) bool) []Change {
	var deleted, modified, created []Change
	known := map[string]bool{}
	for _, frontend := range lb.Frontends {
		port, wanted := desired.port(frontend.Name)
		switch {
		case stale(frontend.Name):
			deleted = append(deleted, Change{Name: frontend.Name, DeleteFrontend: true})
		case !wanted: // somebody else's
		case mustMakeAnew(desired, frontend, lb.Frontends):
			anew := frontend
			anew.Port, anew.DefaultBackend = port.Port, port.Name
			deleted = append(deleted, Change{Name: frontend.Name, DeleteFrontend: true})
			created = append(created, Change{Name: frontend.Name, CreateFrontend: &anew})
		case frontend.Port != port.Port || frontend.DefaultBackend != port.Name:
			patch := cloud.FrontendPatch{Port: port.Port, DefaultBackend: port.Name}
			modified = append(modified, Change{Name: frontend.Name, ModifyFrontend: &patch})
		}
		known[frontend.Name] = true
	}
	for _, port := range desired.Ports {
		if !known[port.Name] {
			frontend := desired.frontend(port, frontendNetworks(lb))
			created = append(created, Change{Name: port.Name, CreateFrontend: &frontend})
		}
	}
	return append(append(deleted, modified...), created...)
}

// mustMakeAnew says whether a frontend has to be deleted and made anew because its port shall be one that another of ours
// has now, and gives up as well (two ports that change places). Two frontends on one port are refused by the API.
func mustMakeAnew(desired Desired, frontend cloud.Frontend, all []cloud.Frontend) bool {
	want, _ := desired.port(frontend.Name)
	if want.Port == frontend.Port {
		return false
	}
	for _, other := range all {
		otherWant, wanted := desired.port(other.Name)
		if other.Name != frontend.Name && wanted && otherWant.Port != other.Port &&
			(other.Port == want.Port || otherWant.Port == frontend.Port) {
			return true
		}
	}
	return false
}

func (d Desired) port(name string) (Port, bool) {
	for _, port := range d.Ports {
		if port.Name == name {
			return port, true
		}
	}
	return Port{}, false
}

// frontendNetworks are the networks that a new frontend of an existing load balancer listens on: all of them.
func frontendNetworks(lb *cloud.LoadBalancer) []string {
	var names []string
	for _, network := range lb.Networks {
		names = append(names, network.Name)
	}
	return names
}
