package haproxy

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// rendered is a load balancer as HAProxy reads it: a configuration, and the files that it names.
type rendered struct {
	config []byte
	files  map[string][]byte
}

// fingerprint tells configurations apart, by their files' contents, too.
func (r *rendered) fingerprint() [sha256.Size]byte {
	all := sha256.New()
	all.Write(r.config)
	for _, path := range slices.Sorted(maps.Keys(r.files)) {
		fmt.Fprintf(all, "%s %d\n", path, len(r.files[path]))
		all.Write(r.files[path])
	}
	return [sha256.Size]byte(all.Sum(nil))
}

// render writes a load balancer as an HAProxy configuration.
func render(spec simulator.LoadBalancerSpec, dir string, rules RuleEvaluation) (*rendered, error) {
	var b bytes.Buffer
	lb := spec.LoadBalancer
	files := map[string][]byte{}
	for uuid, pem := range spec.Certificates {
		files[certificatePath(dir, uuid)] = pem
	}
	fmt.Fprintf(&b, "# load balancer %s\nglobal\n  stats socket unix@stats.sock mode 600 level operator\n"+
		"  server-state-file %s\n", lb.UUID, healthPath(dir))
	if spec.MaxSessions > 0 {
		fmt.Fprintf(&b, "  maxconn %d\n", min(spec.MaxSessions, mostSessions()))
	}
	b.WriteString("  hard-stop-after 1h\n  ssl-server-verify none\n\ndefaults\n  timeout connect 10s\n" +
		"  timeout client 10s\n  timeout server 10s\n  retries 3\n  option redispatch\n  option idle-close-on-response\n  load-server-state-from-file global\n\n")
	for _, r := range lb.Resolvers {
		renderResolver(&b, r)
	}
	if lb.ConfiguredStatus == "started" {
		for _, f := range lb.Frontends {
			if err := renderFrontend(&b, spec, f, dir, files, rules); err != nil {
				return nil, fmt.Errorf("frontend %s: %w", f.Name, err)
			}
		}
	}
	modes := backendModes(lb)
	for _, be := range lb.Backends {
		if ca := authorities(spec, be); len(ca) > 0 {
			files[authoritiesPath(dir, be.Name)] = ca
		}
		for _, mode := range modes[be.Name] {
			renderBackend(&b, be, mode, spec, dir)
		}
	}
	if bytes.Count(b.Bytes(), []byte("\nfrontend ")) == 0 {
		// HAProxy does not run without a listener: this one cannot be reached from outside
		b.WriteString("\nfrontend idle\n  bind unix@idle.sock\n  mode tcp\n")
	}
	return &rendered{b.Bytes(), files}, nil
}

func renderResolver(b *bytes.Buffer, r simulator.Resolver) {
	fmt.Fprintf(b, "resolvers %s\n", r.Name)
	for i, ns := range r.Nameservers {
		if a, err := netip.ParseAddr(ns); err == nil {
			ns = netip.AddrPortFrom(a, 53).String()
		}
		fmt.Fprintf(b, "  nameserver ns%d %s\n", i+1, ns)
	}
	fmt.Fprintf(b, "  resolve_retries %d\n  timeout resolve %ds\n  timeout retry %ds\n  hold valid %ds\n  hold obsolete %ds\n\n",
		r.Retries, r.Timeout, r.TimeoutRetry, r.CacheValid, r.CacheInvalid)
}

// backendModes says in which modes each backend is used: a backend has none of its own, and takes its frontend's.
func backendModes(lb simulator.LoadBalancer) map[string][]string {
	modes := map[string][]string{}
	add := func(backend, mode string) {
		if !slices.Contains(modes[backend], mode) {
			modes[backend] = append(modes[backend], mode)
		}
	}
	for _, f := range lb.Frontends {
		add(f.DefaultBackend, f.Mode)
		for _, r := range f.Rules {
			for _, a := range r.Actions {
				if parsed, err := parseAction(a); err == nil && parsed.Type == "use_backend" {
					add(parsed.UseBackend.Backend, f.Mode)
				}
			}
			for _, raw := range r.Matchers {
				var m matcher
				if err := json.Unmarshal(raw, &m); err == nil && m.Type == "num_members_up" {
					add(m.NumMembersUp.Backend, f.Mode) // its members' health is asked for
				}
			}
		}
	}
	return modes
}

func backendName(name, mode string) string { return "be_" + mode + "_" + name }

func renderFrontend(b *bytes.Buffer, spec simulator.LoadBalancerSpec, f simulator.Frontend, dir string,
	files map[string][]byte, evaluation RuleEvaluation) error {
	var listen []netip.Addr
	for _, n := range f.Networks {
		listen = union(listen, spec.Addresses[n.Name])
	}
	if len(listen) == 0 {
		return nil
	}
	certificates := usable(spec, f.TLSConfigs)
	if len(f.TLSConfigs) > 0 && len(certificates) == 0 {
		return nil // no certificate has been issued yet
	}
	fmt.Fprintf(b, "frontend fe_%s\n  mode %s\n", f.Name, f.Mode)
	options := ""
	if p := f.Properties.InboundProxyProtocol; p != nil && *p {
		options += " accept-proxy"
	}
	if len(f.TLSConfigs) > 0 {
		options += " ssl"
		for _, uuid := range certificates {
			options += " crt " + certificatePath(dir, uuid)
		}
		if f.Properties.HTTP2Enabled {
			options += " alpn h2,http/1.1"
		}
	}
	for _, a := range listen {
		fmt.Fprintf(b, "  bind %s%s\n", netip.AddrPortFrom(a, uint16(f.Port)), options)
	}
	fmt.Fprintf(b, "  timeout client %ds\n", f.Properties.TimeoutClient)
	rules := slices.Clone(f.Rules)
	slices.SortFunc(rules, func(x, y simulator.Rule) int { // the API's document: of one priority, by name
		return cmp.Or(y.Priority-x.Priority, strings.Compare(x.Name, y.Name))
	})
	if f.Mode == "http" && len(rules) > 0 {
		b.WriteString(schemelessURL)
	}
	for n, raw := range rules {
		r, err := parseRule(n, raw, f, dir)
		if err == nil {
			r.first = evaluation != AllRules
			err = r.render(b)
		}
		if err != nil {
			return fmt.Errorf("rule %s: %w", raw.Name, err)
		}
		maps.Copy(files, r.payloads())
	}
	fmt.Fprintf(b, "  default_backend %s\n\n", backendName(f.DefaultBackend, f.Mode))
	return nil
}

// usable returns the bundles that have a certificate.
func usable(spec simulator.LoadBalancerSpec, list []simulator.TLSConfig) []string {
	var out []string
	for _, t := range list {
		if bytes.Contains(spec.Certificates[t.CertificateBundleUUID], []byte("BEGIN CERTIFICATE")) {
			out = append(out, t.CertificateBundleUUID)
		}
	}
	return out
}

func renderBackend(b *bytes.Buffer, be simulator.Backend, mode string, spec simulator.LoadBalancerSpec, dir string) {
	p := be.Properties
	fmt.Fprintf(b, "backend %s\n  mode %s\n  balance roundrobin\n  timeout server %ds\n  timeout tunnel %ds\n",
		backendName(be.Name, mode), mode, p.TimeoutServer, p.TimeoutTunnel)
	check := parseHealthCheck(p.HealthCheckURL)
	if p.HealthCheckType == "http" {
		fmt.Fprintf(b, "  option httpchk\n  http-check send meth GET uri %s%s\n  http-check expect status %d\n", quote(check.path),
			check.host, p.HealthCheckExpectedStatus)
	}
	if p.StickySessionCookieName != "" && mode == "http" {
		fmt.Fprintf(b, "  cookie %s insert indirect nocache%s\n", quote(p.StickySessionCookieName),
			cookieAttributes(p.StickySessionAttributes))
	}
	server := fmt.Sprintf(" check inter %ds fall %d rise %d", p.HealthCheckInterval, p.HealthCheckFall, p.HealthCheckRise)
	elsewhere := p.HealthCheckType == "http" && check.port != ""
	if elsewhere {
		server += " port " + check.port
	}
	switch p.OutboundProxyProtocol {
	case "v1":
		server += " send-proxy"
	case "v2":
		server += " send-proxy-v2"
	}
	if p.OutboundProxyProtocol != "" && !elsewhere {
		server += " check-send-proxy"
	}
	if p.HealthCheckOnDown == "shutdown-sessions" {
		server += " on-marked-down shutdown-sessions"
	}
	if p.TLSEnabled {
		server += tlsToMembers(spec, be, dir)
	}
	for _, m := range be.Members {
		renderMember(b, be, m, mode, server, portOf(spec.LoadBalancer, be.Name))
	}
	b.WriteString("\n")
}

// healthCheck is what a health check asks for over HTTP.
type healthCheck struct {
	path, port string // port is empty for the member's own
	host       string // a directive with the Host header, or nothing
}

// parseHealthCheck reads a health check's URL: a path, or one such as http://:32000/healthz, which is asked of another port of
// the member. UpCloud's own cloud controller manager has the nodes of a Service with externalTrafficPolicy Local checked so.
func parseHealthCheck(text string) healthCheck {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return healthCheck{path: text}
	}
	check := healthCheck{path: u.RequestURI(), port: u.Port()}
	if u.Hostname() != "" {
		check.host = " hdr Host " + quote(u.Hostname())
	}
	return check
}

// tlsToMembers uses a bundle with a key as the load balancer's own certificate, those without as the members' authorities.
func tlsToMembers(spec simulator.LoadBalancerSpec, be simulator.Backend, dir string) string {
	out, authorities := " ssl", []string{}
	for _, t := range be.TLSConfigs {
		path := certificatePath(dir, t.CertificateBundleUUID)
		if bytes.Contains(spec.Certificates[t.CertificateBundleUUID], []byte("PRIVATE KEY-----")) {
			out += " crt " + path
		} else {
			authorities = append(authorities, path)
		}
	}
	switch {
	case !be.Properties.TLSVerify:
		out += " verify none"
	case be.Properties.TLSUseSystemCA || len(authorities) == 0:
		out += " verify required ca-file @system-ca"
	default:
		out += " verify required ca-file " + authoritiesPath(dir, be.Name)
	}
	if be.Properties.HTTP2Enabled {
		out += " alpn h2,http/1.1"
	}
	return out
}

// authorities are the certificates of all authorities that a backend's members are verified with, in one file.
func authorities(spec simulator.LoadBalancerSpec, be simulator.Backend) []byte {
	var out []byte
	for _, t := range be.TLSConfigs {
		if pem := spec.Certificates[t.CertificateBundleUUID]; !bytes.Contains(pem, []byte("PRIVATE KEY-----")) {
			out = append(append(out, pem...), '\n')
		}
	}
	return out
}

func authoritiesPath(dir, backend string) string { return filepath.Join(dir, "be_"+backend+".ca.pem") }

// cookieAttributes turns "SameSite=Lax; Secure; HttpOnly" into HAProxy's words.
func cookieAttributes(raw json.RawMessage) string {
	var text, out string
	if json.Unmarshal(raw, &text) != nil {
		return ""
	}
	for _, attribute := range strings.Split(text, ";") {
		switch attribute = strings.TrimSpace(attribute); strings.ToLower(attribute) {
		case "":
		case "secure":
			out += " secure"
		case "httponly":
			out += " httponly"
		default:
			out += " attr " + quote(attribute)
		}
	}
	return out
}

// renderMember writes a member. A dynamic one is found by its name, by way of the backend's resolver; its IP address, if
// any, is used until it is found. Without a port it is reached at the port of the frontend.
func renderMember(b *bytes.Buffer, be simulator.Backend, m simulator.Member, mode, options string, frontendPort int) {
	port := m.Port
	if port == 0 {
		port = frontendPort
	}
	if mode == "http" && be.Properties.StickySessionCookieName != "" {
		options += " cookie " + quote(m.Name)
	}
	if m.MaxSessions > 0 {
		options += fmt.Sprintf(" maxconn %d", m.MaxSessions)
	}
	if m.Backup {
		options += " backup"
	}
	if !m.Enabled {
		options += " disabled"
	}
	address := net.JoinHostPort(m.IP, strconv.Itoa(port))
	if m.Type == "dynamic" {
		address = net.JoinHostPort(m.Name, strconv.Itoa(port))
		first := "none"
		if m.IP != "" {
			first = m.IP
		}
		options += " init-addr " + first
		if be.Resolver != "" {
			options += " resolvers " + be.Resolver + " resolve-prefer ipv4"
		}
	}
	// HAProxy's weights go to 256, the API's to 100: the same proportions
	fmt.Fprintf(b, "  server %s %s weight %d%s\n", m.Name, address, m.Weight, options)
}

func certificatePath(dir, bundle string) string { return filepath.Join(dir, bundle+".pem") }

// write writes the files that the configuration names.
func (r *rendered) write() error {
	var errs []error
	for path, content := range r.files {
		errs = append(errs, os.WriteFile(path, content, 0o600))
	}
	return errors.Join(errs...)
}

// portOf is the port of the first frontend that sends to the backend by default.
func portOf(lb simulator.LoadBalancer, backend string) int {
	for _, f := range lb.Frontends {
		if f.DefaultBackend == backend {
			return f.Port
		}
	}
	return 80
}
