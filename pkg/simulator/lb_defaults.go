package simulator

import (
	"encoding/json"
	"slices"
	"time"
)

// The components below are decoded over what is there already: a field that a request leaves out keeps its value, or
// gets its default when the component is new. That is what PATCH means, and with an empty component what POST and PUT
// mean. Lists are replaced as a whole, and times are the API's alone.

// given says which fields a JSON object has.
func given(b []byte) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	err := json.Unmarshal(b, &fields)
	return fields, err
}

func has(fields map[string]json.RawMessage, name string) bool {
	_, ok := fields[name]
	return ok
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *Frontend) UnmarshalJSON(b []byte) error {
	fields, err := given(b)
	if err != nil {
		return err
	}
	type plain Frontend
	p := plain(*f)
	if p.Name == "" {
		p.Properties.TimeoutClient = 10
		p.Networks, p.Rules, p.TLSConfigs = []FrontendNetwork{}, []Rule{}, []TLSConfig{}
	}
	if shared := p.Properties.InboundProxyProtocol; shared != nil {
		own := *shared
		p.Properties.InboundProxyProtocol = &own
	}
	if has(fields, "networks") {
		p.Networks = []FrontendNetwork{}
	}
	if has(fields, "rules") {
		p.Rules = []Rule{}
	}
	if has(fields, "tls_configs") {
		p.TLSConfigs = []TLSConfig{}
	}
	created, updated := p.CreatedAt, p.UpdatedAt
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	p.CreatedAt, p.UpdatedAt = created, updated
	*f = Frontend(p)
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Rule) UnmarshalJSON(b []byte) error {
	fields, err := given(b)
	if err != nil {
		return err
	}
	type plain Rule
	p := plain(*r)
	if p.Name == "" {
		p.Matchers, p.Actions = []Matcher{}, []Action{}
	}
	if has(fields, "matchers") {
		p.Matchers = []Matcher{}
	}
	if has(fields, "actions") {
		p.Actions = []Action{}
	}
	created, updated := p.CreatedAt, p.UpdatedAt
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	p.CreatedAt, p.UpdatedAt = created, updated
	*r = Rule(p)
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (k *Backend) UnmarshalJSON(b []byte) error {
	fields, err := given(b)
	if err != nil {
		return err
	}
	type plain Backend
	p := plain(*k)
	if p.Name == "" {
		p.Members, p.TLSConfigs = []Member{}, []TLSConfig{}
		p.Properties = BackendProperties{
			HealthCheckExpectedStatus: 200, HealthCheckFall: 3, HealthCheckInterval: 10, HealthCheckRise: 3,
			HealthCheckType: "tcp", HealthCheckURL: "/", TimeoutServer: 10, TimeoutTunnel: 3600,
		}
	}
	if has(fields, "members") {
		p.Members = []Member{}
	}
	if has(fields, "tls_configs") {
		p.TLSConfigs = []TLSConfig{}
	}
	created, updated := p.CreatedAt, p.UpdatedAt
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	p.CreatedAt, p.UpdatedAt = created, updated
	*k = Backend(p)
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Member) UnmarshalJSON(b []byte) error {
	type plain Member
	p := plain(*m)
	if p.Name == "" {
		p.Enabled, p.Weight, p.MaxSessions, p.Type = true, 100, 1000, "static"
	}
	created, updated := p.CreatedAt, p.UpdatedAt
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	p.CreatedAt, p.UpdatedAt = created, updated
	*m = Member(p)
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Resolver) UnmarshalJSON(b []byte) error {
	fields, err := given(b)
	if err != nil {
		return err
	}
	type plain Resolver
	p := plain(*r)
	if has(fields, "nameservers") || p.Nameservers == nil {
		p.Nameservers = []string{}
	}
	created, updated := p.CreatedAt, p.UpdatedAt
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	p.CreatedAt, p.UpdatedAt = created, updated
	*r = Resolver(p)
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *TLSConfig) UnmarshalJSON(b []byte) error {
	type plain TLSConfig
	p := plain(*t)
	created, updated := p.CreatedAt, p.UpdatedAt
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	p.CreatedAt, p.UpdatedAt = created, updated
	*t = TLSConfig(p)
	return nil
}

// A touch marks a component, and what it is made of, as changed: the recordings show a backend's members with the time
// at which the backend was renamed.

func touched(created, updated *stamp, now time.Time) {
	if time.Time(*created).IsZero() {
		*created = stamp(now)
	}
	*updated = stamp(now)
}

func (f *Frontend) touch(now time.Time) {
	touched(&f.CreatedAt, &f.UpdatedAt, now)
	for i := range f.Rules {
		f.Rules[i].touch(now)
	}
	for i := range f.TLSConfigs {
		f.TLSConfigs[i].touch(now)
	}
}

func (k *Backend) touch(now time.Time) {
	touched(&k.CreatedAt, &k.UpdatedAt, now)
	for i := range k.Members {
		k.Members[i].touch(now)
	}
	for i := range k.TLSConfigs {
		k.TLSConfigs[i].touch(now)
	}
}

func (r *Rule) touch(now time.Time)      { touched(&r.CreatedAt, &r.UpdatedAt, now) }
func (m *Member) touch(now time.Time)    { touched(&m.CreatedAt, &m.UpdatedAt, now) }
func (r *Resolver) touch(now time.Time)  { touched(&r.CreatedAt, &r.UpdatedAt, now) }
func (t *TLSConfig) touch(now time.Time) { touched(&t.CreatedAt, &t.UpdatedAt, now) }

// clone returns a copy that shares nothing that changes with lb: a change is made to the copy, which takes lb's place
// when it is valid, and data planes keep what they were given.
func (lb LoadBalancer) clone() LoadBalancer {
	lb.Frontends = slices.Clone(lb.Frontends)
	for i := range lb.Frontends {
		f := &lb.Frontends[i]
		f.Networks, f.Rules, f.TLSConfigs = slices.Clone(f.Networks), slices.Clone(f.Rules), slices.Clone(f.TLSConfigs)
		for j := range f.Rules {
			f.Rules[j].Matchers = slices.Clone(f.Rules[j].Matchers) // checking fills in defaults
		}
	}
	lb.Backends = slices.Clone(lb.Backends)
	for i := range lb.Backends {
		k := &lb.Backends[i]
		k.Members, k.TLSConfigs = slices.Clone(k.Members), slices.Clone(k.TLSConfigs)
	}
	lb.Resolvers, lb.Networks = slices.Clone(lb.Resolvers), slices.Clone(lb.Networks)
	lb.Labels, lb.IPAddresses, lb.Nodes = slices.Clone(lb.Labels), slices.Clone(lb.IPAddresses), slices.Clone(lb.Nodes)
	return lb
}
