// Package tenants holds what the Services of a namespace may ask of load balancers, where teams share a cluster. It is pure: it reads
// the configuration, finds the limits of a namespace and compares a request with them, and makes the admission policy that says the same
// at kubectl apply. It knows nothing of Services, of the account, or of how limits are enforced.
package tenants

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Any in a list of a Limits allows everything.
const Any = "*"

// Config is data.tenants in the controller's configuration. That it is there says that the cluster has tenants: namespaces then have the
// safe defaults (see Safe) unless it says otherwise.
type Config struct {
	// Default is for the namespaces that no entry is about, and for what an entry leaves out. What it leaves out itself is as in Safe.
	Default Limits `json:"default"`
	// Namespaces are entries about some namespaces. The first that is about a namespace counts.
	Namespaces []Entry `json:"namespaces"`
}

// Entry is about the namespaces of some names, and about those whose labels the selector matches.
type Entry struct {
	Names    []string              `json:"names"`
	Selector *metav1.LabelSelector `json:"selector"`
	Limits
}

// Limits are what the Services of a namespace may ask for. A field that is nil is not set.
type Limits struct {
	// Plans that may be asked for beside the controller's loadBalancerPlan.
	Plans []string `json:"plans"`
	// Zones and Networks (UUIDs of private ones) that may be asked for beside those of the nodes.
	Zones    []string `json:"zones"`
	Networks []string `json:"networks"`
	// FloatingIPs of the account, IPv4 addresses.
	FloatingIPs []string `json:"floatingIPs"`
	// CertificateBundles of the account, by UUID.
	CertificateBundles []string `json:"certificateBundles"`
	// SharedLoadBalancers that may be joined: UUIDs, names and create/NAME, of which create/PREFIX* is for all groups that begin so. An
	// entry of sharedLoadBalancers that names the namespace allows the same.
	SharedLoadBalancers []string `json:"sharedLoadBalancers"`
	// Hosts of certificates, of tls-hostnames and of routes, *.example.com for those below. Where it is not set, certificates from Secrets
	// on a load balancer of the Service's own are not bounded, and nothing else is allowed.
	Hosts []string `json:"hosts"`
	// MemberNetworks are CIDRs of the members that the JSON configuration may have beside the nodes. Members that a resolver finds
	// need 0.0.0.0/0.
	MemberNetworks []string `json:"memberNetworks"`
	// Retain, DeletionProtection and CustomNames allow the annotations of these names, and a name in the JSON configuration.
	Retain             *bool `json:"retain"`
	DeletionProtection *bool `json:"deletionProtection"`
	CustomNames        *bool `json:"customNames"`
	// Adopt allows the annotation adopt. Which load balancers may be taken, adoptableLoadBalancers and what was retained for the namespace
	// say besides.
	Adopt *bool `json:"adopt"`
	// MaxLoadBalancers and MaxCertificates bound what the namespace has in the account, whether a Service still asks for it or not.
	MaxLoadBalancers *int `json:"maxLoadBalancers"`
	MaxCertificates  *int `json:"maxCertificates"`
	// MaxFrontends, MaxBackends and MaxRules bound the components of one Service.
	MaxFrontends *int `json:"maxFrontends"`
	MaxBackends  *int `json:"maxBackends"`
	MaxRules     *int `json:"maxRules"`
}

// Safe are the limits of a namespace that the configuration says nothing of: load balancers of the default plan, which lead to the
// nodes, present certificates of the namespace's own Secrets, and go with their Services.
func Safe() Limits {
	return Limits{
		Plans: []string{}, Zones: []string{}, Networks: []string{}, FloatingIPs: []string{}, CertificateBundles: []string{},
		SharedLoadBalancers: []string{}, MemberNetworks: []string{}, Retain: new(false), DeletionProtection: new(false), CustomNames: new(false),
		Adopt:            new(false),
		MaxLoadBalancers: new(3), MaxCertificates: new(10), MaxFrontends: new(10), MaxBackends: new(10), MaxRules: new(50),
	}
}

// UnmarshalJSON refuses unknown fields, and null: a slip here would allow more than was meant, or less.
func (c *Config) UnmarshalJSON(text []byte) error {
	if bytes.Equal(bytes.TrimSpace(text), []byte("null")) {
		return errors.New("invalid tenants null: must be an object; set it to {} for the safe defaults, or leave it out")
	}
	type plain Config
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode((*plain)(c)); err != nil {
		return &decodeError{err}
	}
	return nil
}

// decodeError names the part of the configuration that could not be read.
type decodeError struct{ err error }

func (e *decodeError) Error() string { return "invalid tenants: " + e.err.Error() }
func (e *decodeError) Unwrap() error { return e.err }

// NeedsLabels says whether the labels of namespaces matter.
func (c *Config) NeedsLabels() bool {
	return slices.ContainsFunc(c.Namespaces, func(e Entry) bool { return e.Selector != nil })
}

// For returns the limits of a namespace, all fields set but Hosts, which may be nil. The configuration must be valid.
func (c *Config) For(namespace string, labelsOf labels.Set) Limits {
	of := c.Default
	for _, entry := range c.Namespaces {
		if entry.matches(namespace, labelsOf) {
			of = entry.or(c.Default)
			break
		}
	}
	return of.or(Safe())
}

func (e Entry) matches(namespace string, labelsOf labels.Set) bool {
	if slices.Contains(e.Names, namespace) {
		return true
	}
	if e.Selector == nil {
		return false
	}
	selector, err := metav1.LabelSelectorAsSelector(e.Selector)
	return err == nil && selector.Matches(labelsOf)
}

// or returns the limits with what they leave out taken from others.
func (l Limits) or(others Limits) Limits {
	for _, pair := range [][2]*[]string{
		{&l.Plans, &others.Plans}, {&l.Zones, &others.Zones}, {&l.Networks, &others.Networks}, {&l.FloatingIPs, &others.FloatingIPs},
		{&l.CertificateBundles, &others.CertificateBundles}, {&l.SharedLoadBalancers, &others.SharedLoadBalancers}, {&l.Hosts, &others.Hosts},
		{&l.MemberNetworks, &others.MemberNetworks},
	} {
		if *pair[0] == nil {
			*pair[0] = *pair[1]
		}
	}
	for _, pair := range [][2]**bool{
		{&l.Retain, &others.Retain}, {&l.DeletionProtection, &others.DeletionProtection}, {&l.CustomNames, &others.CustomNames},
		{&l.Adopt, &others.Adopt},
	} {
		if *pair[0] == nil {
			*pair[0] = *pair[1]
		}
	}
	for _, pair := range [][2]**int{
		{&l.MaxLoadBalancers, &others.MaxLoadBalancers}, {&l.MaxCertificates, &others.MaxCertificates}, {&l.MaxFrontends, &others.MaxFrontends},
		{&l.MaxBackends, &others.MaxBackends}, {&l.MaxRules, &others.MaxRules},
	} {
		if *pair[0] == nil {
			*pair[0] = *pair[1]
		}
	}
	return l
}
