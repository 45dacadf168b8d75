package loadbalancer

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// sharedDesired is what a Service wants of a load balancer that it shares. Every component of it has one writer.
type sharedDesired struct {
	key       string // of the Service
	backends  []Backend
	frontends []Frontend // of the Service's own: claims on ports
	hubs      []hub
}

// hub is a frontend that routes are added to, and what the Service wants there.
type hub struct {
	name     string
	port     int
	foreign  bool // made by somebody else, and named in an annotation
	networks []string
	backend  string
	routes   []routeRules
	tls      []cloud.TLSConfig
}

type routeRules struct {
	route Route
	rules []cloud.Rule // the first is the claim
}

// sharedState says what a Service wants. It is a pure function. Backends that there are keep their names: those end in names of
// the cluster and the like, which may change.
func sharedState(in Input, lb *cloud.LoadBalancer) sharedDesired {
	settings := *in.Settings
	settings.Ports = slices.Clone(settings.Ports)
	backendNames := ownBackends(lb, in.Identity.serviceKey())
	for i, port := range in.Service.Spec.Ports {
		s := &settings.Ports[i]
		s.Name, s.FrontendName = backendNames[int(port.Port)], portFrontendName(int(port.Port))
		if s.Name == "" {
			s.Name = in.Identity.sharedBackendName(in.Service, int(port.Port))
		}
	}
	in.Settings = &settings
	full := DesiredState(in)
	desired := sharedDesired{key: in.Identity.serviceKey(), backends: full.Backends}
	for i := range desired.backends {
		desired.backends[i].Asked = completed(apiBackendDefaults(), backendDefaults, desired.backends[i].Asked)
	}
	if len(settings.Routes) > 0 {
		desired.hubs = in.hubs(full)
		return desired
	}
	for _, frontend := range full.Frontends {
		frontend.Asked = completed(apiFrontendDefaults(), frontendDefaults, frontend.Asked)
		frontend.TLS = sharedTLS(in.Identity, frontend.TLS)
		desired.frontends = append(desired.frontends, frontend)
	}
	return desired
}

// ownBackends are the Service's backends that there are, by port.
func ownBackends(lb *cloud.LoadBalancer, key string) map[int]string {
	names := map[int]string{}
	for _, backend := range lb.Backends {
		if keyOf(backend.Name) == key {
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

func apiFrontendDefaults() cloud.Properties { return only(apiDefaults, frontendProperties) }
func apiBackendDefaults() cloud.Properties  { return only(apiDefaults, backendProperties) }

func only(properties cloud.Properties, known map[string]shape) cloud.Properties {
	out := cloud.Properties{}
	for name, value := range properties {
		if _, ok := known[name]; ok {
			out[name] = value
		}
	}
	return out
}

// sharedTLS gives TLS configurations names that say whose they are.
func sharedTLS(identity Identity, all []cloud.TLSConfig) []cloud.TLSConfig {
	var named []cloud.TLSConfig
	for _, config := range all {
		config.Name = identity.sharedTLSName(config.Name)
		named = append(named, config)
	}
	return named
}

// hubs are what the Service's routes want of the frontends that they are added to.
func (in Input) hubs(full Desired) []hub {
	ranges, _ := sourceRanges(in.Service) // mistakes in them are told of before
	var all []hub
	for i, port := range in.Service.Spec.Ports {
		settings := &in.Settings.Ports[i]
		h := hub{name: settings.Hub, port: int(port.Port), foreign: settings.Hub != "", backend: settings.Name}
		if !h.foreign {
			h.name = portFrontendName(h.port)
		}
		if frontend, ok := full.frontend(settings.FrontendName); ok {
			h.tls, h.networks = sharedTLS(in.Identity, frontend.TLS), frontend.defaultNetworks
		}
		for _, route := range in.Settings.Routes {
			if !routeHasPort(route, port) {
				continue
			}
			h.routes = append(h.routes, routeRules{route, route.rules(h.backend, ranges, h.before(settings))})
		}
		if len(h.routes) > 0 {
			all = append(all, h)
		}
	}
	return all
}

// before are the actions that come before a route's own.
func (h hub) before(settings *PortSettings) []json.RawMessage {
	var all []json.RawMessage
	if settings.Redirect {
		all = append(all, action("http_redirect", map[string]any{"scheme": "https", "status": 301}))
	}
	if settings.Forwarded {
		all = append(all, action("set_forwarded_headers", nil))
	}
	return all
}

// create is a new hub.
func (h hub) create() cloud.Frontend {
	return cloud.Frontend{
		Name: h.name, Mode: "http", Port: h.port, DefaultBackend: noneBackend, Networks: networksNamed(h.networks),
		Properties: maps.Clone(frontendDefaults),
	}
}

// newNone is the default backend of hubs.
func newNone() *cloud.Backend { return &cloud.Backend{Name: noneBackend, Members: []cloud.Member{}} }
