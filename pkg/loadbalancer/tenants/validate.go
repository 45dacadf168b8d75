package tenants

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// most bounds the numbers of a Limits.
const most = 10000

var (
	word  = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
	host  = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	share = regexp.MustCompile(`^([a-zA-Z0-9_-]{1,64}|create/([a-zA-Z0-9_-]{0,63}\*|[a-zA-Z0-9_-]{1,64}))$`)
)

// Validate names every mistake: the field, its value and what it must be.
func (c *Config) Validate() error {
	faults := c.Default.validate("default")
	for i, entry := range c.Namespaces {
		path := fmt.Sprintf("namespaces[%d]", i)
		if len(entry.Names) == 0 && entry.Selector == nil {
			faults = append(faults, fmt.Errorf("invalid %s: must have names, a selector or both", path))
		}
		for j, name := range entry.Names {
			if len(validation.IsDNS1123Label(name)) > 0 {
				faults = append(faults, fmt.Errorf("invalid %s.names[%d] %q: must be the name of a namespace", path, j, name))
			}
		}
		if entry.Selector != nil {
			faults = append(faults, selectorFaults(path, entry.Selector)...)
		}
		faults = append(faults, entry.validate(path)...)
	}
	return errors.Join(faults...)
}

func selectorFaults(path string, selector *metav1.LabelSelector) []error {
	if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
		return []error{fmt.Errorf("invalid %s.selector {}: must have matchLabels or matchExpressions; use default for all namespaces", path)}
	}
	if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
		return []error{fmt.Errorf("invalid %s.selector: %w", path, err)}
	}
	return nil
}

func (l Limits) validate(path string) []error {
	var faults []error
	list := func(field string, values []string, want string, valid func(string) bool) {
		for i, value := range values {
			if value != Any && !valid(value) {
				faults = append(faults, fmt.Errorf("invalid %s.%s[%d] %q: must be %s, or * for any", path, field, i, value, want))
			}
		}
	}
	list("plans", l.Plans, "the name of a plan such as production-small", word.MatchString)
	list("zones", l.Zones, "a zone such as fi-hel1", word.MatchString)
	list("networks", l.Networks, "the UUID of a private network", isUUID)
	list("floatingIPs", l.FloatingIPs, "an IPv4 address", isIPv4)
	list("certificateBundles", l.CertificateBundles, "the UUID of a certificate bundle", isUUID)
	list("sharedLoadBalancers", l.SharedLoadBalancers, "a UUID, an exact name, create/NAME or create/PREFIX*", share.MatchString)
	list("hosts", l.Hosts, "a host name such as www.example.com or *.example.com", host.MatchString)
	list("memberNetworks", l.MemberNetworks, "a network such as 10.0.0.0/8", isPrefix)
	number := func(field string, value *int) {
		if value != nil && (*value < 0 || *value > most) {
			faults = append(faults, fmt.Errorf("invalid %s.%s %d: must be 0 to %d", path, field, *value, most))
		}
	}
	number("maxLoadBalancers", l.MaxLoadBalancers)
	number("maxCertificates", l.MaxCertificates)
	number("maxFrontends", l.MaxFrontends)
	number("maxBackends", l.MaxBackends)
	number("maxRules", l.MaxRules)
	return faults
}

func isUUID(text string) bool {
	return len(text) == 36 && uuid.Validate(text) == nil && text == strings.ToLower(text)
}

func isIPv4(text string) bool {
	ip, err := netip.ParseAddr(text)
	return err == nil && ip.Is4()
}

func isPrefix(text string) bool {
	prefix, err := netip.ParsePrefix(text)
	return err == nil && prefix.Masked() == prefix
}
