package plan

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Names of the networks that load balancers are attached to, as UpCloud's own CCM has them.
const (
	networkPublic  = "public-IPv4"
	networkPrivate = "private-IPv4"
)

// Timeouts and health checks of new frontends and backends. UpCloud's defaults, and those of UpCloud's own CCM, are made for
// short HTTP requests: a quiet TCP connection ends after ten seconds, and a dead node gets traffic for thirty.
var (
	frontendDefaults = cloud.Properties{
		"timeout_client": 60, // seconds a client may be silent before it is connected through
	}
	backendDefaults = cloud.Properties{
		"timeout_server":        60,   // the same of a member
		"timeout_tunnel":        3600, // seconds without a byte either way on an established connection
		"health_check_interval": 3,    // seconds
		"health_check_fall":     2,    // failures until a member gets no more connections
		"health_check_rise":     2,    // successes until it gets them again
		"health_check_type":     "tcp",
		"health_check_url":      "/",
	}
	// apiDefaults are the API's, where they are not ours. A property that is no longer asked for goes back to them.
	apiDefaults = cloud.Properties{
		"inbound_proxy_protocol": false, "http2_enabled": false,
		"health_check_expected_status": 200, "health_check_tls_verify": false, "health_check_on_down": "",
		"outbound_proxy_protocol": "", "sticky_session_cookie_name": "", "sticky_session_cookie_attributes": "",
		"tls_enabled": false, "tls_verify": false, "tls_use_system_ca": false,
	}
)

// Desired is what a Service wants of a load balancer. It knows nothing of the load balancer that there is, but for its
// networks.
type Desired struct {
	Identity   Identity
	Labels     cloud.Labels            // the controller's own, but for its notes
	MoreLabels cloud.Labels            // asked for by the Service
	Load       cloud.LoadBalancerPatch // what is empty was not asked for
	Frontends  []Frontend              // ordered by name
	Backends   []Backend               // ordered by name
	Resolvers  []cloud.Resolver
	Addresses  []cloud.FloatingAddress
	Bundles    []string // names of the certificate bundles made for the Service

	awaitedBundles []string // those whose Secrets cannot be used yet: they may be there from before

	DefaultPlan string
	// awaited names frontends that have asked for a certificate which UpCloud has not issued yet: they keep those that they have.
	Awaited map[string]bool
}

// Frontend is a frontend of the Service's own. A field with a doubled form is enforced if it was asked for, and only a
// default of new frontends if not: what somebody tuned by hand stays tuned, and a load balancer taken over from
// UpCloud's own CCM stays http if it was.
type Frontend struct {
	Name     string
	Port     int
	Backend  string
	Mode     string           // asked for; empty: not
	Networks []string         // asked for; nil: not
	Asked    cloud.Properties // properties asked for
	Rules    []cloud.Rule
	TLS      []cloud.TLSConfig
	// awaits names the Secrets of certificates that cannot be had yet. What the frontend presents of them stays; a new frontend is made once
	// it has one certificate.
	awaits []string

	defaultMode     string
	defaultNetworks []string
}

// Backend is a backend of the Service's own.
type Backend struct {
	Name        string
	Targets     []Target
	NodePort    int
	Pods        bool           // the targets are Pods
	Members     []cloud.Member // asked for; nil: the targets
	MaxSessions *int           // asked for
	Resolver    string         // asked for
	Asked       cloud.Properties
	TLS         []cloud.TLSConfig
}

// Input is what a Desired state follows from.
type Input struct {
	Identity Identity
	Service  *v1.Service
	Settings *settings.Settings
	Targets  []Target
	// Pods that are ready, by the name of a port that has no node port, where Pods may be members.
	Pods map[string][]Target
	// Serving are the names of the nodes that have a ready endpoint, where only those serve; nil: it is not known, or makes no difference.
	Serving map[string]bool
	// MaxMembers bounds the members of a backend, unless the Service does.
	MaxMembers int
	// DefaultMode of new frontends; empty: tcp.
	DefaultMode string
	DefaultPlan string
	Networks    []cloud.LoadBalancerNetwork // that the load balancer has, or will
	// Fingerprints of the Secrets whose certificates are uploaded, by name. One that is not there is not known yet.
	Fingerprints map[string]string

	ranges []netip.Prefix // source ranges
}

// DesiredState says what a Service wants. It is a pure function. Ports with a Problem are left out, so that members can be kept
// up to date while a Service waits to be corrected.
func DesiredState(in Input) Desired {
	most := cmp.Or(in.Settings.MaxMembers, in.MaxMembers)
	desired := Desired{
		Identity: in.Identity, Labels: in.Identity.labels(in.Service), MoreLabels: in.Settings.Labels, Load: in.Settings.Load,
		Resolvers: in.Settings.Resolvers, Addresses: in.addresses(), DefaultPlan: in.DefaultPlan,
		Awaited: map[string]bool{},
	}
	in.ranges, _ = settings.SourceRanges(in.Service) // Problems tells of mistakes in them
	for i := range in.Targets {
		in.Targets[i].Serves = in.Serving[in.Targets[i].Name]
	}
	targets := Limit(in.Targets, most, in.Identity.ServiceUID)
	for i, port := range in.Service.Spec.Ports {
		pods, byPods := in.Pods[port.Name]
		if !settings.IsTCP(port) || port.NodePort == 0 && !byPods || !settings.ValidName(settings.PortName(port)) {
			continue
		}
		asked := &in.Settings.Ports[i]
		desired.Frontends = append(desired.Frontends, in.frontend(asked))
		if byPods {
			desired.Backends = append(desired.Backends, in.backend(asked, Limit(pods, most, in.Identity.ServiceUID), 0))
		} else {
			desired.Backends = append(desired.Backends, in.backend(asked, targets, int(port.NodePort)))
		}
	}
	for i := range in.Settings.MoreFrontends {
		desired.Frontends = append(desired.Frontends, in.frontend(&in.Settings.MoreFrontends[i]))
	}
	for _, backend := range in.Settings.MoreBackends {
		desired.Backends = append(desired.Backends, Backend{
			Name: backend.Name, Members: slices.Concat([]cloud.Member{}, backend.Members), Resolver: backend.Resolver,
			Asked: backend.Properties, TLS: backend.TLSConfigs,
		})
	}
	slices.SortFunc(desired.Frontends, func(a, b Frontend) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(desired.Backends, func(a, b Backend) int { return strings.Compare(a.Name, b.Name) })
	desired.Bundles, desired.awaitedBundles = BundleNames(in.Settings, in.Identity), in.awaitedBundles()
	return desired
}

// addresses are the floating IP addresses, each with a public network that it leads to.
func (in Input) addresses() []cloud.FloatingAddress {
	all := slices.Clone(in.Settings.Addresses)
	if ip := in.Service.Spec.LoadBalancerIP; ip != "" && len(all) == 0 {
		all = []cloud.FloatingAddress{{Address: ip}}
	}
	for i := range all {
		if all[i].Network == "" {
			all[i].Network = firstPublic(in.Networks)
		}
	}
	return all
}

func firstPublic(networks []cloud.LoadBalancerNetwork) string {
	for _, network := range networks {
		if network.Type == "public" {
			return network.Name
		}
	}
	return ""
}

func (in Input) frontend(s *settings.PortSettings) Frontend {
	frontend := Frontend{
		Name: s.FrontendName, Port: s.ListenPort(), Backend: cmp.Or(s.DefaultBackend, s.Name), Mode: s.Mode, Networks: s.Networks,
		Asked: s.Frontend, defaultMode: cmp.Or(in.DefaultMode, "tcp"),
	}
	for _, network := range in.Networks {
		frontend.defaultNetworks = append(frontend.defaultNetworks, network.Name)
	}
	if len(frontend.Networks) == 0 && in.Settings.Visibility != "" {
		frontend.Networks = Visible(in.Networks, in.Settings.Visibility)
	}
	for _, certificate := range s.Certificates {
		if certificate.Secret != "" && in.Fingerprints[certificate.Secret] == "" {
			frontend.awaits = append(frontend.awaits, certificate.Secret)
			continue
		}
		frontend.TLS = append(frontend.TLS, TLSConfig(certificate, in.Identity, in.Fingerprints))
	}
	frontend.Rules = RulesOfPort(in.ranges, s, frontend.Backend)
	return frontend
}

// Visible are the networks that a visibility means.
func Visible(networks []cloud.LoadBalancerNetwork, visibility string) []string {
	var names []string
	for _, network := range networks {
		if visibility == settings.VisibilityBoth || visibility == network.Type {
			names = append(names, network.Name)
		}
	}
	return names
}

// backend leads to nodes, or without a node port to Pods, whose own port is checked.
func (in Input) backend(s *settings.PortSettings, targets []Target, nodePort int) Backend {
	asked := cloud.Properties{}
	if nodePort > 0 && in.Service.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal && in.Service.Spec.HealthCheckNodePort > 0 {
		_, url := s.Backend["health_check_url"]
		_, kind := s.Backend["health_check_type"]
		if !url && !kind {
			asked["health_check_type"] = "http"
			asked["health_check_url"] = fmt.Sprintf("%s%d", settings.LocalHealthCheckPrefix, in.Service.Spec.HealthCheckNodePort)
			asked["health_check_expected_status"] = 200
		}
	}
	maps.Copy(asked, s.Backend)
	return Backend{
		Name: s.Name, Targets: targets, NodePort: nodePort, Pods: nodePort == 0, Members: s.Members, MaxSessions: s.MaxSessions, Resolver: s.Resolver,
		Asked: asked, TLS: s.BackendTLS,
	}
}

// Create returns the load balancer to be made. sessions is the most that a member may have at one time. Frontends whose
// certificates are not there yet are left out: they are made when the load balancer has a name.
func (d Desired) Create(place Placement, plan string, sessions int) cloud.LoadBalancer {
	d = d.answering(nil).notingBundles(nil)
	lb := cloud.LoadBalancer{
		Name: cmp.Or(d.Load.Name, d.Identity.Name), Zone: place.Zone, Plan: plan, Networks: place.Networks, Addresses: d.Addresses,
		ConfiguredStatus: cmp.Or(d.Load.ConfiguredStatus, "started"),
		MaintenanceDay:   d.Load.MaintenanceDay, MaintenanceTime: d.Load.MaintenanceTime,
		Labels: cloud.Labels{}, Resolvers: slices.Concat([]cloud.Resolver{}, d.Resolvers),
		Frontends: []cloud.Frontend{}, Backends: []cloud.Backend{},
	}
	maps.Copy(lb.Labels, d.MoreLabels)
	maps.Copy(lb.Labels, d.Labels)
	maps.Copy(lb.Labels, (notes{}).with(d.notes()).with(d.contents()).labels(settings.LabelComponents))
	maps.Copy(lb.Labels, bundleNotes(d).labels(LabelBundles))
	for _, backend := range d.Backends {
		lb.Backends = append(lb.Backends, backend.create(sessions))
	}
	for _, frontend := range d.Frontends {
		if frontend.hasCertificates() {
			lb.Frontends = append(lb.Frontends, frontend.create())
		}
	}
	return lb
}

func (f Frontend) hasCertificates() bool {
	return (len(f.awaits) == 0 || len(f.TLS) > 0) && !slices.ContainsFunc(f.TLS, func(t cloud.TLSConfig) bool { return t.BundleID == "" })
}

// create is a new frontend.
func (f Frontend) create() cloud.Frontend {
	frontend := cloud.Frontend{
		Name: f.Name, Mode: cmp.Or(f.Mode, f.defaultMode), Port: f.Port, DefaultBackend: f.Backend,
		Properties: overlaid(frontendDefaults, f.Asked), Rules: f.Rules, TLSConfigs: f.TLS,
	}
	networks := f.Networks
	if len(networks) == 0 {
		networks = f.defaultNetworks
	}
	frontend.Networks = networksNamed(networks)
	return frontend
}

func networksNamed(names []string) []cloud.FrontendNetwork {
	var all []cloud.FrontendNetwork
	for _, name := range names {
		all = append(all, cloud.FrontendNetwork{Name: name})
	}
	return all
}

// create is a new backend.
func (b Backend) create(sessions int) cloud.Backend {
	backend := cloud.Backend{
		Name: b.Name, Members: []cloud.Member{}, Resolver: b.Resolver, Properties: overlaid(backendDefaults, b.Asked), TLSConfigs: b.TLS,
	}
	if all, changed := b.MembersOf(nil, SessionLimits{Fresh: sessions}); changed {
		backend.Members = all
	}
	return backend
}

// overlaid are the properties of a new component: defaults, and what was asked for. What the API has as its default anyway is
// left out.
func overlaid(defaults, asked cloud.Properties) cloud.Properties {
	all := maps.Clone(defaults)
	for name, value := range asked {
		if value == "" || value == false {
			delete(all, name)
			continue
		}
		all[name] = value
	}
	return all
}
