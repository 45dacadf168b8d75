package simulator

import "encoding/json"

// LoadBalancer is a load balancer as the API shows it. Fields are in the order of the recordings.
type LoadBalancer struct {
	Backends         []Backend             `json:"backends"`
	ConfiguredStatus string                `json:"configured_status"`
	CreatedAt        stamp                 `json:"created_at"`
	DNSName          string                `json:"dns_name"` // deprecated: that of the first public network
	Frontends        []Frontend            `json:"frontends"`
	IPAddresses      []FloatingAddress     `json:"ip_addresses"`
	Labels           []Label               `json:"labels"`
	MaintenanceDOW   string                `json:"maintenance_dow"`
	MaintenanceTime  string                `json:"maintenance_time"`
	Name             string                `json:"name"`
	NetworkUUID      string                `json:"network_uuid,omitempty"` // deprecated: when created with it
	Networks         []LoadBalancerNetwork `json:"networks"`
	Nodes            []Node                `json:"nodes"`
	OperationalState string                `json:"operational_state"`
	Plan             string                `json:"plan"`
	Resolvers        []Resolver            `json:"resolvers"`
	UpdatedAt        stamp                 `json:"updated_at"`
	UUID             string                `json:"uuid"`
	Zone             string                `json:"zone"`
}

// LoadBalancerNetwork is one of the networks a load balancer is on.
type LoadBalancerNetwork struct {
	CreatedAt stamp  `json:"created_at"`
	DNSName   string `json:"dns_name"`
	Family    string `json:"family"`
	Name      string `json:"name"`
	Type      string `json:"type"`
	UpdatedAt stamp  `json:"updated_at"`
	UUID      string `json:"uuid,omitempty"`
}

// FloatingAddress is a floating IP address through which a load balancer is reached.
type FloatingAddress struct {
	Address     string `json:"address"`
	CreatedAt   stamp  `json:"created_at"`
	NetworkName string `json:"network_name"`
	UpdatedAt   stamp  `json:"updated_at"`
}

// Node is one of the machines that a load balancer runs on.
type Node struct {
	Networks         []NodeNetwork `json:"networks"`
	OperationalState string        `json:"operational_state"`
}

// NodeNetwork is a network of a node with the node's addresses there.
type NodeNetwork struct {
	IPAddresses []NodeAddress `json:"ip_addresses"`
	Name        string        `json:"name"`
	Type        string        `json:"type"`
}

// NodeAddress is an address of a node; frontends listen on those with Listen.
type NodeAddress struct {
	Address string `json:"address"`
	Listen  bool   `json:"listen"`
}

// Frontend is a port that a load balancer listens on.
type Frontend struct {
	CreatedAt      stamp              `json:"created_at"`
	DefaultBackend string             `json:"default_backend"`
	Mode           string             `json:"mode"`
	Name           string             `json:"name"`
	Networks       []FrontendNetwork  `json:"networks"`
	Port           int                `json:"port"`
	Properties     FrontendProperties `json:"properties"`
	Rules          []Rule             `json:"rules"`
	TLSConfigs     []TLSConfig        `json:"tls_configs"`
	UpdatedAt      stamp              `json:"updated_at"`
}

// FrontendNetwork names a network of the load balancer on which a frontend listens.
type FrontendNetwork struct {
	Name string `json:"name"`
}

// FrontendProperties are a frontend's settings; times are in seconds.
type FrontendProperties struct {
	HTTP2Enabled         bool  `json:"http2_enabled"`
	InboundProxyProtocol *bool `json:"inbound_proxy_protocol,omitempty"` // shown once it has been set
	TimeoutClient        int   `json:"timeout_client"`
}

// Rule says what is done with the requests that its matchers match.
type Rule struct {
	Actions           []Action  `json:"actions"`
	CreatedAt         stamp     `json:"created_at"`
	Matchers          []Matcher `json:"matchers"`
	MatchingCondition string    `json:"matching_condition,omitempty"`
	Name              string    `json:"name"`
	Priority          int       `json:"priority"`
	UpdatedAt         stamp     `json:"updated_at"`
}

// Matcher and Action are kept as the client wrote them, checked and with defaults filled in: their kinds differ in one
// field alone, and a data plane reads the kinds it knows.
type (
	Matcher json.RawMessage
	Action  json.RawMessage
)

// MarshalJSON implements json.Marshaler.
func (m Matcher) MarshalJSON() ([]byte, error) { return json.RawMessage(m).MarshalJSON() }

// UnmarshalJSON implements json.Unmarshaler.
func (m *Matcher) UnmarshalJSON(b []byte) error { return (*json.RawMessage)(m).UnmarshalJSON(b) }

// MarshalJSON implements json.Marshaler.
func (a Action) MarshalJSON() ([]byte, error) { return json.RawMessage(a).MarshalJSON() }

// UnmarshalJSON implements json.Unmarshaler.
func (a *Action) UnmarshalJSON(b []byte) error { return (*json.RawMessage)(a).UnmarshalJSON(b) }

// TLSConfig gives a frontend a certificate, or a backend an authority.
type TLSConfig struct {
	CertificateBundleUUID string `json:"certificate_bundle_uuid"`
	CreatedAt             stamp  `json:"created_at"`
	Name                  string `json:"name"`
	UpdatedAt             stamp  `json:"updated_at"`
}

// Backend is a group of servers that answer requests.
type Backend struct {
	CreatedAt  stamp             `json:"created_at"`
	Members    []Member          `json:"members"`
	Name       string            `json:"name"`
	Properties BackendProperties `json:"properties"`
	Resolver   string            `json:"resolver"`
	TLSConfigs []TLSConfig       `json:"tls_configs"`
	UpdatedAt  stamp             `json:"updated_at"`
}

// BackendProperties are a backend's settings; times are in seconds.
type BackendProperties struct {
	HealthCheckExpectedStatus int             `json:"health_check_expected_status"`
	HealthCheckFall           int             `json:"health_check_fall"`
	HealthCheckInterval       int             `json:"health_check_interval"`
	HealthCheckOnDown         string          `json:"health_check_on_down"`
	HealthCheckRise           int             `json:"health_check_rise"`
	HealthCheckTLSVerify      bool            `json:"health_check_tls_verify"`
	HealthCheckType           string          `json:"health_check_type"`
	HealthCheckURL            string          `json:"health_check_url"`
	HTTP2Enabled              bool            `json:"http2_enabled"`
	OutboundProxyProtocol     string          `json:"outbound_proxy_protocol"`
	StickySessionAttributes   json.RawMessage `json:"sticky_session_cookie_attributes"` // null, or kept as given
	StickySessionCookieName   string          `json:"sticky_session_cookie_name"`
	TimeoutServer             int             `json:"timeout_server"`
	TimeoutTunnel             int             `json:"timeout_tunnel"`
	TLSEnabled                bool            `json:"tls_enabled"`
	TLSUseSystemCA            bool            `json:"tls_use_system_ca"`
	TLSVerify                 bool            `json:"tls_verify"`
}

// Member is a server of a backend.
type Member struct {
	Backup      bool   `json:"backup,omitempty"` // gets traffic only while no other is up; shown once it is set
	CreatedAt   stamp  `json:"created_at"`
	Enabled     bool   `json:"enabled"`
	IP          string `json:"ip,omitempty"` // a dynamic member may have none
	MaxSessions int    `json:"max_sessions"`
	Name        string `json:"name"`
	Port        int    `json:"port,omitempty"`
	ServerUUID  string `json:"server_uuid,omitempty"`
	Type        string `json:"type"`
	UpdatedAt   stamp  `json:"updated_at"`
	Weight      int    `json:"weight"`
}

// Resolver finds the addresses of a backend's dynamic members; times are in seconds.
type Resolver struct {
	CacheInvalid int      `json:"cache_invalid"`
	CacheValid   int      `json:"cache_valid"`
	CreatedAt    stamp    `json:"created_at"`
	Name         string   `json:"name"`
	Nameservers  []string `json:"nameservers"`
	Retries      int      `json:"retries"`
	Timeout      int      `json:"timeout"`
	TimeoutRetry int      `json:"timeout_retry"`
	UpdatedAt    stamp    `json:"updated_at"`
}
