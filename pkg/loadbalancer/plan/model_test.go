package plan

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// The model is the API as far as Diff sees it: it does what a call does to a load balancer, refuses what the API refuses, and
// answers normalised, with defaults filled in and lists in an order of its own.

// made is the load balancer that a Desired state makes.
func made(t testing.TB, d Desired) *cloud.LoadBalancer {
	t.Helper()
	lb := d.Create(placeOfTests(), "development", 1000)
	lb.ID, lb.State = "0a", "running"
	for i := range lb.Backends {
		lb.Backends[i] = normalBackend(lb.Backends[i])
	}
	for i := range lb.Frontends {
		lb.Frontends[i] = normalFrontend(lb.Frontends[i])
	}
	return copied(t, &lb)
}

// copied is the load balancer as it comes out of JSON: with numbers that are float64, and sharing nothing.
func copied(t testing.TB, lb *cloud.LoadBalancer) *cloud.LoadBalancer {
	t.Helper()
	text, err := json.Marshal(lb)
	if err != nil {
		t.Fatal(err)
	}
	out := &cloud.LoadBalancer{}
	if err := json.Unmarshal(text, out); err != nil {
		t.Fatal(err)
	}
	return out
}

var modelBackendDefaults = cloud.Properties{
	"timeout_server": 10, "timeout_tunnel": 3600, "health_check_type": "tcp", "health_check_interval": 10, "health_check_fall": 3,
	"health_check_rise": 3, "health_check_url": "/", "health_check_expected_status": 200, "health_check_tls_verify": false,
	"health_check_on_down": "", "outbound_proxy_protocol": "", "sticky_session_cookie_name": "",
	"sticky_session_cookie_attributes": nil, "tls_enabled": false, "tls_verify": false, "tls_use_system_ca": false, "http2_enabled": false,
}

func normalBackend(b cloud.Backend) cloud.Backend {
	b.Properties = filled(modelBackendDefaults, b.Properties)
	return b
}

func normalFrontend(f cloud.Frontend) cloud.Frontend {
	f.Properties = filled(cloud.Properties{"timeout_client": 10, "http2_enabled": false}, f.Properties)
	f.Rules = slices.Clone(f.Rules)
	for i := range f.Rules {
		f.Rules[i] = normalRule(f.Rules[i])
	}
	return f
}

func filled(defaults, given cloud.Properties) cloud.Properties {
	all := cloud.Properties{}
	for _, from := range []cloud.Properties{defaults, given} {
		for name, value := range from {
			all[name] = value
		}
	}
	return all
}

// normalRule fills in what the API does: inverse, ignore_case, a redirect's status; and turns the matchers round.
func normalRule(r cloud.Rule) cloud.Rule {
	fill := func(text json.RawMessage, extra map[string]any) json.RawMessage {
		fields, _ := decoded(text).(map[string]any)
		for name, value := range extra {
			if _, there := fields[name]; !there {
				fields[name] = value
			}
		}
		if detail, ok := fields["match_path"].(map[string]any); ok && detail["ignore_case"] == nil {
			detail["ignore_case"] = false
		}
		if detail, ok := fields["action_http_redirect"].(map[string]any); ok && detail["status"] == nil {
			detail["status"] = 302
		}
		out, _ := json.Marshal(fields)
		return out
	}
	r.Matchers, r.Actions = slices.Clone(r.Matchers), slices.Clone(r.Actions)
	for i := range r.Matchers {
		r.Matchers[i] = fill(r.Matchers[i], map[string]any{"inverse": false})
	}
	for i := range r.Actions {
		r.Actions[i] = fill(r.Actions[i], nil)
	}
	slices.Reverse(r.Matchers)
	if r.MatchingCondition == "" {
		r.MatchingCondition = "and"
	}
	return r
}

// carryOut does to lb what the API does.
func carryOut(t testing.TB, lb *cloud.LoadBalancer, change Change) {
	t.Helper()
	frontend, backend := frontendOf(lb, change.Owner.Frontend+change.Name), backendOfModel(lb, change.Name)
	if change.Owner.Frontend != "" {
		frontend = frontendOf(lb, change.Owner.Frontend)
	}
	need := func(there bool, what string) {
		t.Helper()
		if !there {
			t.Fatalf("%s: %s", change, what)
		}
	}
	switch {
	case change.CreateLabel != nil:
		_, there := lb.Labels[change.Name]
		need(!there, "the label exists")
		lb.Labels[change.Name] = *change.CreateLabel
	case change.ModifyLabel != nil:
		_, there := lb.Labels[change.Name]
		need(there, "there is no such label")
		lb.Labels[change.Name] = *change.ModifyLabel
	case change.DeleteLabel:
		delete(lb.Labels, change.Name)
	case change.ModifyLoad != nil:
		text, _ := json.Marshal(change.ModifyLoad)
		_ = json.Unmarshal(text, lb)
	case change.CreateBackend != nil:
		need(backend == nil, "it exists")
		lb.Backends = append(lb.Backends, normalBackend(*change.CreateBackend))
	case change.ModifyBackend != nil:
		need(backend != nil, "there is none")
		if change.ModifyBackend.Members != nil {
			backend.Members = change.ModifyBackend.Members
		}
		if change.ModifyBackend.Resolver != nil {
			backend.Resolver = *change.ModifyBackend.Resolver
		}
		backend.Properties = filled(backend.Properties, change.ModifyBackend.Properties)
	case change.DeleteBackend:
		lb.Backends = slices.DeleteFunc(lb.Backends, func(b cloud.Backend) bool { return b.Name == change.Name })
	case change.CreateResolver != nil:
		lb.Resolvers = append(lb.Resolvers, *change.CreateResolver)
	case change.ReplaceResolver != nil, change.DeleteResolver:
		lb.Resolvers = slices.DeleteFunc(lb.Resolvers, func(r cloud.Resolver) bool { return r.Name == change.Name })
		if change.ReplaceResolver != nil {
			lb.Resolvers = append(lb.Resolvers, *change.ReplaceResolver)
		}
	case change.AttachAddress != nil:
		lb.Addresses = append(lb.Addresses, *change.AttachAddress)
	case change.DetachAddress:
		lb.Addresses = slices.DeleteFunc(lb.Addresses, func(a cloud.FloatingAddress) bool { return a.Address == change.Name })
	case change.CreateTLS != nil, change.ModifyTLS != nil, change.DeleteTLS:
		list := &[]cloud.TLSConfig{}
		if frontend != nil {
			list = &frontend.TLSConfigs
		} else if b := backendOfModel(lb, change.Owner.Backend); b != nil {
			list = &b.TLSConfigs
		} else {
			t.Fatalf("%s: there is no such owner", change)
		}
		carryOutTLS(t, list, change)
	case change.CreateFrontend != nil:
		need(frontend == nil, "it exists")
		lb.Frontends = append(lb.Frontends, normalFrontend(*change.CreateFrontend))
	case change.DeleteFrontend:
		lb.Frontends = slices.DeleteFunc(lb.Frontends, func(f cloud.Frontend) bool { return f.Name == change.Name })
	case change.DeleteBundles != nil:
	default:
		need(frontend != nil, "there is no such frontend")
		carryOutFrontend(t, frontend, change)
	}
	consistent(t, lb, change)
}

func carryOutTLS(t testing.TB, list *[]cloud.TLSConfig, change Change) {
	t.Helper()
	i := slices.IndexFunc(*list, func(c cloud.TLSConfig) bool { return c.Name == change.Name })
	switch {
	case change.CreateTLS != nil && i < 0:
		*list = append(slices.Clone(*list), *change.CreateTLS)
	case change.ModifyTLS != nil && i >= 0:
		*list = slices.Clone(*list)
		(*list)[i] = *change.ModifyTLS
	case change.DeleteTLS && i >= 0:
		*list = slices.Delete(slices.Clone(*list), i, i+1)
	default:
		t.Fatalf("%s: at %d of %v", change, i, *list)
	}
}

func carryOutFrontend(t testing.TB, frontend *cloud.Frontend, change Change) {
	t.Helper()
	i := slices.IndexFunc(frontend.Rules, func(r cloud.Rule) bool { return r.Name == change.Name })
	frontend.Rules = slices.Clone(frontend.Rules)
	switch {
	case change.RenameFrontend != "":
		frontend.Name = change.RenameFrontend
	case change.ModifyFrontend != nil:
		text, _ := json.Marshal(change.ModifyFrontend)
		properties := filled(frontend.Properties, change.ModifyFrontend.Properties)
		var patched struct {
			Mode           *string                 `json:"mode"`
			Port           *int                    `json:"port"`
			DefaultBackend *string                 `json:"default_backend"`
			Networks       []cloud.FrontendNetwork `json:"networks"`
		}
		_ = json.Unmarshal(text, &patched)
		if patched.Mode != nil {
			frontend.Mode = *patched.Mode
		}
		if patched.Port != nil {
			frontend.Port = *patched.Port
		}
		if patched.DefaultBackend != nil {
			frontend.DefaultBackend = *patched.DefaultBackend
		}
		if patched.Networks != nil {
			frontend.Networks = patched.Networks
		}
		frontend.Properties = properties
	case change.CreateRule != nil && i < 0:
		frontend.Rules = append(frontend.Rules, normalRule(*change.CreateRule))
	case change.ReplaceRule != nil && i >= 0:
		frontend.Rules[i] = normalRule(*change.ReplaceRule)
	case change.DeleteRule && i >= 0:
		frontend.Rules = slices.Delete(frontend.Rules, i, i+1)
	default:
		t.Fatalf("%s: cannot be done to %v", change, frontend)
	}
}

// consistent fails where the API would refuse the load balancer as it is.
func consistent(t testing.TB, lb *cloud.LoadBalancer, change Change) {
	t.Helper()
	ports, backends, resolvers := map[int]string{}, backendsByName(lb), map[string]bool{"": true}
	for _, resolver := range lb.Resolvers {
		resolvers[resolver.Name] = true
	}
	for _, backend := range lb.Backends {
		if !resolvers[backend.Resolver] {
			t.Fatalf("%s: backend %s has no resolver %s", change, backend.Name, backend.Resolver)
		}
	}
	for _, frontend := range lb.Frontends {
		if other, ok := ports[frontend.Port]; ok {
			t.Fatalf("%s: frontends %s and %s are both on port %d", change, frontend.Name, other, frontend.Port)
		}
		ports[frontend.Port] = frontend.Name
		if _, ok := backends[frontend.DefaultBackend]; !ok {
			t.Fatalf("%s: frontend %s leads to no backend", change, frontend.Name)
		}
		if frontend.Properties["http2_enabled"] == true && len(frontend.TLSConfigs) == 0 {
			t.Fatalf("%s: frontend %s has HTTP/2 and no certificate", change, frontend.Name)
		}
		for _, rule := range frontend.Rules {
			if frontend.Mode == "tcp" && settings.RuleNeedsHTTP(rule) {
				t.Fatalf("%s: frontend %s has mode tcp, and rule %s", change, frontend.Name, rule.Name)
			}
			for _, action := range rule.Actions {
				if name := backendOf(action); name != "" {
					if _, ok := backends[name]; !ok {
						t.Fatalf("%s: rule %s leads to no backend", change, rule.Name)
					}
				}
			}
		}
	}
}

func frontendOf(lb *cloud.LoadBalancer, name string) *cloud.Frontend {
	for i := range lb.Frontends {
		if lb.Frontends[i].Name == name {
			return &lb.Frontends[i]
		}
	}
	return nil
}

func backendOfModel(lb *cloud.LoadBalancer, name string) *cloud.Backend {
	for i := range lb.Backends {
		if lb.Backends[i].Name == name {
			return &lb.Backends[i]
		}
	}
	return nil
}
