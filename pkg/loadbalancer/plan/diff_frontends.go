package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// frontends deletes, modifies and makes frontends, in this order.
func (d *differ) frontends() []Change {
	var deleted, modified, created []Change
	there := map[string]bool{}
	for _, have := range d.lb.Frontends {
		want, wanted := d.desired.frontend(have.Name)
		switch {
		case d.staleFrontend(have.Name):
			deleted = append(deleted, Change{Name: have.Name, DeleteFrontend: true})
		case !wanted: // somebody else's
		case d.mustMakeAnew(want, have):
			anew := d.over(want, have)
			deleted = append(deleted, Change{Name: have.Name, DeleteFrontend: true})
			created = append(created, Change{Name: have.Name, CreateFrontend: &anew})
		default:
			modified = append(modified, d.frontend(want, have)...)
		}
		there[have.Name] = true
	}
	for _, want := range d.desired.Frontends {
		if !there[want.Name] && want.hasCertificates() {
			frontend := want.create()
			created = append(created, Change{Name: want.Name, CreateFrontend: &frontend})
		}
	}
	return slices.Concat(deleted, modified, created)
}

// mustMakeAnew says whether a frontend has to be deleted and made anew because its port shall be one that another of ours
// has now, and gives up as well (two ports that change places). Two frontends on one port are refused by the API.
func (d *differ) mustMakeAnew(want Frontend, have cloud.Frontend) bool {
	if want.Port == have.Port {
		return false
	}
	for _, other := range d.lb.Frontends {
		otherWant, wanted := d.desired.frontend(other.Name)
		if other.Name != have.Name && wanted && otherWant.Port != other.Port &&
			(other.Port == want.Port || otherWant.Port == have.Port) {
			return true
		}
	}
	return false
}

func (d Desired) hasBackend(name string) bool {
	return slices.ContainsFunc(d.Backends, func(b Backend) bool { return b.Name == name })
}

func (d Desired) frontend(name string) (Frontend, bool) {
	for _, frontend := range d.Frontends {
		if frontend.Name == name {
			return frontend, true
		}
	}
	return Frontend{}, false
}

// passesThrough says whether a certificate has to go because connections are to be passed on as they are: mode tcp was asked for, and the
// certificate is the one that UpCloud's own CCM adds to port 443 in mode http. With it members would get plain text.
func (d *differ) passesThrough(want Frontend, config cloud.TLSConfig) bool {
	identity := d.desired.Identity
	return want.Mode == "tcp" && config.Name == OwnBundleName(cmp.Or(identity.Generated, identity.Name)) &&
		!slices.ContainsFunc(want.TLS, func(t cloud.TLSConfig) bool { return t.Name == config.Name })
}

// frontend brings one frontend up to date. Rules of mode http go before the mode does, and come after it.
func (d *differ) frontend(want Frontend, have cloud.Frontend) []Change {
	certificates, withoutCertificates := d.tls(cloud.TLSOwner{Frontend: want.Name}, want.TLS, have.TLSConfigs)
	for _, config := range have.TLSConfigs {
		if change := (Change{Name: config.Name, Owner: cloud.TLSOwner{Frontend: want.Name}, DeleteTLS: true}); d.passesThrough(want, config) &&
			!slices.Contains(withoutCertificates, change) {
			withoutCertificates = append(withoutCertificates, change)
		}
	}
	createdRules, replacedRules, deletedRules := d.rules(want, have)
	changes := certificates
	patch := d.frontendPatch(want, have)
	if patch.Mode == "tcp" {
		changes = slices.Concat(changes, deletedRules, replacedRules)
		deletedRules, replacedRules = nil, nil
	}
	if patch.Mode != "" || patch.Port != 0 || patch.DefaultBackend != "" || patch.Networks != nil || patch.Properties != nil {
		changes = append(changes, Change{Name: want.Name, ModifyFrontend: &patch})
	}
	return slices.Concat(changes, createdRules, replacedRules, deletedRules, withoutCertificates)
}

func (d *differ) frontendPatch(want Frontend, have cloud.Frontend) cloud.FrontendPatch {
	var patch cloud.FrontendPatch
	after := d.over(want, have)
	if after.Mode != have.Mode {
		patch.Mode = after.Mode
	}
	if after.Port != have.Port {
		patch.Port = after.Port
	}
	if after.DefaultBackend != have.DefaultBackend {
		patch.DefaultBackend = after.DefaultBackend
	}
	if !sameNetworks(after.Networks, have.Networks) {
		patch.Networks = after.Networks
	}
	if properties, changed := have.Properties.With(d.frontendProperties(want, have)); changed {
		patch.Properties = properties
	}
	return patch
}

func sameNetworks(a, b []cloud.FrontendNetwork) bool {
	names := func(all []cloud.FrontendNetwork) map[string]bool {
		set := map[string]bool{}
		for _, network := range all {
			set[network.Name] = true
		}
		return set
	}
	return maps.Equal(names(a), names(b))
}

func (d *differ) frontendProperties(want Frontend, have cloud.Frontend) cloud.Properties {
	asked := want.Asked
	if len(want.awaits) > 0 && len(want.TLS)+len(have.TLSConfigs) == 0 { // it takes a certificate
		asked = maps.Clone(asked)
		delete(asked, "http2_enabled")
	}
	return d.properties(asked, frontendDefaults, have.Properties, func(name string) string { return noteFrontend(want.Name, name) })
}

// over is the frontend as it shall be, all that was not asked for as it is.
func (d *differ) over(want Frontend, have cloud.Frontend) cloud.Frontend {
	after := have
	after.Port, after.DefaultBackend = want.Port, want.Backend
	switch {
	case want.Mode != "":
		after.Mode = want.Mode
	case d.stale(noteFrontend(want.Name, "mode")):
		after.Mode = want.defaultMode
	}
	switch {
	case len(want.Networks) > 0:
		after.Networks = networksNamed(want.Networks)
	case d.stale(noteFrontend(want.Name, "networks")):
		after.Networks = networksNamed(want.defaultNetworks)
	}
	after.Properties, _ = have.Properties.With(d.frontendProperties(want, have))
	after.Rules, after.TLSConfigs = slices.Clone(want.Rules), slices.Clone(want.TLS)
	for _, rule := range have.Rules {
		if !d.ours.Has(noteRule(want.Name, rule.Name)) && !hasRule(want.Rules, rule.Name) {
			after.Rules = append(after.Rules, rule)
		}
	}
	for _, config := range have.TLSConfigs {
		ours := d.ours.Has(NoteTLS(cloud.TLSOwner{Frontend: want.Name}, config.Name)) && !want.keeps(config.Name)
		if !ours && !d.passesThrough(want, config) && !slices.ContainsFunc(want.TLS, func(t cloud.TLSConfig) bool { return t.Name == config.Name }) {
			after.TLSConfigs = append(after.TLSConfigs, config)
		}
	}
	return after
}

func hasRule(rules []cloud.Rule, name string) bool {
	return slices.ContainsFunc(rules, func(r cloud.Rule) bool { return r.Name == name })
}

// rules makes the rules that are asked for, and deletes those that were. Somebody else's are not looked at.
func (d *differ) rules(want Frontend, have cloud.Frontend) (created, replaced, deleted []Change) {
	owner := cloud.TLSOwner{Frontend: want.Name}
	for _, rule := range want.Rules {
		i := slices.IndexFunc(have.Rules, func(r cloud.Rule) bool { return r.Name == rule.Name })
		note := noteRule(want.Name, rule.Name)
		switch {
		case i < 0:
			created = append(created, Change{Name: rule.Name, Owner: owner, CreateRule: &rule})
		case d.noted && !d.ours.Has(note): // somebody else's: see Foreign
		case !sameRule(rule, have.Rules[i]), d.noted && !d.ours.Has(content(note, rule)):
			replaced = append(replaced, Change{Name: rule.Name, Owner: owner, ReplaceRule: &rule})
		}
	}
	for _, rule := range have.Rules {
		if d.stale(noteRule(want.Name, rule.Name)) {
			deleted = append(deleted, Change{Name: rule.Name, Owner: owner, DeleteRule: true})
		}
	}
	return created, replaced, deleted
}

// tls sets the certificates that are asked for, and takes away those that were. A certificate whose bundle is the same gets
// its new name: that is what becomes of one whose Secret has changed.
func (d *differ) tls(owner cloud.TLSOwner, want, have []cloud.TLSConfig) (set, removed []Change) {
	renamed := map[string]bool{}
	for _, config := range want {
		if config.BundleID == "" {
			continue // it is not there yet
		}
		i := slices.IndexFunc(have, func(t cloud.TLSConfig) bool { return t.Name == config.Name })
		if i >= 0 {
			if have[i].BundleID != config.BundleID {
				set = append(set, Change{Name: config.Name, Owner: owner, ModifyTLS: &config})
			}
			continue
		}
		old := slices.IndexFunc(have, func(t cloud.TLSConfig) bool {
			return t.BundleID == config.BundleID && d.stale(NoteTLS(owner, t.Name)) && !renamed[t.Name]
		})
		if old >= 0 {
			renamed[have[old].Name] = true
			set = append(set, Change{Name: have[old].Name, Owner: owner, ModifyTLS: &config})
			continue
		}
		set = append(set, Change{Name: config.Name, Owner: owner, CreateTLS: &config})
	}
	for _, config := range have {
		if !d.stale(NoteTLS(owner, config.Name)) || renamed[config.Name] {
			continue
		}
		if frontend, _ := d.desired.frontend(owner.Frontend); d.desired.Awaited[owner.Frontend] || frontend.keeps(config.Name) {
			d.kept = append(d.kept, NoteTLS(owner, config.Name))
		} else {
			removed = append(removed, Change{Name: config.Name, Owner: owner, DeleteTLS: true})
		}
	}
	return set, removed
}
