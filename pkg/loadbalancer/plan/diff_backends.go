package plan

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// missingBackends makes the backends that are not there.
func (d *differ) missingBackends() []Change {
	backends := backendsByName(d.lb)
	var changes []Change
	for _, want := range d.desired.Backends {
		if _, ok := backends[want.Name]; !ok {
			backend := want.create(d.sessions.Fresh)
			changes = append(changes, Change{Name: want.Name, CreateBackend: &backend})
		}
	}
	return changes
}

// backends brings the backends that exist up to date: one call for each, one more for each of its certificates, and none
// for those that are.
func (d *differ) backends() []Change {
	backends := backendsByName(d.lb)
	var changes []Change
	for _, want := range d.desired.Backends {
		have, ok := backends[want.Name]
		if !ok {
			continue
		}
		owner := cloud.TLSOwner{Backend: want.Name}
		set, removed := d.tls(owner, want.TLS, have.TLSConfigs)
		changes = append(changes, set...)
		if patch := d.backend(want, have); patch.Members != nil || patch.Properties != nil || patch.Resolver != nil {
			changes = append(changes, Change{Name: want.Name, ModifyBackend: &patch})
		}
		changes = append(changes, removed...)
	}
	return changes
}

func (d *differ) backend(want Backend, have cloud.Backend) cloud.BackendPatch {
	var patch cloud.BackendPatch
	limits := d.sessions
	limits.Reset = limits.Reset || d.stale(NoteBackend(want.Name, "max_sessions"))
	if all, changed := want.MembersOf(have.Members, limits); changed {
		patch.Members = all
	}
	if properties, changed := have.Properties.With(d.backendProperties(want, have)); changed {
		patch.Properties = properties
	}
	resolver := want.Resolver
	if resolver != have.Resolver && (resolver != "" || d.stale(NoteBackend(want.Name, "resolver"))) {
		patch.Resolver = &resolver
	}
	return patch
}

// localHealthCheck is the URL of the health check of externalTrafficPolicy Local.
var localHealthCheck = regexp.MustCompile(`^http://:[0-9]+$`)

// backendProperties are those that are asked for, and the defaults of those that no longer are. Any other property is left
// alone: it may have been set by hand. A load balancer that UpCloud's own CCM made has no notes, so that of a policy that
// is no longer Local only its traces tell.
func (d *differ) backendProperties(want Backend, have cloud.Backend) cloud.Properties {
	all := d.properties(want.Asked, backendDefaults, have.Properties, func(name string) string { return NoteBackend(want.Name, name) })
	url, _ := have.Properties["health_check_url"].(string)
	if _, asked := want.Asked["health_check_url"]; !asked && localHealthCheck.MatchString(url) && !d.noted {
		all["health_check_type"], all["health_check_url"] = backendDefaults["health_check_type"], backendDefaults["health_check_url"]
	}
	return all
}

func (d *differ) properties(asked, defaults, have cloud.Properties, note func(string) string) cloud.Properties {
	all := cloud.Properties{}
	for _, from := range []cloud.Properties{apiDefaults, defaults} {
		for name, value := range from {
			if _, there := have[name]; there && d.stale(note(name)) {
				all[name] = value
			}
		}
	}
	maps.Copy(all, asked)
	return all
}

// BackendChanges returns the calls that bring the members of the backends that exist up to date, and nothing else: one call
// for each backend, and none for those that are.
func BackendChanges(desired Desired, lb *cloud.LoadBalancer, sessions SessionLimits) []Change {
	backends := backendsByName(lb)
	var changes []Change
	for _, want := range desired.Backends {
		have, ok := backends[want.Name]
		if !ok {
			continue
		}
		if all, changed := want.MembersOf(have.Members, sessions); changed {
			changes = append(changes, Change{Name: want.Name, ModifyBackend: &cloud.BackendPatch{Members: all}})
		}
	}
	return changes
}

// NewMembers says whether any member of this load balancer will be new, so that its plan must be known.
func NewMembers(desired Desired, lb *cloud.LoadBalancer) bool {
	backends := backendsByName(lb)
	for _, backend := range desired.Backends {
		if backend.Members != nil || backend.MaxSessions != nil {
			continue
		}
		known := map[string]bool{}
		for _, member := range backends[backend.Name].Members {
			known[member.Name] = true
		}
		for _, target := range backend.Targets {
			if !known[target.Name] {
				return true
			}
		}
	}
	return false
}

// staleBackends deletes the backends of ports that are gone. One that somebody's own frontend or rule leads to is left.
func (d *differ) staleBackends() (changes []Change, left []string) {
	for _, backend := range d.lb.Backends {
		if !d.staleBackend(backend.Name) {
			continue
		}
		if d.usedByOthers(backend.Name) {
			left = append(left, backend.Name)
			continue
		}
		changes = append(changes, Change{Name: backend.Name, DeleteBackend: true})
	}
	return changes, left
}

// usedByOthers says whether anything that stays, and is not the Service's, leads to a backend.
func (d *differ) usedByOthers(backend string) bool {
	wanted := map[string]bool{}
	for _, frontend := range d.desired.Frontends {
		wanted[frontend.Name] = true
	}
	for _, frontend := range d.lb.Frontends {
		if d.staleFrontend(frontend.Name) {
			continue
		}
		if frontend.DefaultBackend == backend && !wanted[frontend.Name] {
			return true
		}
		for _, rule := range frontend.Rules {
			ours := d.ours.Has(noteRule(frontend.Name, rule.Name))
			if !ours && slices.ContainsFunc(rule.Actions, func(action json.RawMessage) bool { return backendOf(action) == backend }) {
				return true
			}
		}
	}
	return false
}

// backendOf is the backend that an action leads to.
func backendOf(action json.RawMessage) string {
	var read struct {
		Use struct{ Backend string } `json:"action_use_backend"`
	}
	_ = json.Unmarshal(action, &read)
	return read.Use.Backend
}

func backendsByName(lb *cloud.LoadBalancer) map[string]cloud.Backend {
	byName := map[string]cloud.Backend{}
	for _, backend := range lb.Backends {
		byName[backend.Name] = backend
	}
	return byName
}

// asJSON is a value as it comes out of JSON.
func asJSON(value any) any {
	text, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	return decoded(text)
}
