package simulator

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Rules of the Terraform provider's validators and the SDK's comments; ports and counts as UpCloud documents them.
var componentName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

const nameReason = "Must match the pattern ^[a-zA-Z0-9_-]{1,64}$."

var maintenanceTime = regexp.MustCompile(`^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$`)

// validator collects what is wrong with a load balancer.
type validator struct{ invalid []invalidParam }

func (v *validator) add(ok bool, name, reason string, args ...any) {
	if !ok {
		v.invalid = append(v.invalid, invalidParam{name, fmt.Sprintf(reason, args...)})
	}
}

func (v *validator) within(n, smallest, largest int, name string) {
	v.add(n >= smallest && n <= largest, name, "Must be between %d and %d.", smallest, largest)
}

func (v *validator) oneOf(text, name string, known ...string) {
	v.add(slices.Contains(known, text), name, "Must be one of %q.", known)
}

func (v *validator) unique(names map[string]bool, name, path string) {
	v.add(componentName.MatchString(name), path, nameReason)
	v.add(!names[name], path, "The name '%s' is used twice.", name)
	names[name] = true
}

// checkLoadBalancer says everything that is wrong with a load balancer, as one problem.
func (s *Simulator) checkLoadBalancer(lb *LoadBalancer) error {
	var v validator
	v.add(componentName.MatchString(lb.Name), "name", nameReason)
	_, known := loadBalancerPlanByName(lb.Plan)
	v.add(known, "plan", "The plan '%s' does not exist.", lb.Plan)
	v.oneOf(lb.ConfiguredStatus, "configured_status", "started", "stopped")
	v.oneOf(lb.MaintenanceDOW, "maintenance_dow", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
	v.add(maintenanceTime.MatchString(lb.MaintenanceTime), "maintenance_time", "Must be a time such as 03:15:00Z.")
	v.add(s.checkZone(lb.Zone) == nil, "zone", "The zone '%s' does not exist.", lb.Zone)
	if err := checkLabels(lb.Labels); err != nil {
		v.add(false, "labels", "%s", err.Error())
	}
	s.checkLoadBalancerNetworks(&v, lb)
	names := map[string]bool{}
	for i := range lb.Resolvers {
		r, path := &lb.Resolvers[i], fmt.Sprintf("resolvers.%d.", i)
		v.unique(names, r.Name, path+"name")
		v.within(len(r.Nameservers), 1, 10, path+"nameservers")
		for j, ns := range r.Nameservers {
			v.add(addressOrAddressPort(ns), fmt.Sprintf("%snameservers.%d", path, j),
				"Must be an IP address, with or without a port.")
		}
		v.within(r.Retries, 1, 10, path+"retries")
		v.within(r.Timeout, 1, 60, path+"timeout")
		v.within(r.TimeoutRetry, 1, 60, path+"timeout_retry")
		v.within(r.CacheValid, 1, 86400, path+"cache_valid")
		v.within(r.CacheInvalid, 1, 86400, path+"cache_invalid")
	}
	names = map[string]bool{}
	for i := range lb.Backends {
		s.checkBackend(&v, lb, &lb.Backends[i], fmt.Sprintf("backends.%d.", i), names)
	}
	names = map[string]bool{}
	ports := map[string]bool{}
	for i := range lb.Frontends {
		s.checkFrontend(&v, lb, &lb.Frontends[i], fmt.Sprintf("frontends.%d.", i), names, ports)
	}
	if len(v.invalid) > 0 {
		return invalid(v.invalid...)
	}
	return nil
}

func addressOrAddressPort(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	_, err := netip.ParseAddrPort(text)
	return err == nil
}

const maxLoadBalancerNetworks = 8

func (s *Simulator) checkLoadBalancerNetworks(v *validator, lb *LoadBalancer) {
	v.within(len(lb.Networks), 1, maxLoadBalancerNetworks, "networks")
	names := map[string]bool{}
	private := false
	for i, n := range lb.Networks {
		path := fmt.Sprintf("networks.%d.", i)
		v.unique(names, n.Name, path+"name")
		v.oneOf(n.Type, path+"type", networkPublic, networkPrivate)
		v.oneOf(n.Family, path+"family", familyIPv4)
		if n.Type != networkPrivate {
			v.add(n.UUID == "", path+"uuid", "Only private networks have one.")
			continue
		}
		private = true
		own, err := s.network(n.UUID)
		v.add(err == nil && own.kind == networkPrivate, path+"uuid", "The private network '%s' does not exist.", n.UUID)
		if err == nil {
			v.add(s.inZone(own.zone, lb.Zone), path+"uuid", "The network is in the zone '%s', not in '%s'.", own.zone, lb.Zone)
		}
	}
	v.add(private, "networks", "At least one private network is required.")
}

// inZone says whether a network of zone serves load balancers of the other zone: its own, or its parent.
func (s *Simulator) inZone(id, of string) bool {
	if id == of {
		return true
	}
	return slices.ContainsFunc(s.zones, func(z zone) bool { return z.ID == id && z.ParentZone == of })
}

func (s *Simulator) checkBackend(v *validator, lb *LoadBalancer, k *Backend, path string, names map[string]bool) {
	v.unique(names, k.Name, path+"name")
	known := func(r Resolver) bool { return r.Name == k.Resolver }
	v.add(k.Resolver == "" || slices.ContainsFunc(lb.Resolvers, known), path+"resolver",
		"The resolver '%s' does not exist.", k.Resolver)
	p, at := &k.Properties, path+"properties."
	v.within(p.TimeoutServer, 1, maxTimeout, at+"timeout_server")
	v.within(p.TimeoutTunnel, 1, maxTunnel, at+"timeout_tunnel")
	v.within(p.HealthCheckInterval, 1, 86400, at+"health_check_interval")
	v.within(p.HealthCheckFall, 1, 100, at+"health_check_fall")
	v.within(p.HealthCheckRise, 1, 100, at+"health_check_rise")
	v.within(p.HealthCheckExpectedStatus, 100, 599, at+"health_check_expected_status")
	v.within(len(p.HealthCheckURL), 1, 255, at+"health_check_url")
	v.within(len(p.StickySessionCookieName), 0, 64, at+"sticky_session_cookie_name")
	v.add(cookieName.MatchString(p.StickySessionCookieName), at+"sticky_session_cookie_name", "Must be a cookie's name.")
	v.oneOf(p.HealthCheckType, at+"health_check_type", "tcp", "http")
	v.oneOf(p.HealthCheckOnDown, at+"health_check_on_down", "", "shutdown-sessions")
	checkCookieAttributes(v, p.StickySessionAttributes, at+"sticky_session_cookie_attributes")
	v.oneOf(p.OutboundProxyProtocol, at+"outbound_proxy_protocol", "", "v1", "v2")
	members := map[string]bool{}
	for i := range k.Members {
		checkMember(v, &k.Members[i], fmt.Sprintf("%smembers.%d.", path, i), members)
	}
	s.checkTLSConfigs(v, k.TLSConfigs, path, bundleAuthority, bundleManual)
}

var (
	cookieName = regexp.MustCompile(`^[A-Za-z0-9_.-]*$`)
	headerName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)
)

const maxMemberSessions = 500000

// maxTimeout is the OpenAPI document's, in seconds; of tunnels the Terraform provider allows more.
const maxTimeout, maxTunnel = 2145600, 3024000

// checkCookieAttributes takes null, or text such as "SameSite=Lax; Secure; HttpOnly".
func checkCookieAttributes(v *validator, raw json.RawMessage, path string) {
	if len(raw) == 0 || string(raw) == "null" {
		return
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil || len(text) > 64 {
		v.add(false, path, "Must be null or a text of at most 64 characters.")
		return
	}
	known, secure, needsSecure := true, false, false
	for _, attribute := range strings.Split(text, ";") {
		switch strings.TrimSpace(attribute) {
		case "Secure":
			secure = true
		case "SameSite=None", "Partitioned":
			needsSecure = true
		case "", "SameSite=Strict", "SameSite=Lax", "HttpOnly":
		default:
			known = false
		}
	}
	v.add(known, path, "Must be made of SameSite=Strict|Lax|None, Secure, HttpOnly, Partitioned, with semicolons between.")
	v.add(secure || !needsSecure, path, "SameSite=None and Partitioned require Secure.")
}

// memberName is a domain name: a dynamic member is found by it.
var memberName = regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,253}[a-zA-Z0-9_])?$`)

func checkMember(v *validator, m *Member, path string, names map[string]bool) {
	v.add(memberName.MatchString(m.Name), path+"name", "Must be a domain name.")
	v.add(!names[m.Name], path+"name", "The name '%s' is used twice.", m.Name)
	names[m.Name] = true
	v.oneOf(m.Type, path+"type", "static", "dynamic")
	v.within(m.Weight, 0, 100, path+"weight")
	v.within(m.MaxSessions, 0, maxMemberSessions, path+"max_sessions")
	if m.IP != "" || m.Type == "static" {
		_, err := netip.ParseAddr(m.IP)
		v.add(err == nil, path+"ip", "Must be an IP address.")
	}
	if m.Port != 0 || m.Type == "static" {
		v.within(m.Port, 1, 65535, path+"port")
	}
}

func (s *Simulator) checkTLSConfigs(v *validator, list []TLSConfig, path string, kinds ...string) {
	names := map[string]bool{}
	for i, t := range list {
		at := fmt.Sprintf("%stls_configs.%d.", path, i)
		v.unique(names, t.Name, at+"name")
		b, ok := s.bundles.get(t.CertificateBundleUUID)
		v.add(ok && slices.Contains(kinds, b.Type), at+"certificate_bundle_uuid",
			"The certificate bundle '%s' does not exist.", t.CertificateBundleUUID)
	}
}

func (s *Simulator) checkFrontend(v *validator, lb *LoadBalancer, f *Frontend, path string, names, ports map[string]bool) {
	v.unique(names, f.Name, path+"name")
	v.oneOf(f.Mode, path+"mode", "http", "tcp")
	v.within(f.Port, 1, 65535, path+"port")
	v.add(lb.hasBackend(f.DefaultBackend), path+"default_backend", "The backend '%s' does not exist.", f.DefaultBackend)
	v.within(f.Properties.TimeoutClient, 1, 86400, path+"properties.timeout_client")
	v.add(!f.Properties.HTTP2Enabled || len(f.TLSConfigs) > 0, path+"properties.http2_enabled",
		"At least one certificate bundle must be attached to enable HTTP/2.")
	for i, n := range f.Networks {
		known := func(o LoadBalancerNetwork) bool { return o.Name == n.Name }
		v.add(slices.ContainsFunc(lb.Networks, known), fmt.Sprintf("%snetworks.%d.name", path, i),
			"The network '%s' does not exist.", n.Name)
		listener := fmt.Sprintf("%s %d", n.Name, f.Port)
		v.add(!ports[listener], path+"port", "The port %d of the network '%s' is used by another frontend.", f.Port, n.Name)
		ports[listener] = true
	}
	rules := map[string]bool{}
	for i := range f.Rules {
		checkRule(v, lb, &f.Rules[i], fmt.Sprintf("%srules.%d.", path, i), rules)
	}
	s.checkTLSConfigs(v, f.TLSConfigs, path, bundleManual, bundleDynamic)
}

func (lb *LoadBalancer) hasBackend(name string) bool {
	return slices.ContainsFunc(lb.Backends, func(k Backend) bool { return k.Name == name })
}
