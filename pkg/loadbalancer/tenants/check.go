package tenants

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Request is what a Service asks for, as far as limits are about it. A field that is empty was not asked for.
type Request struct {
	Plan, Name, Zone string
	Networks         []string // UUIDs of private networks
	FloatingIPs      []string
	Bundles          []string // UUIDs
	Group            string   // the load balancer to share, of the form create/NAME
	Hosts            []string // that UpCloud shall get certificates for
	Members          []string // addresses of members that are no nodes; empty for one that a resolver finds
	Resolvers        bool     // name servers of the Service's own
	Retain           bool
	Protected        bool
	Adopt            string // UUID of a load balancer

	Frontends, Backends, Rules int
}

// Violation is one thing that a Service asks for and may not have.
type Violation struct {
	What    string // that is asked for: "plan"
	Value   string // as it is asked for
	Allowed string // instead
}

// Message says it in one sentence: the namespace, what it asked for, what is allowed, and who can change that.
func (v Violation) Message(namespace string) string {
	return fmt.Sprintf("namespace %s asks for %s %s, allowed is %s; the cluster's operator can change data.tenants in the CCM's configuration",
		namespace, v.What, v.Value, v.Allowed)
}

// Check returns what of a request is not allowed. defaultPlan is always allowed.
func (l Limits) Check(r Request, defaultPlan string) []Violation {
	var all []Violation
	refuse := func(what, value, allowed string) { all = append(all, Violation{what, value, allowed}) }
	list := func(what string, allowed []string, values ...string) {
		for _, value := range values {
			if value != "" && !contains(allowed, value) {
				refuse(what, value, shown(allowed))
			}
		}
	}
	if r.Plan != defaultPlan {
		list("plan", append([]string{defaultPlan}, l.Plans...), r.Plan)
	}
	list("zone", l.Zones, r.Zone)
	list("private network", l.Networks, r.Networks...)
	list("floating IP address", l.FloatingIPs, r.FloatingIPs...)
	list("certificate bundle", l.CertificateBundles, r.Bundles...)
	if r.Group != "" && !l.Shares(r.Group) {
		refuse("shared load balancer", r.Group, shown(l.SharedLoadBalancers))
	}
	for _, name := range r.Hosts {
		if !Covers(l.Hosts, name) {
			refuse("a certificate for host", name, shown(l.Hosts))
		}
	}
	for _, member := range r.Members {
		if !l.Reaches(member) {
			refuse("member", memberShown(member), "the nodes"+also(l.MemberNetworks))
		}
	}
	if r.Resolvers && !l.anywhere() {
		refuse("resolvers", "in the JSON configuration", "none without 0.0.0.0/0 in memberNetworks")
	}
	if r.Name != "" && !*l.CustomNames {
		refuse("load balancer name", r.Name, "the generated one")
	}
	if r.Retain && !*l.Retain {
		refuse("annotation retain", "true", "false")
	}
	if r.Protected && !*l.DeletionProtection {
		refuse("annotation deletion-protection", "true", "false")
	}
	if r.Adopt != "" && !*l.Adopt {
		refuse("load balancer", r.Adopt+" as its own (annotation adopt)", "none")
	}
	for _, bound := range []struct {
		what  string
		n     int
		limit *int
	}{{"frontends", r.Frontends, l.MaxFrontends}, {"backends", r.Backends, l.MaxBackends}, {"rules", r.Rules, l.MaxRules}} {
		if bound.n > *bound.limit {
			refuse("a number of "+bound.what+" of", fmt.Sprint(bound.n), fmt.Sprintf("%d for each Service", *bound.limit))
		}
	}
	return all
}

// Shares says whether a load balancer may be joined that is named so in an annotation.
func (l Limits) Shares(reference string) bool {
	return slices.ContainsFunc(l.SharedLoadBalancers, func(allowed string) bool {
		prefix, open := strings.CutSuffix(allowed, "*")
		return allowed == Any || strings.EqualFold(allowed, reference) && len(reference) == 36 || allowed == reference ||
			open && strings.HasPrefix(reference, prefix)
	})
}

// Reaches says whether an address may be a member's. An empty one, which a resolver finds, may be any.
func (l Limits) Reaches(member string) bool {
	if l.anywhere() {
		return true
	}
	ip, err := netip.ParseAddr(member)
	return err == nil && ip.Zone() == "" && slices.ContainsFunc(l.MemberNetworks, func(text string) bool {
		prefix, err := netip.ParsePrefix(text)
		return err == nil && prefix.Contains(ip.Unmap())
	})
}

// anywhere says whether members may be at any IPv4 address.
func (l Limits) anywhere() bool {
	return slices.Contains(l.MemberNetworks, Any) || slices.Contains(l.MemberNetworks, "0.0.0.0/0")
}

// Covers says whether a host name, which may be a wildcard, is one of those allowed, or below one.
func Covers(allowed []string, name string) bool {
	return slices.ContainsFunc(allowed, func(one string) bool {
		if one == Any {
			return true
		}
		if below, wild := strings.CutPrefix(one, "*"); wild {
			return strings.HasSuffix(name, below) && name != below
		}
		return one == name
	})
}

func contains(allowed []string, value string) bool {
	return slices.Contains(allowed, Any) || slices.Contains(allowed, value)
}

func shown(allowed []string) string {
	if len(allowed) == 0 {
		return "none"
	}
	return strings.Join(allowed, ", ")
}

func also(allowed []string) string {
	if len(allowed) == 0 {
		return ""
	}
	return " and " + strings.Join(allowed, ", ")
}

func memberShown(member string) string {
	if member == "" {
		return "found by a resolver"
	}
	return member
}
