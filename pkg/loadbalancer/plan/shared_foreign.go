package plan

import (
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// openForeign says whether routes can be added to a frontend that was made by others, and notes what is wrong with it. Its owner may be
// about to replace or to change it: what the Service has stays meanwhile.
func (d *shareDiffer) openForeign(want hub, have cloud.Frontend, there bool) bool {
	switch {
	case !there:
		d.conflict("NoSuchFrontend", "annotation %s%s=%s: load balancer %s (%s) has no such frontend: name one that it has. What the Service has "+
			"on the load balancer stays until then", settings.AnnotationPrefix, settings.HubFrontendName, want.name, d.lb.ID, d.lb.Name)
	case FrontendOwner(have) != "":
		d.conflict("PortConflict", "annotation %s%s=%s: port %d of load balancer %s (%s) belongs as a whole to %s, and takes no routes: name a frontend that "+
			"was not made for a Service, or choose another port", settings.AnnotationPrefix, settings.HubFrontendName, want.name, have.Port, d.lb.ID, d.lb.Name,
			OwnerOf(have.DefaultBackend))
		return false // what was added to it before goes
	case have.Mode != "http":
		d.conflict("NoSuchFrontend", "annotation %s%s=%s: that frontend of load balancer %s (%s) has mode %s, and routes need mode http: name "+
			"another one, or give it back its mode. What the Service has on the load balancer stays until then", settings.AnnotationPrefix,
			settings.HubFrontendName, want.name, d.lb.ID, d.lb.Name, have.Mode)
	case have.Port != want.port && d.hasOwn(have):
		d.conflict("FrontendPortChanged", "frontend %s of load balancer %s (%s) listens on port %d, and the Service's port is %d: its routes stay on that "+
			"frontend and are served on port %[4]d; give the Service that port, or the frontend port %[5]d", want.name, d.lb.ID, d.lb.Name, have.Port, want.port)
		return true
	case have.Port != want.port:
		d.conflict("NoSuchFrontend", "annotation %s%s=%s: that frontend of load balancer %s (%s) has port %d, and routes of the Service's port %d need "+
			"that port: name another one, or give the Service the frontend's port", settings.AnnotationPrefix, settings.HubFrontendName, want.name,
			d.lb.ID, d.lb.Name, have.Port, want.port)
	default:
		return true
	}
	d.keep(want.backend)
	return false
}

// hasOwn says whether a frontend has a rule or a certificate of the Service.
func (d *shareDiffer) hasOwn(frontend cloud.Frontend) bool {
	return slices.ContainsFunc(frontend.Rules, d.isOwnRule) || slices.ContainsFunc(frontend.TLSConfigs, d.isOwnTLS)
}

func (d *shareDiffer) isOwnRule(rule cloud.Rule) bool {
	key, _ := RuleOwner(rule)
	return d.want.Key.Is(key)
}

func (d *shareDiffer) isOwnTLS(config cloud.TLSConfig) bool {
	return d.want.Key.Is(OwnerKey(config.Name))
}

// keep has the Service's backend stay, and its rules that lead there, with the certificates beside them.
func (d *shareDiffer) keep(backend string) {
	if slices.ContainsFunc(d.lb.Backends, func(b cloud.Backend) bool { return b.Name == backend }) {
		d.used[backend] = true
	}
	for _, frontend := range d.lb.Frontends {
		if FrontendOwner(frontend) != "" {
			continue // of a port as a whole
		}
		kept := false
		for _, rule := range frontend.Rules {
			if _, to := RuleOwner(rule); d.isOwnRule(rule) && to == backend {
				d.wantedRules[frontend.Name+"/"+rule.Name], kept = true, true
			}
		}
		for _, config := range frontend.TLSConfigs {
			if kept && d.isOwnTLS(config) {
				d.wantedTLS[frontend.Name+"/"+config.Name] = true
			}
		}
	}
}
