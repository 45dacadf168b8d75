package loadbalancer

import (
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// missingBackends makes the backends that are not there.
func missingBackends(desired Desired, lb *cloud.LoadBalancer, sessions int) []Change {
	backends := backendsByName(lb)
	var changes []Change
	for _, port := range desired.Ports {
		if _, ok := backends[port.Name]; !ok {
			backend := desired.backend(port, sessions)
			changes = append(changes, Change{Name: port.Name, CreateBackend: &backend})
		}
	}
	return changes
}

// BackendChanges returns the calls that bring the members, and the kind of health check, of the backends that exist up to
// date: one call for each backend, and none for those that are.
func BackendChanges(desired Desired, lb *cloud.LoadBalancer, sessions int) []Change {
	backends := backendsByName(lb)
	var changes []Change
	for _, port := range desired.Ports {
		backend, ok := backends[port.Name]
		if !ok {
			continue
		}
		var patch cloud.BackendPatch
		if all, changed := members(backend.Members, desired.Targets, port.NodePort, sessions); changed {
			patch.Members = all
		}
		if properties, changed := backend.Properties.With(healthCheckChange(desired, backend)); changed {
			patch.Properties = properties
		}
		if patch.Members != nil || patch.Properties != nil {
			changes = append(changes, Change{Name: port.Name, ModifyBackend: &patch})
		}
	}
	return changes
}

// healthCheckChange enforces the health check of externalTrafficPolicy Local, and takes it away when the policy changes
// back. Any other health check is left alone: it may have been set by hand.
func healthCheckChange(desired Desired, backend cloud.Backend) cloud.Properties {
	url, _ := backend.Properties["health_check_url"].(string)
	if desired.HealthCheckPort == 0 && !strings.HasPrefix(url, localHealthCheckPrefix) {
		return nil
	}
	return desired.healthCheck()
}

// NewMembers says whether any member of this load balancer will be new, so that its plan must be known.
func NewMembers(desired Desired, lb *cloud.LoadBalancer) bool {
	if len(desired.Targets) == 0 {
		return false
	}
	backends := backendsByName(lb)
	for _, port := range desired.Ports {
		known := map[string]bool{}
		for _, member := range backends[port.Name].Members {
			known[member.Name] = true
		}
		for _, target := range desired.Targets {
			if !known[target.Name] {
				return true
			}
		}
	}
	return false
}

// staleBackends deletes the backends of ports that are gone. One that somebody's own frontend leads to is left.
func staleBackends(lb *cloud.LoadBalancer, stale func(name string) bool) (changes []Change, left []string) {
	for _, backend := range lb.Backends {
		if !stale(backend.Name) {
			continue
		}
		used := slices.ContainsFunc(lb.Frontends, func(f cloud.Frontend) bool {
			return f.DefaultBackend == backend.Name && !stale(f.Name)
		})
		if used {
			left = append(left, backend.Name)
			continue
		}
		changes = append(changes, Change{Name: backend.Name, DeleteBackend: true})
	}
	return changes, left
}

func backendsByName(lb *cloud.LoadBalancer) map[string]cloud.Backend {
	byName := map[string]cloud.Backend{}
	for _, backend := range lb.Backends {
		byName[backend.Name] = backend
	}
	return byName
}
