package settings

import (
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Settings are what a Service's annotations ask of its load balancer. What is zero was not asked for.
type Settings struct {
	Load          cloud.LoadBalancerPatch // of the load balancer itself
	Zone          string
	Networks      []cloud.LoadBalancerNetwork // all of them, as given in JSON
	Private       []string                    // UUIDs of private networks
	Visibility    string
	Addresses     []cloud.FloatingAddress
	Labels        cloud.Labels
	Resolvers     []cloud.Resolver
	Status        StatusMode
	Retain        bool
	Protected     bool
	Adopt         string // UUID of the load balancer to take as the Service's own
	MaxMembers    int
	Selector      labels.Selector // nil: every node
	Ports         []PortSettings  // in the order of the Service's
	MoreFrontends []PortSettings  // given in JSON for no port of the Service
	MoreBackends  []cloud.Backend // the same
	Shared        *Reference      // nil: a load balancer of the Service's own
	Routes        []Route         // on a shared one; none: the ports as a whole
	DeleteLast    bool

	unknown []string // fields of AnnotationConfig that do not exist
}

// PortSettings are what is asked for one port of the Service. Fields that are not set leave the frontend or backend as it is.
type PortSettings struct {
	Name         string // of the backend
	FrontendName string // the same, unless JSON gives it another

	Mode           string
	Port           int    // another than the Service's
	DefaultBackend string // another than its own
	Networks       []string
	Frontend       cloud.Properties
	Rules          []cloud.Rule
	Redirect       bool
	Forwarded      bool
	Certificates   []Certificate

	Hub string // a frontend of somebody else's, for routes

	Backend     cloud.Properties
	MaxSessions *int
	Members     []cloud.Member // instead of the nodes
	Resolver    string
	BackendTLS  []cloud.TLSConfig

	servicePort int
	unserved    bool // of another protocol than TCP
	tls         tlsAnnotations
	healthCheck healthCheckAnnotations
}

// tlsAnnotations are those that make up Certificates.
type tlsAnnotations struct {
	bundles, secrets, hostnames, backend []string
	keyType                              string
}

// healthCheckAnnotations are those that make up health_check_url.
type healthCheckAnnotations struct {
	path string
	port int
}

// Certificate is a certificate that a frontend presents: one of the three is set.
type Certificate struct {
	Bundle *cloud.TLSConfig // that exists
	Secret string           // whose certificate is uploaded
	// Hostnames are those for which UpCloud gets a certificate; of an empty list: the load balancer's own name.
	Hostnames []string
	KeyType   string
}

// Setting is an annotation. The table of them is all there is to know about annotations: the parser, its messages, the
// reference page and the admission policy are made from it.
type Setting struct {
	Name    string // without the prefix
	PerPort bool   // takes one value for all ports, or one for each
	Values  string // what it takes, for the reference page
	Default string // what happens without it, for the reference page
	Example string
	MapsTo  string // the API's field, for the reference page
	About   string

	allowed string
	pattern string
	list    int
	longest int
	bounds  [2]int
	timed   bool
	// document limits a value that is YAML or JSON; nil: it is not.
	document *bounded.Document
	read     func(text string) (set func(*Settings, *PortSettings), err error)
}

// forAll is an annotation about the load balancer.
func forAll[T any](s Setting, k kind[T], set func(*Settings, T)) Setting {
	return described(s, k, func(all *Settings, _ *PortSettings, value T) { set(all, value) })
}

// forPort is an annotation about ports.
func forPort[T any](s Setting, k kind[T], set func(*PortSettings, T)) Setting {
	s.PerPort = true
	return described(s, k, func(_ *Settings, port *PortSettings, value T) { set(port, value) })
}

func described[T any](s Setting, k kind[T], set func(*Settings, *PortSettings, T)) Setting {
	s.Values, s.allowed, s.pattern, s.bounds = k.name, k.allowed, k.pattern, [2]int{k.least, k.most}
	s.timed, s.list, s.longest, s.document = k.timed, k.list, k.longest, k.document
	s.read = func(text string) (func(*Settings, *PortSettings), error) {
		value, err := k.parse(text)
		if err != nil {
			return nil, err
		}
		return func(all *Settings, port *PortSettings) { set(all, port, value) }, nil
	}
	return s
}

// frontendProperty is an annotation that is one of the API's properties of a frontend.
func frontendProperty[T any](s Setting, k kind[T], name string) Setting {
	s.MapsTo = "frontends[].properties." + name
	return forPort(s, k, func(p *PortSettings, value T) { p.Frontend[name] = value })
}

// backendProperty is an annotation that is one of the API's properties of a backend.
func backendProperty[T any](s Setting, k kind[T], name string) Setting {
	s.MapsTo = "backends[].properties." + name
	return forPort(s, k, func(p *PortSettings, value T) { p.Backend[name] = value })
}

// off maps a word that means nothing to the empty text, which means it to the API.
func off(k kind[string], word string) kind[string] {
	plain := k.parse
	k.parse = func(text string) (string, error) {
		value, err := plain(text)
		if value == word {
			value = ""
		}
		return value, err
	}
	return k
}

// Values of the annotation visibility.
const (
	VisibilityBoth    = "both"
	visibilityPublic  = "public"
	VisibilityPrivate = "private"
)

// Table lists every annotation, in the order of the reference page.
var Table = slices.Concat(loadBalancerTable, frontendTable, backendTable, sharedTable)

var loadBalancerTable = []Setting{
	forAll(Setting{
		Name: "plan", Default: "`loadBalancerPlan` of the configuration file, else `development`", Example: "production-small",
		MapsTo: "plan", About: "Size of the load balancer. A change resizes it in place.",
	}, planName, func(s *Settings, v string) { s.Load.Plan = v }),
	forAll(Setting{
		Name: "visibility", Default: "both", Example: "private", MapsTo: "networks, frontends[].networks",
		About: "Where the ports are reached: on a public address, on the private networks, or on both. A load balancer made " +
			"with `private` has no public address and cannot get one later.",
	}, oneOf(VisibilityBoth, visibilityPublic, VisibilityPrivate), func(s *Settings, v string) { s.Visibility = v }),
	forAll(Setting{
		Name: "private-networks", Default: "the network that most nodes have their internal address in", MapsTo: "networks[].uuid",
		Example: "03a5b0c2-1d3e-4f56-8a9b-0c1d2e3f4a5b",
		About:   "Private networks that the load balancer is made on; one of them must be the nodes'. Fixed when it is made.",
	}, listOf(uuids, 7), func(s *Settings, v []string) { s.Private = v }),
	forAll(Setting{
		Name: "zone", Default: "the zone of most nodes, or its public parent zone", Example: "fi-hel1", MapsTo: "zone",
		About: "Zone that the load balancer is made in. Fixed when it is made.",
	}, zoneName, func(s *Settings, v string) { s.Zone = v }),
	forAll(Setting{
		Name: "floating-ips", Default: "`spec.loadBalancerIP`, else none", Example: "94.237.0.1", MapsTo: "ip_addresses",
		About: "Floating IP addresses of the account, in the load balancer's zone, through which it is reached: as many as the plan has " +
			"servers at most. One that the account has not, or that a server has, takes none of them off. They stay the account's when " +
			"the Service goes, so that the next one can have them.",
	}, listOf(ipAddress, 8), func(s *Settings, v []string) {
		for _, address := range v {
			s.Addresses = append(s.Addresses, cloud.FloatingAddress{Address: address})
		}
	}),
	forAll(Setting{
		Name: "labels", Default: "none", Example: "env=prod,team=web", MapsTo: "labels",
		About: "Labels of the load balancer, beside those of the controller and of others, which stay.",
	}, labelList, func(s *Settings, v cloud.Labels) { s.Labels = v }),
	forAll(Setting{
		Name: "maintenance-window", Default: "chosen by UpCloud", Example: "sunday 03:00", MapsTo: "maintenance_dow, maintenance_time",
		About: "When UpCloud may change the servers of the load balancer; in UTC.",
	}, maintenanceWindow, func(s *Settings, v window) { s.Load.MaintenanceDay, s.Load.MaintenanceTime = v.day, v.time }),
	forAll(Setting{
		Name: "status", Default: "`--load-balancer-status`, else `hostname`", Example: "ip", MapsTo: "status.loadBalancer of the Service",
		About: "What is published of the load balancer: its DNS name, its addresses (with `ipMode: Proxy`), or both.",
	}, oneOf(string(StatusHostname), string(StatusIP), string(StatusBoth)), func(s *Settings, v string) { s.Status = StatusMode(v) }),
	forAll(Setting{
		Name: maxMembersName, Default: "`loadBalancerMaxBackendMembers` of the configuration file, else 100", Example: "20",
		MapsTo: "number of backends[].members",
		About:  "How many nodes at most get traffic. Which ones hardly changes when nodes come and go; ready ones are preferred.",
	}, integer(1, 1000), func(s *Settings, v int) { s.MaxMembers = v }),
	forAll(Setting{
		Name: RetainName, Default: "false", Example: "true", MapsTo: "nothing",
		About: "Leave the load balancer, with its address, in the account when the Service is deleted. It loses the labels that make " +
			"it the Service's; what it costs is then yours to watch. `adopt` lets a later Service of the namespace have it.",
	}, boolean, func(s *Settings, v bool) { s.Retain = v }),
	forAll(Setting{
		Name: ProtectionName, Default: "false", Example: "true", MapsTo: "nothing",
		About: "Refuse to delete the load balancer: the Service stays, with an event, until this is removed.",
	}, boolean, func(s *Settings, v bool) { s.Protected = v }),
	forAll(Setting{
		Name: AdoptName, Default: "none", Example: "0aded5c1-c7a3-498a-b9c8-a871611c47a2", MapsTo: "labels",
		About: "UUID of a load balancer that there is and that the Service, which has none yet, takes as its own: one that `retain` left in the " +
			"account for a Service of this namespace, or any that `adoptableLoadBalancers` of the configuration file allows. From then on it is " +
			"changed, and deleted, as one that was made for the Service.",
	}, uuids, func(s *Settings, v string) { s.Adopt = v }),
	forAll(Setting{
		Name: NodeSelectorName, Default: "every node", Example: "{matchLabels: {pool: web}}",
		MapsTo: "backends[].members", About: "Which nodes get traffic.",
	}, nodeSelector, func(s *Settings, v labels.Selector) { s.Selector = v }),
}

// Names of annotations that messages mention.
const (
	NodeSelectorName = "node-selector"
	maxMembersName   = "max-members"
	RetainName       = "retain"
	ProtectionName   = "deletion-protection"
	AdoptName        = "adopt"
	FloatingIPsName  = "floating-ips"
	visibilityName   = "visibility"
	TLSSecretName    = "tls-secret"
)

var frontendTable = []Setting{
	forPort(Setting{
		Name: "mode", Default: "tcp; load balancers made by UpCloud's own CCM keep theirs", Example: "https=http; ssh=tcp", MapsTo: "frontends[].mode",
		About: "`tcp` passes connections on as they are, `http` understands requests: cookies, headers, redirects, rules about paths.",
	}, oneOf("tcp", "http"), func(p *PortSettings, v string) { p.Mode = v }),
	frontendProperty(Setting{
		Name: "inbound-proxy-protocol", Default: "false", Example: "true",
		About: "Clients speak the PROXY protocol to the load balancer, because there is another proxy before it.",
	}, boolean, "inbound_proxy_protocol"),
	frontendProperty(Setting{
		Name: "timeout-client", Default: "60", Example: "5m", About: "How long a client may be silent.",
	}, seconds(maxTimeout), "timeout_client"),
	frontendProperty(Setting{
		Name: "http2", Default: "false", Example: "true", About: "Offer HTTP/2 to clients; needs a certificate.",
	}, boolean, "http2_enabled"),
	forPort(Setting{
		Name: "tls-bundle", Default: "none", Example: "https=0aded5c1-c7a3-498a-b9c8-a871611c47a2", MapsTo: "frontends[].tls_configs",
		About: "Certificate bundles of the account that the port presents; clients choose by server name.",
	}, listOf(uuids, 20), func(p *PortSettings, v []string) { p.tls.bundles = v }),
	forPort(Setting{
		Name: TLSSecretName, Default: "none", Example: "https=www-example-com", MapsTo: "frontends[].tls_configs, a certificate bundle",
		About: "Secrets of type kubernetes.io/tls, in the Service's namespace, whose certificates the port presents. They are uploaded, " +
			"follow the Secret when it changes (cert-manager's too), and are removed when no port uses them.",
	}, listOf(secretName, 20), func(p *PortSettings, v []string) { p.tls.secrets = v }),
	forPort(Setting{
		Name: "tls-hostnames", Default: "none", Example: "https=www.example.com,example.com", MapsTo: "frontends[].tls_configs, a certificate bundle",
		About: "Host names for which UpCloud gets and renews a certificate. Each must be a CNAME of the load balancer's name; a " +
			"wildcard's `_acme-challenge` must be one of the domain that an event tells.",
	}, listOf(hostname, 100), func(p *PortSettings, v []string) { p.tls.hostnames = v }),
	forPort(Setting{
		Name: "tls-key-type", Default: "ecdsa", Example: "rsa", MapsTo: "key_type of the certificate bundle",
		About: "Key of the certificate that `tls-hostnames` gets.",
	}, oneOf("ecdsa", "rsa"), func(p *PortSettings, v string) { p.tls.keyType = v }),
	forPort(Setting{
		Name: "redirect-to-https", Default: "false", Example: "http=true", MapsTo: "frontends[].rules: http_redirect",
		About: "Answer every request with a redirect (301) to the same address with https. For ports of mode http without a certificate.",
	}, boolean, func(p *PortSettings, v bool) { p.Redirect = v }),
	forPort(Setting{
		Name: "forwarded-headers", Default: "false", Example: "true", MapsTo: "frontends[].rules: set_forwarded_headers",
		About: "Tell the members the client's address in X-Forwarded-For, -Proto and -Port. For ports of mode http.",
	}, boolean, func(p *PortSettings, v bool) { p.Forwarded = v }),
}

var backendTable = []Setting{
	backendProperty(Setting{
		Name: "proxy-protocol", Default: "off", Example: "v2",
		About: "Tell the members the client's address by the PROXY protocol, which they must then expect.",
	}, off(oneOf("off", "v1", "v2"), "off"), "outbound_proxy_protocol"),
	backendProperty(Setting{
		Name: "timeout-server", Default: "60", Example: "5m", About: "How long a member may be silent.",
	}, seconds(maxTimeout), "timeout_server"),
	backendProperty(Setting{
		Name: "timeout-tunnel", Default: "3600", Example: "24h",
		About: "How long an established connection (TCP, WebSocket) may be silent in both directions.",
	}, seconds(maxTunnel), "timeout_tunnel"),
	forPort(Setting{
		Name: "max-sessions", Default: "what the plan allows for one server", Example: "2000", MapsTo: "backends[].members[].max_sessions",
		About: "How many connections a member gets at one time.",
	}, integer(1, maxSessions), func(p *PortSettings, v int) { p.MaxSessions = &v }),
	backendProperty(Setting{
		Name: "sticky-cookie", Default: "none", Example: "SERVERID",
		About: "Name of a cookie that the load balancer sets to bring a client back to the same member. For ports of mode http.",
	}, cookieName, "sticky_session_cookie_name"),
	backendProperty(Setting{
		Name: "sticky-cookie-attributes", Default: "none", Example: "SameSite=Lax, Secure, HttpOnly",
		About: "Attributes of that cookie, with commas between.",
	}, cookieAttributes, "sticky_session_cookie_attributes"),
	forPort(Setting{
		Name: "backend-tls", Default: "off", Example: "verify", MapsTo: "backends[].properties.tls_enabled, tls_verify, tls_use_system_ca",
		About: "Speak TLS to the members, without or with a check of their certificates: by `backend-tls-bundle`, else by the public authorities.",
	}, oneOf("off", "no-verify", "verify"), func(p *PortSettings, v string) {
		p.Backend["tls_enabled"], p.Backend["tls_verify"], p.Backend["tls_use_system_ca"] = v != "off", v == "verify", v == "verify"
	}),
	forPort(Setting{
		Name: "backend-tls-bundle", Default: "none", Example: "0aded5c1-c7a3-498a-b9c8-a871611c47a2", MapsTo: "backends[].tls_configs",
		About: "Certificate bundles of type authority by which members are checked.",
	}, listOf(uuids, 20), func(p *PortSettings, v []string) {
		p.tls.backend = v
		p.Backend["tls_use_system_ca"] = false
	}),
	backendProperty(Setting{
		Name: "backend-http2", Default: "false", Example: "true", About: "Speak HTTP/2 to the members.",
	}, boolean, "http2_enabled"),
	backendProperty(Setting{
		Name: "health-check-type", Default: "tcp; http with `externalTrafficPolicy: Local`", Example: "http",
		About: "How members are checked: whether they take a connection, or what they answer to a GET.",
	}, oneOf("tcp", "http"), "health_check_type"),
	forPort(Setting{
		Name: "health-check-path", Default: "/", Example: "/healthz", MapsTo: "backends[].properties.health_check_url",
		About: "Path that is asked for. Makes the type `http`.",
	}, urlPath, func(p *PortSettings, v string) { p.healthCheck.path = v }),
	forPort(Setting{
		Name: "health-check-port", Default: "the node port; with `externalTrafficPolicy: Local` the health check node port", Example: "10256",
		MapsTo: "backends[].properties.health_check_url",
		About: "Port of the nodes that is asked instead. Makes the type `http`. With 10256 and the path /healthz, kube-proxy answers " +
			"for the node, and a node that is about to be removed gets no more connections.",
	}, integer(1, 65535), func(p *PortSettings, v int) { p.healthCheck.port = v }),
	backendProperty(Setting{
		Name: "health-check-status", Default: "200", Example: "204", About: "Status that a healthy member answers.",
	}, integer(100, 599), "health_check_expected_status"),
	backendProperty(Setting{
		Name: "health-check-interval", Default: "3", Example: "10s", About: "Time between checks.",
	}, seconds(maxTimeout), "health_check_interval"),
	backendProperty(Setting{
		Name: "health-check-fall", Default: "2", Example: "3", About: "Failures until a member gets no more connections.",
	}, integer(1, 100), "health_check_fall"),
	backendProperty(Setting{
		Name: "health-check-rise", Default: "2", Example: "3", About: "Successes until it gets them again.",
	}, integer(1, 100), "health_check_rise"),
	backendProperty(Setting{
		Name: "health-check-tls-verify", Default: "false", Example: "true", About: "Check the member's certificate in health checks, too.",
	}, boolean, "health_check_tls_verify"),
	backendProperty(Setting{
		Name: "health-check-on-down", Default: "keep-sessions", Example: "shutdown-sessions",
		About: "What becomes of the connections to a member that fails its health check.",
	}, off(oneOf("keep-sessions", "shutdown-sessions"), "keep-sessions"), "health_check_on_down"),
}
