package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
)

// SharedAccess says who may use a load balancer that this program did not make.
type SharedAccess struct {
	// LoadBalancer is a UUID, an exact name, or create/NAME, which then is no longer open to all Services.
	LoadBalancer string `json:"loadBalancer"`
	// Namespaces of the Services; empty: all.
	Namespaces []string `json:"namespaces,omitempty"`
	// Ports that Services may claim, or add routes to; empty: all.
	Ports []int `json:"ports,omitempty"`
	// Hosts that routes may have, *.example for those below; if there are any, Services may have routes only.
	Hosts []string `json:"hosts,omitempty"`

	// TenantHosts are those of routes and of their certificates where the policy for tenants bounds them; nil: it does not.
	TenantHosts *[]string `json:"-"`
}

// Validate names the mistakes in an entry.
func (a SharedAccess) Validate() error {
	var faults []error
	if _, err := referenceKind.parse(a.LoadBalancer); err != nil {
		faults = append(faults, fmt.Errorf("loadBalancer is %q: want %s", a.LoadBalancer, referenceKind.allowed))
	}
	for _, port := range a.Ports {
		if port < 1 || port > 65535 {
			faults = append(faults, fmt.Errorf("ports has %d: want 1 to 65535", port))
		}
	}
	for _, host := range a.Hosts {
		if _, err := hostname.parse(host); err != nil {
			faults = append(faults, fmt.Errorf("hosts has %q: want %s", host, hostname.allowed))
		}
	}
	return errors.Join(faults...)
}

// MayShare returns why a Service may not use a load balancer; nil: it may.
func MayShare(entries []SharedAccess, lb *cloud.LoadBalancer, reference Reference, service *v1.Service, settings *Settings) *Problem {
	about := EntriesFor(entries, lb, reference)
	if reference.Group != "" && len(about) == 0 {
		return nil
	}
	if slices.ContainsFunc(about, func(a SharedAccess) bool { return a.Allows(service, settings) }) {
		return nil
	}
	return &Problem{"SharingDenied", fmt.Sprintf("annotation %s%s=%s: the controller's configuration does not let this Service use load "+
		"balancer %s (%s): ask for an entry in sharedLoadBalancers with its namespace, ports and hosts", AnnotationPrefix, SharedName,
		reference, lb.ID, lb.Name)}
}

// PermittedNames are the names of load balancers that entries let a Service use, whether the account has them or not.
func PermittedNames(entries []SharedAccess, service *v1.Service, settings *Settings) []string {
	var names []string
	for _, entry := range entries {
		reference, err := referenceKind.parse(entry.LoadBalancer)
		if err == nil && reference.Name != "" && entry.Allows(service, settings) && !slices.Contains(names, reference.Name) {
			names = append(names, reference.Name)
		}
	}
	return names
}

// Allows says whether the entry lets a Service use the load balancer.
func (a SharedAccess) Allows(service *v1.Service, settings *Settings) bool {
	if len(a.Namespaces) > 0 && !slices.Contains(a.Namespaces, service.Namespace) {
		return false
	}
	for _, port := range service.Spec.Ports {
		if len(a.Ports) > 0 && !slices.Contains(a.Ports, int(port.Port)) {
			return false
		}
	}
	if a.TenantHosts != nil {
		for _, route := range settings.Routes {
			if !tenants.Covers(*a.TenantHosts, route.Host) {
				return false
			}
		}
	}
	if len(a.Hosts) == 0 {
		return true
	}
	for _, route := range settings.Routes {
		if !slices.ContainsFunc(a.Hosts, func(host string) bool { return tenants.Covers([]string{host}, route.Host) }) {
			return false
		}
	}
	return len(settings.Routes) > 0
}

// CertificateHosts are the hosts that the certificates of a Service may be for, if they are bounded.
func (a SharedAccess) CertificateHosts(settings *Settings) (hosts []string, bounded bool) {
	switch {
	case len(a.Hosts) > 0 && a.TenantHosts != nil: // within both
		return slices.DeleteFunc(slices.Clone(a.Hosts), func(host string) bool { return !tenants.Covers(*a.TenantHosts, host) }), true
	case len(a.Hosts) > 0:
		return a.Hosts, true
	case a.TenantHosts != nil && len(settings.Routes) > 0:
		return *a.TenantHosts, true
	}
	return nil, false // a port as a whole: only its own clients see them
}

// EntriesFor are the entries of sharedLoadBalancers about a load balancer.
func EntriesFor(entries []SharedAccess, lb *cloud.LoadBalancer, reference Reference) []SharedAccess {
	var about []SharedAccess
	for _, entry := range entries {
		same := strings.EqualFold(entry.LoadBalancer, lb.ID) || entry.LoadBalancer == lb.Name
		if reference.Group != "" {
			same = entry.LoadBalancer == reference.String()
		}
		if same {
			about = append(about, entry)
		}
	}
	return about
}
