package settings

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// check completes what follows from other settings, and finds those that do not go together.
func (s *Settings) check(service *v1.Service) []Problem {
	for _, port := range s.EveryPort() {
		port.infer()
	}
	s.inferShared()
	c := checker{settings: s, service: service}
	c.ranges, c.rangesErr = SourceRanges(service)
	if c.components(); len(c.problems) > 0 {
		return c.problems
	}
	c.networks()
	c.names()
	c.checkShared()
	for _, port := range s.EveryPort() {
		c.mode(port)
		c.tls(port)
		c.rules(port)
	}
	return c.problems
}

// EveryPort is the settings of the ports that are served, and those of the frontends beside them.
func (s *Settings) EveryPort() []*PortSettings {
	var all []*PortSettings
	for i := range s.Ports {
		if !s.Ports[i].unserved {
			all = append(all, &s.Ports[i])
		}
	}
	for i := range s.MoreFrontends {
		all = append(all, &s.MoreFrontends[i])
	}
	return all
}

// ListenPort is the number that the frontend listens on.
func (p *PortSettings) ListenPort() int {
	if p.Port != 0 {
		return p.Port
	}
	return p.servicePort
}

// infer finds the mode from what needs a certain one. A port 443 of mode http without a certificate gets one for the load
// balancer's own name, as with UpCloud's own CCM.
func (p *PortSettings) infer() {
	http2 := p.Frontend["http2_enabled"] == true && len(p.Certificates) == 0 && p.ListenPort() == 443
	if p.Mode == "" && (http2 || len(p.needsHTTP()) > 0) {
		p.Mode = "http"
	}
	if p.Mode == "http" && p.ListenPort() == 443 && len(p.Certificates) == 0 {
		p.Certificates = []Certificate{{Hostnames: []string{}, KeyType: "ecdsa"}}
	}
}

// needsHTTP names what there is only in mode http.
func (p *PortSettings) needsHTTP() []string {
	var all []string
	if p.Redirect {
		all = append(all, "redirect-to-https")
	}
	if p.Forwarded {
		all = append(all, "forwarded-headers")
	}
	if name, _ := p.Backend["sticky_session_cookie_name"].(string); name != "" {
		all = append(all, "a sticky cookie")
	}
	for _, rule := range p.Rules {
		if RuleNeedsHTTP(rule) {
			all = append(all, "rule "+rule.Name)
		}
	}
	return all
}

// RuleNeedsHTTP says whether a rule has a matcher or an action that works in mode http only.
func RuleNeedsHTTP(rule cloud.Rule) bool {
	other := func(known []string) func(json.RawMessage) bool {
		return func(part json.RawMessage) bool { return !slices.Contains(known, typeOf(part)) }
	}
	return slices.ContainsFunc(rule.Matchers, other(tcpMatchers)) || slices.ContainsFunc(rule.Actions, other(tcpActions))
}

// typeOf is the field "type" of a matcher or an action.
func typeOf(part json.RawMessage) string {
	var read struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(part, &read)
	return read.Type
}

type checker struct {
	settings  *Settings
	service   *v1.Service
	ranges    []netip.Prefix // source ranges
	rangesErr error
	problems  []Problem
}

func (c *checker) add(format string, args ...any) {
	if len(c.problems) > maxProblems {
		return // enough to say that there are more
	}
	c.problems = append(c.problems, Problem{"InvalidAnnotation", fmt.Sprintf(format, args...)})
}

func (c *checker) networks() {
	s := c.settings
	kindOf := map[string]string{}
	private := 0
	for _, network := range s.Networks {
		kindOf[network.Name] = network.Type
		if network.Type == "private" {
			private++
		}
	}
	if len(s.Networks) > 0 && private == 0 {
		c.add("annotation %s: networks has no private one, through which the nodes are reached: add one", AnnotationConfig)
	}
	hasPublic := s.Visibility != VisibilityPrivate
	if len(s.Networks) > 0 {
		hasPublic = private < len(s.Networks)
	}
	if len(s.Addresses) > 0 && !hasPublic {
		c.add("annotation %s%s=%s: floating IP addresses need a public network, and the load balancer is private: remove one of the two",
			AnnotationPrefix, FloatingIPsName, s.Addresses[0].Address)
	}
	if s.Visibility == visibilityPublic && !hasPublic {
		c.add("annotation %s%s=%s: the networks of annotation %s have no public one", AnnotationPrefix, visibilityName, s.Visibility, AnnotationConfig)
	}
	for _, port := range s.EveryPort() {
		for _, name := range port.Networks {
			if _, ok := kindOf[name]; len(s.Networks) > 0 && !ok {
				c.add("annotation %s: frontend %s has network %q, which is not in networks", AnnotationConfig, port.FrontendName, name)
			}
		}
	}
}

// names checks that nothing has the name or the port of something else, and that what is referred to exists.
func (c *checker) names() {
	s := c.settings
	backends, frontends, listeners := map[string]bool{}, map[string]bool{}, map[int]string{}
	for _, port := range s.Ports {
		if !port.unserved {
			backends[port.Name] = true
		}
	}
	for _, backend := range s.MoreBackends {
		backends[backend.Name] = true
	}
	resolvers := map[string]bool{"": true}
	for i, resolver := range s.Resolvers {
		if resolvers[resolver.Name] {
			c.add("annotation %s: resolvers[%d].name is %q, as another's", AnnotationConfig, i, resolver.Name)
		}
		resolvers[resolver.Name] = true
	}
	for _, port := range s.EveryPort() {
		if frontends[port.FrontendName] {
			c.add("two ports of the Service are called %s: give each a name of its own", port.FrontendName)
		}
		frontends[port.FrontendName] = true
		if other, taken := listeners[port.ListenPort()]; taken {
			c.add("frontends %s and %s both listen on port %d: give each a port of its own", other, port.FrontendName, port.ListenPort())
		}
		listeners[port.ListenPort()] = port.FrontendName
		if name := port.DefaultBackend; name != "" && !backends[name] {
			c.add("annotation %s: frontend %s has default_backend %q, which is none of %s", AnnotationConfig, port.FrontendName, name, knownNames(backends))
		}
		if !resolvers[port.Resolver] {
			c.add("annotation %s: backend %s has resolver %q, which is none of resolvers", AnnotationConfig, port.Name, port.Resolver)
		}
		c.references(port, backends)
	}
	for _, backend := range s.MoreBackends {
		if !resolvers[backend.Resolver] {
			c.add("annotation %s: backend %s has resolver %q, which is none of resolvers", AnnotationConfig, backend.Name, backend.Resolver)
		}
	}
}

// references checks the backends that rules name.
func (c *checker) references(port *PortSettings, backends map[string]bool) {
	for _, rule := range port.Rules {
		for _, part := range slices.Concat(rule.Matchers, rule.Actions) {
			var read struct {
				Use struct{ Backend string } `json:"action_use_backend"`
				Up  struct{ Backend string } `json:"match_num_members_up"`
			}
			_ = json.Unmarshal(part, &read)
			for _, name := range []string{read.Use.Backend, read.Up.Backend} {
				if name != "" && !backends[name] {
					c.add("annotation %s: rule %s of frontend %s names backend %q, which is none of %s", AnnotationConfig, rule.Name,
						port.FrontendName, name, knownNames(backends))
				}
			}
		}
	}
}

func knownNames(names map[string]bool) string {
	var all []string
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func (c *checker) mode(port *PortSettings) {
	if needs := port.needsHTTP(); port.Mode == "tcp" && len(needs) > 0 {
		c.add("port %s has mode tcp, and %s work in mode http only: remove them, or set annotation %smode to http", port.FrontendName,
			strings.Join(needs, ", "), AnnotationPrefix)
	}
	if port.Redirect && len(port.Certificates) > 0 {
		c.add("annotation %sredirect-to-https: port %s has a certificate, so that every request would be redirected to itself: "+
			"leave the port out", AnnotationPrefix, port.FrontendName)
	}
}

func (c *checker) tls(port *PortSettings) {
	if port.Frontend["http2_enabled"] == true && len(port.Certificates) == 0 {
		c.add("port %s has HTTP/2 and no certificate, without which clients cannot ask for it: set one of the annotations %s%s, "+
			"-tls-hostnames, -tls-bundle", port.FrontendName, AnnotationPrefix, TLSSecretName)
	}
	names := map[string]bool{}
	for _, certificate := range port.Certificates {
		if certificate.Bundle != nil && names[certificate.Bundle.Name] {
			c.add("annotation %s: frontend %s has two TLS configurations called %s", AnnotationConfig, port.FrontendName, certificate.Bundle.Name)
		}
		if certificate.Bundle != nil {
			names[certificate.Bundle.Name] = true
		}
	}
}

func (c *checker) rules(port *PortSettings) {
	names := map[string]bool{}
	for _, rule := range port.Rules {
		if names[rule.Name] || slices.Contains(RuleNames, rule.Name) {
			c.add("annotation %s: frontend %s: rule name %s is used by another rule: choose another", AnnotationConfig, port.FrontendName, rule.Name)
		}
		names[rule.Name] = true
	}
	if c.rangesErr != nil || len(c.ranges) == 0 {
		return // the error is told of elsewhere
	}
	if port.Frontend["inbound_proxy_protocol"] == true {
		c.problems = append(c.problems, Problem{"UnsupportedSourceRanges", fmt.Sprintf("port %s: source ranges cannot be enforced for certain "+
			"where clients come by another proxy: remove annotation %sinbound-proxy-protocol, or enforce them there", port.FrontendName,
			AnnotationPrefix)})
	}
	for _, rule := range port.Rules {
		if rule.Priority == MaxPriority && rule.Name < RuleSourceRanges {
			c.problems = append(c.problems, Problem{"UnsupportedSourceRanges", fmt.Sprintf("rule %s of port %s would come before the check of the "+
				"source ranges: give it a priority below %d", rule.Name, port.FrontendName, MaxPriority)})
		}
	}
}

// Names of the rules that follow from the Service. Rules of one priority are evaluated in the order of their names.
const (
	RuleSourceRanges = "0-ccm-source-ranges"
	RuleRedirect     = "ccm-redirect-https"
	RuleForwarded    = "ccm-forwarded-headers"
)

// RuleNames are the names that rules of the Service's own cannot have.
var RuleNames = []string{RuleSourceRanges, RuleRedirect, RuleForwarded}

// MaxPriority is that of the rule that is evaluated first.
const MaxPriority = 100

// LocalHealthCheckPrefix begins the URL of a health check on a port of its own: that on which kube-proxy tells whether the
// node has a ready endpoint of a Service with externalTrafficPolicy Local. The form is that of UpCloud's own CCM.
const LocalHealthCheckPrefix = "http://:"
