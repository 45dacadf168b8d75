package cloud

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// LoadBalancer is a managed load balancer. There is no call that replaces a whole one: what a person, Terraform or another
// cluster put on it stays as it is.
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
	Resolvers        []Resolver            `json:"resolvers"`
	Addresses        []FloatingAddress     `json:"ip_addresses,omitempty"`
	MaintenanceDay   string                `json:"maintenance_dow,omitempty"`  // monday … sunday
	MaintenanceTime  string                `json:"maintenance_time,omitempty"` // 03:15:00Z
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

// FloatingAddress is a floating IP address of the account through which a load balancer is reached.
type FloatingAddress struct {
	Address string `json:"address"`
	Network string `json:"network_name"` // a public network of the load balancer
}

// LoadBalancerPatch holds what shall change of a load balancer itself; what is empty stays as it is, components always do.
type LoadBalancerPatch struct {
	Name             string `json:"name,omitempty"`
	Plan             string `json:"plan,omitempty"`
	ConfiguredStatus string `json:"configured_status,omitempty"`
	MaintenanceDay   string `json:"maintenance_dow,omitempty"`
	MaintenanceTime  string `json:"maintenance_time,omitempty"`
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
