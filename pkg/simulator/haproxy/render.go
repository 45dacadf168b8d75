package haproxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// render writes a load balancer as an HAProxy configuration.
func render(spec simulator.LoadBalancerSpec, dir string) ([]byte, error) {
	var b bytes.Buffer
	lb := spec.LoadBalancer
	fmt.Fprintf(&b, "# load balancer %s\nglobal\n", lb.UUID)
	if spec.MaxSessions > 0 {
		fmt.Fprintf(&b, "  maxconn %d\n", spec.MaxSessions)
	}
	b.WriteString("  hard-stop-after 1h\n  ssl-server-verify none\n\ndefaults\n  timeout connect 10s\n  timeout client 10s\n  timeout server 10s\n" +
		"  retries 3\n  option redispatch\n\n")
	for _, r := range lb.Resolvers {
		renderResolver(&b, r)
	}
	if lb.ConfiguredStatus == "started" {
		for _, f := range lb.Frontends {
			if err := renderFrontend(&b, spec, f, dir); err != nil {
				return nil, fmt.Errorf("frontend %s: %w", f.Name, err)
			}
		}
	}
	modes := backendModes(lb)
	for _, be := range lb.Backends {
		for _, mode := range modes[be.Name] {
			renderBackend(&b, be, mode, spec, dir)
		}
	}
	if bytes.Count(b.Bytes(), []byte("\nfrontend ")) == 0 {
		// HAProxy does not run without a listener: this one cannot be reached from outside
		b.WriteString("\nfrontend idle\n  bind unix@idle.sock\n  mode tcp\n")
	}
	return b.Bytes(), nil
}

func renderResolver(b *bytes.Buffer, r simulator.Resolver) {
	fmt.Fprintf(b, "resolvers %s\n", r.Name)
	for i, ns := range r.Nameservers {
		if !strings.Contains(ns, ":") {
			ns += ":53"
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
		}
	}
	return modes
}

func backendName(name, mode string) string { return "be_" + mode + "_" + name }

func renderFrontend(b *bytes.Buffer, spec simulator.LoadBalancerSpec, f simulator.Frontend, dir string) error {
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
	slices.SortStableFunc(rules, func(x, y simulator.Rule) int { return y.Priority - x.Priority })
	for n, r := range rules {
		if err := renderRule(b, n, r, f.Mode); err != nil {
			return fmt.Errorf("rule %s: %w", r.Name, err)
		}
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
	if p.HealthCheckType == "http" {
		fmt.Fprintf(b, "  option httpchk GET %s\n  http-check expect status %d\n", quote(p.HealthCheckURL),
			p.HealthCheckExpectedStatus)
	}
	if p.StickySessionCookieName != "" && mode == "http" {
		fmt.Fprintf(b, "  cookie %s insert indirect nocache\n", quote(p.StickySessionCookieName))
	}
	server := fmt.Sprintf(" check inter %ds fall %d rise %d", p.HealthCheckInterval, p.HealthCheckFall, p.HealthCheckRise)
	switch p.OutboundProxyProtocol {
	case "v1":
		server += " send-proxy check-send-proxy"
	case "v2":
		server += " send-proxy-v2 check-send-proxy"
	}
	if p.TLSEnabled {
		server += tlsToMembers(spec, be, dir)
	}
	for _, m := range be.Members {
		renderMember(b, be, m, mode, server)
	}
	b.WriteString("\n")
}

// tlsToMembers uses a bundle with a key as the load balancer's own certificate, one without as the members' authority.
func tlsToMembers(spec simulator.LoadBalancerSpec, be simulator.Backend, dir string) string {
	out, authority := " ssl", "@system-ca"
	for _, t := range be.TLSConfigs {
		path := certificatePath(dir, t.CertificateBundleUUID)
		if bytes.Contains(spec.Certificates[t.CertificateBundleUUID], []byte("PRIVATE KEY-----")) {
			out += " crt " + path
		} else {
			authority = path
		}
	}
	if be.Properties.TLSVerify {
		out += " verify required ca-file " + authority
	} else {
		out += " verify none"
	}
	if be.Properties.HTTP2Enabled {
		out += " alpn h2,http/1.1"
	}
	return out
}

func renderMember(b *bytes.Buffer, be simulator.Backend, m simulator.Member, mode, options string) {
	if m.IP == "" {
		return // a dynamic member whose address a resolver is to find, by a name that this member does not have
	}
	port := m.Port
	if port == 0 {
		port = 80
	}
	if mode == "http" && be.Properties.StickySessionCookieName != "" {
		options += " cookie " + m.Name
	}
	if m.MaxSessions > 0 {
		options += fmt.Sprintf(" maxconn %d", m.MaxSessions)
	}
	if !m.Enabled {
		options += " disabled"
	}
	address := m.IP
	if a, err := netip.ParseAddr(m.IP); err == nil {
		address = netip.AddrPortFrom(a, uint16(port)).String()
	} else {
		address += ":" + strconv.Itoa(port)
	}
	// HAProxy's weights go to 256, the API's to 100: the same proportions
	fmt.Fprintf(b, "  server %s %s weight %d%s\n", m.Name, address, m.Weight, options)
}

// quote makes one word of text, whatever is in it.
func quote(text string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "\n", "", "\r", "").Replace(text) + "'"
}

func certificatePath(dir, bundle string) string { return filepath.Join(dir, bundle+".pem") }

func writeCertificates(spec simulator.LoadBalancerSpec, dir string) error {
	var errs []error
	for uuid, pem := range spec.Certificates {
		errs = append(errs, os.WriteFile(certificatePath(dir, uuid), pem, 0o600))
	}
	return errors.Join(errs...)
}

type action struct {
	Type         string                   `json:"type"`
	UseBackend   struct{ Backend string } `json:"action_use_backend"`
	HTTPReturn   httpReturn               `json:"action_http_return"`
	HTTPRedirect httpRedirect             `json:"action_http_redirect"`
	SetRequest   setHeader                `json:"action_set_request_header"`
	SetResponse  setHeader                `json:"action_set_response_header"`
	RewritePath  rewrite                  `json:"action_http_rewrite_path"`
	RewriteURI   rewrite                  `json:"action_http_rewrite_uri"`
}

type httpReturn struct {
	Status      int    `json:"status"`
	ContentType string `json:"content_type"`
	Payload     []byte `json:"payload"` // base64
}

type httpRedirect struct {
	Location string `json:"location"`
	Scheme   string `json:"scheme"`
	Status   int    `json:"status"`
}

type setHeader struct {
	Header string `json:"header"`
	Value  string `json:"value"`
}

type rewrite struct {
	Pattern string `json:"match_pattern"`
	To      string `json:"rewrite_to"`
}

func parseAction(a simulator.Action) (action, error) {
	var out action
	err := json.Unmarshal(a, &out)
	return out, err
}
