package plan

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// SharedDesired is what a Service wants of a load balancer that it shares. Every component of it has one writer.
type SharedDesired struct {
	Key       Key // of the Service
	Backends  []Backend
	Frontends []Frontend // of the Service's own: claims on ports
	Hubs      []hub
}

// hub is a frontend that routes are added to, and what the Service wants there.
type hub struct {
	name     string
	port     int
	foreign  bool // made by somebody else, and named in an annotation
	networks []string
	backend  string
	routes   []routeRules
	TLS      []cloud.TLSConfig
	awaits   []string // see Frontend
}

type routeRules struct {
	route settings.Route
	rules []cloud.Rule // the first is the claim
}

// SharedState says what a Service wants. It is a pure function. Backends that there are keep their names: those end in names of
// the cluster and the like, which may change.
func SharedState(in Input, lb *cloud.LoadBalancer) SharedDesired {
	asked := *in.Settings
	asked.Ports = slices.Clone(asked.Ports)
	backendNames := ownBackends(lb, in.Identity.Key())
	for i, port := range in.Service.Spec.Ports {
		s := &asked.Ports[i]
		s.Name, s.FrontendName = backendNames[int(port.Port)], portFrontendName(int(port.Port))
		if s.Name == "" {
			s.Name = in.Identity.SharedBackendName(in.Service, int(port.Port))
		}
	}
	in.Settings = &asked
	full := DesiredState(in)
	if full.httpsIsClosed(lb.Frontends) {
		for i := range asked.Ports {
			asked.Ports[i].Redirect = false
		}
		full = DesiredState(in)
	}
	desired := SharedDesired{Key: in.Identity.Key(), Backends: full.Backends}
	for i := range desired.Backends {
		desired.Backends[i].Asked = completed(apiBackendDefaults(), backendDefaults, desired.Backends[i].Asked)
	}
	if len(asked.Routes) > 0 {
		desired.Hubs = in.hubs(full)
		return desired
	}
	for _, frontend := range full.Frontends {
		frontend.Asked = completed(apiFrontendDefaults(), frontendDefaults, frontend.Asked)
		if len(frontend.awaits) > 0 && len(frontend.TLS) == 0 && !presentsTLS(lb, frontend.Name) {
			frontend.Asked["http2_enabled"] = false // it takes a certificate
		}
		frontend.TLS = sharedTLS(in.Identity, frontend.TLS)
		desired.Frontends = append(desired.Frontends, frontend)
	}
	return desired
}

// presentsTLS says whether a frontend has a certificate.
func presentsTLS(lb *cloud.LoadBalancer, frontend string) bool {
	return slices.ContainsFunc(lb.Frontends, func(f cloud.Frontend) bool { return f.Name == frontend && len(f.TLSConfigs) > 0 })
}

// ownBackends are the Service's backends that there are, by port.
func ownBackends(lb *cloud.LoadBalancer, key Key) map[int]string {
	names := map[int]string{}
	for _, backend := range lb.Backends {
		if key.Is(OwnerKey(backend.Name)) {
			names[portOf(backend.Name)] = backend.Name
		}
	}
	return names
}

// completed are all properties of a component that is the Service's alone: those not asked for have their defaults.
func completed(all ...cloud.Properties) cloud.Properties {
	out := cloud.Properties{}
	for _, one := range all {
		maps.Copy(out, one)
	}
	return out
}

func apiFrontendDefaults() cloud.Properties { return only(apiDefaults, settings.IsFrontendProperty) }
func apiBackendDefaults() cloud.Properties  { return only(apiDefaults, settings.IsBackendProperty) }

func only(properties cloud.Properties, known func(string) bool) cloud.Properties {
	out := cloud.Properties{}
	for name, value := range properties {
		if known(name) {
			out[name] = value
		}
	}
	return out
}

// sharedTLS gives TLS configurations names that say whose they are.
func sharedTLS(identity Identity, all []cloud.TLSConfig) []cloud.TLSConfig {
	var named []cloud.TLSConfig
	for _, config := range all {
		config.Name = identity.SharedTLSName(config.Name)
		named = append(named, config)
	}
	return named
}

// hubs are what the Service's routes want of the frontends that they are added to.
func (in Input) hubs(full Desired) []hub {
	ranges, _ := settings.SourceRanges(in.Service) // Problems tells of mistakes in them
	var all []hub
	for i, port := range in.Service.Spec.Ports {
		asked := &in.Settings.Ports[i]
		h := hub{name: asked.Hub, port: int(port.Port), foreign: asked.Hub != "", backend: asked.Name}
		if !h.foreign {
			h.name = portFrontendName(h.port)
		}
		if frontend, ok := full.frontend(asked.FrontendName); ok {
			h.TLS, h.networks, h.awaits = sharedTLS(in.Identity, frontend.TLS), frontend.defaultNetworks, frontend.awaits
		}
		for _, route := range in.Settings.Routes {
			if !settings.RouteHasPort(route, port) || !settings.IsTCP(port) {
				continue
			}
			h.routes = append(h.routes, routeRules{route, RulesOf(route, h.backend, ranges, h.before(asked))})
		}
		if len(h.routes) > 0 {
			all = append(all, h)
		}
	}
	return all
}

// before are the actions that come before a route's own.
func (h hub) before(asked *settings.PortSettings) []json.RawMessage {
	var all []json.RawMessage
	if asked.Redirect {
		all = append(all, action("http_redirect", map[string]any{"scheme": "https", "status": 301}))
	}
	if asked.Forwarded {
		all = append(all, action(setForwarded, nil))
	}
	return all
}

// create is a new hub.
func (h hub) create() cloud.Frontend {
	return cloud.Frontend{
		Name: h.name, Mode: "http", Port: h.port, DefaultBackend: NoneBackend, Networks: networksNamed(h.networks),
		Properties: maps.Clone(frontendDefaults),
	}
}

// newNone is the default backend of hubs.
func newNone() *cloud.Backend { return &cloud.Backend{Name: NoneBackend, Members: []cloud.Member{}} }
