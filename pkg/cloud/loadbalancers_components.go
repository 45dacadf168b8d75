package cloud

import (
	"encoding/json"
	"net/netip"
	"time"
)

// Frontend listens on a port of some of the load balancer's networks.
type Frontend struct {
	Name           string            `json:"name"`
	Mode           string            `json:"mode"` // tcp or http
	Port           int               `json:"port"`
	DefaultBackend string            `json:"default_backend"`
	Networks       []FrontendNetwork `json:"networks,omitempty"`
	Properties     Properties        `json:"properties,omitempty"`
	Rules          []Rule            `json:"rules,omitempty"`
	TLSConfigs     []TLSConfig       `json:"tls_configs,omitempty"`

	unlisted unlisted
}

// FrontendNetwork names one of the load balancer's networks.
type FrontendNetwork struct {
	Name string `json:"name"`
}

// FrontendPatch holds what shall change of a frontend; what is zero stays as it is, rules and certificates always do.
type FrontendPatch struct {
	Mode           string            `json:"mode,omitempty"`
	Port           int               `json:"port,omitempty"`
	DefaultBackend string            `json:"default_backend,omitempty"`
	Networks       []FrontendNetwork `json:"networks,omitempty"`
	Properties     Properties        `json:"properties,omitempty"`
}

// Rule says what a frontend does with what its matchers match. Matchers and actions are the API's JSON: their kinds differ
// in one field, named like the kind.
type Rule struct {
	Name              string            `json:"name"`
	Priority          int               `json:"priority"`                     // 0-100, the highest first
	MatchingCondition string            `json:"matching_condition,omitempty"` // and (the default) or or
	Matchers          []json.RawMessage `json:"matchers"`
	Actions           []json.RawMessage `json:"actions"`

	unlisted unlisted
}

// TLSConfig gives a frontend a certificate, or a backend an authority to check its members with.
type TLSConfig struct {
	Name     string `json:"name"`
	BundleID string `json:"certificate_bundle_uuid"`

	unlisted unlisted
}

// Backend is a set of members that frontends pass connections on to.
type Backend struct {
	Name       string      `json:"name"`
	Members    []Member    `json:"members"`
	Resolver   string      `json:"resolver,omitempty"` // of dynamic members
	Properties Properties  `json:"properties,omitempty"`
	TLSConfigs []TLSConfig `json:"tls_configs,omitempty"`
	Created    time.Time   `json:"created_at,omitzero"` // the API's to tell

	unlisted unlisted
}

// BackendPatch holds what shall change of a backend. Members, if not nil, replace all members in one call, however many
// nodes there are; the Go SDK knows no such call.
type BackendPatch struct {
	Members    []Member   `json:"members,omitzero"`
	Resolver   *string    `json:"resolver,omitempty"`
	Properties Properties `json:"properties,omitempty"`
}

// Member is one target of a backend.
type Member struct {
	Name        string `json:"name"`
	IP          string `json:"ip"`
	Port        int    `json:"port"`
	Weight      int    `json:"weight"`       // 0-100
	MaxSessions int    `json:"max_sessions"` // 0-500000
	Type        string `json:"type"`         // static, or dynamic for members that a resolver finds
	Enabled     bool   `json:"enabled"`

	unlisted unlisted
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
	m.unlisted = from.unlisted
	return m
}

// Resolver finds the addresses of dynamic members; times are in seconds.
type Resolver struct {
	Name         string   `json:"name"`
	Nameservers  []string `json:"nameservers"`
	Retries      int      `json:"retries,omitempty"`
	Timeout      int      `json:"timeout,omitempty"`
	TimeoutRetry int      `json:"timeout_retry,omitempty"`
	CacheValid   int      `json:"cache_valid,omitempty"`
	CacheInvalid int      `json:"cache_invalid,omitempty"`

	unlisted unlisted
}

// The components keep the fields that their types do not list.

// UnmarshalJSON implements json.Unmarshaler.
func (f *Frontend) UnmarshalJSON(data []byte) (err error) {
	type plain Frontend
	*f = Frontend{}
	f.unlisted, err = unmarshalKeeping(data, (*plain)(f))
	return err
}

// MarshalJSON implements json.Marshaler.
func (f Frontend) MarshalJSON() ([]byte, error) {
	type plain Frontend
	return marshalKeeping(plain(f), f.unlisted)
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Rule) UnmarshalJSON(data []byte) (err error) {
	type plain Rule
	*r = Rule{}
	r.unlisted, err = unmarshalKeeping(data, (*plain)(r))
	return err
}

// MarshalJSON implements json.Marshaler.
func (r Rule) MarshalJSON() ([]byte, error) {
	type plain Rule
	return marshalKeeping(plain(r), r.unlisted)
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *TLSConfig) UnmarshalJSON(data []byte) (err error) {
	type plain TLSConfig
	*t = TLSConfig{}
	t.unlisted, err = unmarshalKeeping(data, (*plain)(t))
	return err
}

// MarshalJSON implements json.Marshaler.
func (t TLSConfig) MarshalJSON() ([]byte, error) {
	type plain TLSConfig
	return marshalKeeping(plain(t), t.unlisted)
}

// UnmarshalJSON implements json.Unmarshaler.
func (b *Backend) UnmarshalJSON(data []byte) (err error) {
	type plain Backend
	*b = Backend{}
	b.unlisted, err = unmarshalKeeping(data, (*plain)(b))
	return err
}

// MarshalJSON implements json.Marshaler.
func (b Backend) MarshalJSON() ([]byte, error) {
	type plain Backend
	return marshalKeeping(plain(b), b.unlisted)
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Member) UnmarshalJSON(data []byte) (err error) {
	type plain Member
	*m = Member{}
	m.unlisted, err = unmarshalKeeping(data, (*plain)(m))
	return err
}

// MarshalJSON implements json.Marshaler.
func (m Member) MarshalJSON() ([]byte, error) {
	type plain Member
	return marshalKeeping(plain(m), m.unlisted)
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Resolver) UnmarshalJSON(data []byte) (err error) {
	type plain Resolver
	*r = Resolver{}
	r.unlisted, err = unmarshalKeeping(data, (*plain)(r))
	return err
}

// MarshalJSON implements json.Marshaler.
func (r Resolver) MarshalJSON() ([]byte, error) {
	type plain Resolver
	return marshalKeeping(plain(r), r.unlisted)
}
