package cloud

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// LoadBalancer is a managed load balancer with what we read of it. There is no call that replaces a whole load balancer:
// what a person, Terraform or another cluster put on it is not even decoded, and stays as it is.
type LoadBalancer struct {
	ID               string                `json:"uuid,omitempty"`
	Name             string                `json:"name,omitempty"`
	Zone             string                `json:"zone,omitempty"`
	Plan             string                `json:"plan,omitempty"`
	ConfiguredStatus string                `json:"configured_status,omitempty"`
	State            LoadBalancerState     `json:"operational_state,omitempty"`
	Labels           Labels                `json:"labels"`
	Networks         []LoadBalancerNetwork `json:"networks"`
	Frontends        []Frontend            `json:"frontends"`
	Backends         []Backend             `json:"backends"`
	Resolvers        []json.RawMessage     `json:"resolvers"` // which find dynamic members; we make none
	Nodes            []LoadBalancerNode    `json:"nodes,omitempty"`
	DNSName          string                `json:"dns_name,omitempty"` // deprecated by the API: see LoadBalancerNetwork.DNSName
	Created          time.Time             `json:"created_at,omitzero"`
}

// LoadBalancerState is the operational state: pending, setup-agent … checkup on the way up, running, delete-… on the way
// down. Every change makes a running load balancer pending for a moment, while it goes on serving.
type LoadBalancerState string

// Running says that the load balancer serves, with every change in place.
func (s LoadBalancerState) Running() bool { return s == "running" }

// Deleting says that the load balancer is being taken down: it ends with 404 and never comes back.
// In the first moments after DELETE the API still answers "pending".
func (s LoadBalancerState) Deleting() bool { return strings.HasPrefix(string(s), "delete") }

// LoadBalancerNetwork is a network that a load balancer is attached to, fixed at creation.
type LoadBalancerNetwork struct {
	Name    string `json:"name"`
	Type    string `json:"type"` // public or private
	Family  string `json:"family"`
	ID      string `json:"uuid,omitempty"` // of private networks
	DNSName string `json:"dns_name,omitempty"`
}

// LoadBalancerNode is one server of the load balancer itself.
type LoadBalancerNode struct {
	State    string                    `json:"operational_state"`
	Networks []LoadBalancerNodeNetwork `json:"networks"`
}

// LoadBalancerNodeNetwork is a load balancer server's interface.
type LoadBalancerNodeNetwork struct {
	Name      string                    `json:"name"`
	Type      string                    `json:"type"`
	Addresses []LoadBalancerNodeAddress `json:"ip_addresses"`
}

// LoadBalancerNodeAddress is an address of that interface; frontends are reached at those with Listen.
type LoadBalancerNodeAddress struct {
	Address string `json:"address"`
	Listen  bool   `json:"listen"`
}

// Frontend listens on a port of some of the load balancer's networks.
type Frontend struct {
	Name           string            `json:"name"`
	Mode           string            `json:"mode"` // tcp or http
	Port           int               `json:"port"`
	DefaultBackend string            `json:"default_backend"`
	Networks       []FrontendNetwork `json:"networks,omitempty"`
	Properties     Properties        `json:"properties,omitempty"`
}

// FrontendNetwork names one of the load balancer's networks.
type FrontendNetwork struct {
	Name string `json:"name"`
}

// FrontendPatch holds what shall change of a frontend; what is zero stays as it is, rules and certificates always do.
type FrontendPatch struct {
	Port           int        `json:"port,omitempty"`
	DefaultBackend string     `json:"default_backend,omitempty"`
	Properties     Properties `json:"properties,omitempty"`
}

// Backend is a set of members that frontends pass connections on to.
type Backend struct {
	Name       string     `json:"name"`
	Members    []Member   `json:"members"`
	Properties Properties `json:"properties,omitempty"`
}

// BackendPatch holds what shall change of a backend. Members, if not nil, replace all members in one call, however many
// nodes there are; the Go SDK knows no such call.
type BackendPatch struct {
	Members    []Member   `json:"members,omitzero"`
	Properties Properties `json:"properties,omitempty"`
}

// Properties are a frontend's or backend's flat properties, those too that this program does not know.
type Properties map[string]any

// With returns the properties with those of changes on top, and whether that makes any difference. It is what a PATCH of them
// has to hold to change nothing else, whether the API merges it into what it has or, which is not known, puts defaults
// in the place of what is left out. Empty values are left out: they are the defaults, and the API answers some (such as
// "" for health_check_on_down) that it may not take back.
func (p Properties) With(changes Properties) (Properties, bool) {
	merged, changed := Properties{}, false
	for key, value := range p {
		if value != nil && value != "" && value != false {
			merged[key] = value
		}
	}
	for key, want := range changes {
		have, ok := p[key]
		changed = changed || !ok || !sameProperty(have, want)
		merged[key] = want
	}
	return merged, changed
}

// sameProperty compares values of which one may come from JSON, where every number is a float64.
func sameProperty(a, b any) bool {
	left, errLeft := json.Marshal(a)
	right, errRight := json.Marshal(b)
	return errLeft == nil && errRight == nil && bytes.Equal(left, right)
}

// Member is one target of a backend. Fields of the API that are not listed here survive in extra, because replacing the
// members of a backend would lose them otherwise.
type Member struct {
	Name        string `json:"name"`
	IP          string `json:"ip"`
	Port        int    `json:"port"`
	Weight      int    `json:"weight"`       // 0-100
	MaxSessions int    `json:"max_sessions"` // 0-500000
	Type        string `json:"type"`         // static, or dynamic for members that a resolver finds
	Enabled     bool   `json:"enabled"`

	extra map[string]json.RawMessage
}

// SameTarget says that both members lead to the same place in the same way.
func (m Member) SameTarget(other Member) bool {
	return m.Name == other.Name && sameAddress(m.IP, other.IP) && m.Port == other.Port && m.Weight == other.Weight &&
		m.MaxSessions == other.MaxSessions && m.Type == other.Type && m.Enabled == other.Enabled
}

func sameAddress(a, b string) bool {
	if a == b {
		return true
	}
	left, errLeft := netip.ParseAddr(a)
	right, errRight := netip.ParseAddr(b)
	return errLeft == nil && errRight == nil && left.Unmap() == right.Unmap()
}

// WithExtra returns m with the unlisted fields of the member that it takes the place of.
func (m Member) WithExtra(from Member) Member {
	m.extra = from.extra
	return m
}

// memberFields are the names of a member's fields that must not be in extra: the listed ones, and those that only the API
// may write.
var memberFields = []string{
	"name", "ip", "port", "weight", "max_sessions", "type", "enabled", "created_at", "updated_at",
}

// UnmarshalJSON keeps the fields that Member does not list.
func (m *Member) UnmarshalJSON(data []byte) error {
	type plain Member
	if err := json.Unmarshal(data, (*plain)(m)); err != nil {
		return err
	}
	m.extra = nil
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	for _, name := range memberFields {
		delete(all, name)
	}
	if len(all) > 0 {
		m.extra = all
	}
	return nil
}

// MarshalJSON writes the kept fields beside the listed ones.
func (m Member) MarshalJSON() ([]byte, error) {
	type plain Member
	listed, err := json.Marshal(plain(m))
	if err != nil || len(m.extra) == 0 {
		return listed, err
	}
	all := maps.Clone(m.extra)
	if err := json.Unmarshal(listed, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// Labels are a resource's labels: an object here, an array of key and value in the API.
type Labels map[string]string

type label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// MarshalJSON writes the labels ordered by key.
func (l Labels) MarshalJSON() ([]byte, error) {
	list := make([]label, 0, len(l))
	for _, key := range slices.Sorted(maps.Keys(l)) {
		list = append(list, label{Key: key, Value: l[key]})
	}
	return json.Marshal(list)
}

// UnmarshalJSON reads a bare array of labels, or the {"label":[…]} that servers have.
func (l *Labels) UnmarshalJSON(data []byte) error {
	var list []label
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		var wrapped struct {
			Label []label `json:"label"`
		}
		if err := json.Unmarshal(data, &wrapped); err != nil {
			return err
		}
		list = wrapped.Label
	} else if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*l = make(Labels, len(list))
	for _, item := range list {
		(*l)[item.Key] = item.Value
	}
	return nil
}

// LoadBalancerPlan is a size of load balancer.
type LoadBalancerPlan struct {
	Name              string `json:"name"`
	Servers           int    `json:"server_number"`
	SessionsPerServer int    `json:"per_server_max_sessions"`
}
