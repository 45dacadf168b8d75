package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Who made a component of a shared load balancer is told by names alone: frontends, backends and rules carry no labels, and
// Terraform rewrites those of the load balancer.
//
//	backend     k-<cluster 8>-<Service 12>-<port>-<cluster>_<namespace>_<name>    the Service's whose UID gives the twelve digits
//	frontend    ccm-<port>                        whose default backend it is; or, with ccm-none for one, nobody's: a hub for routes
//	rule        r<999 - length of path>-<digest of host, kind and path 16>[-<n>]  whose backend it leads to
//	TLS config  k-<cluster 8>-<Service 12>-<digest 16>
//
// The names of frontends and rules follow from what they claim, a port or a route. Names are unique, so that making a
// component is a compare-and-set: of two Services that claim the same, the API answers one that it exists.
const (
	// NoneBackend is the default backend of hubs. It has no members, so that what no route matches is answered with 503.
	NoneBackend = "ccm-none"
	// GoingMark is in the name of a hub that is about to be removed: see sweep.
	GoingMark = "-going-"
)

var (
	ownedName = regexp.MustCompile(`^k-([0-9a-f]{8})-([0-9a-f]{12})-(.+)$`)
	portClaim = regexp.MustCompile(`^ccm-([0-9]{1,5})$`)
	goingName = regexp.MustCompile(`^ccm-([0-9]{1,5})-going-[0-9a-f]+$`)
	routeName = regexp.MustCompile(`^r[0-9]{3}-[0-9a-f]{16}(-[0-9]{1,2})?$`)
)

func hexDigest(text string, length int) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:length]
}

// ServiceKey stands for a Service in names. UIDs are unique among all clusters, but for copies of a cluster (see Key).
func (i Identity) ServiceKey() string { return hexDigest(i.ServiceUID, 12) }

// Key tells the parts of a Service on a shared load balancer from others'. The zero value has none.
type Key struct {
	service  string   // twelve digits
	clusters []string // digests of the ID and the name of its cluster; none: of whatever cluster
}

// Key is that of a Service. With a cluster ID it leaves out the parts of a Service of the same UID in a cluster with another: one of
// the two was restored from a copy of the other's etcd. Parts from before the cluster had its ID have the digest of its name.
func (i Identity) Key() Key {
	key := Key{service: i.ServiceKey()}
	if i.ClusterID != "" {
		key.clusters = []string{hexDigest(i.ClusterID, 8), hexDigest(i.ClusterName, 8)}
	}
	return key
}

// Is says whether an owner, as OwnerKey returns it, is the Service of the key.
func (k Key) Is(owner string) bool {
	cluster, service, _ := strings.Cut(owner, "-")
	return k.service != "" && service == k.service && (len(k.clusters) == 0 || slices.Contains(k.clusters, cluster))
}

// ownPrefix begins the names of what is the Service's alone.
func (i Identity) ownPrefix() string {
	cluster := i.ClusterID
	if cluster == "" {
		cluster = i.ClusterName
	}
	return fmt.Sprintf("k-%s-%s-", hexDigest(cluster, 8), i.ServiceKey())
}

// SharedBackendName ends in what a person can read, cut to what there is room for.
func (i Identity) SharedBackendName(service *v1.Service, port int) string {
	head := i.ownPrefix() + strconv.Itoa(port) + "-"
	part := func(text string, length int) string {
		return settings.Cut(strings.ReplaceAll(settings.SanitizeName(text), "_", "-"), length)
	}
	return settings.Cut(head+part(i.ClusterName, 10)+"_"+part(service.Namespace, 10)+"_"+part(service.Name, 12), settings.MaxName)
}

// SharedTLSName is the name of a TLS configuration of the Service on a shared load balancer.
func (i Identity) SharedTLSName(of string) string { return i.ownPrefix() + hexDigest(of, 16) }

// KeyOf is the Service that a backend or TLS configuration was made for, as ServiceKey has it; empty: it was made by something else.
func KeyOf(name string) string {
	_, service, _ := strings.Cut(OwnerKey(name), "-")
	return service
}

// OwnerKey is the cluster and the Service that a backend or TLS configuration was made for, see Key.Is; empty: it was made by something else.
func OwnerKey(name string) string {
	if found := ownedName.FindStringSubmatch(name); found != nil {
		return found[1] + "-" + found[2]
	}
	return ""
}

// portOf is the Service port that a backend was made for.
func portOf(backend string) int {
	found := ownedName.FindStringSubmatch(backend)
	if found == nil {
		return 0
	}
	number, _, _ := strings.Cut(found[3], "-")
	port, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return port
}

// OwnerOf says in words whose backend it is, as far as the name tells.
func OwnerOf(backend string) string {
	found := ownedName.FindStringSubmatch(backend)
	if found == nil {
		return "backend " + backend + ", which was not made for a Service"
	}
	_, words, _ := strings.Cut(found[3], "-")
	parts := strings.SplitN(words, "_", 3)
	if len(parts) < 3 {
		return "a Service that " + backend + " is the backend of"
	}
	return fmt.Sprintf("Service %s/%s of cluster %s (names may be cut short; backend %s)", parts[1], parts[2], parts[0], backend)
}

// frontendName is the claim on a port.
func portFrontendName(port int) string { return fmt.Sprintf("ccm-%d", port) }

// RuleOwner is the Service that a rule was made for: the one whose backend it leads to, if it has a route's name.
func RuleOwner(rule cloud.Rule) (key, backend string) {
	for _, action := range rule.Actions {
		if name := backendOf(action); name != "" {
			backend = name
		}
	}
	if routeName.MatchString(rule.Name) {
		key = OwnerKey(backend)
	}
	return key, backend
}

// FrontendOwner is the Service that a frontend was made for as a whole.
func FrontendOwner(frontend cloud.Frontend) string {
	if !portClaim.MatchString(frontend.Name) {
		return ""
	}
	return OwnerKey(frontend.DefaultBackend)
}

// IsHub says whether a frontend was made for the routes of many.
func IsHub(frontend cloud.Frontend) bool {
	return frontend.DefaultBackend == NoneBackend &&
		(portClaim.MatchString(frontend.Name) || goingName.MatchString(frontend.Name))
}

// HubPort is the port of a hub's name, whether it is about to be removed or not.
func HubPort(name string) string {
	head, _, _ := strings.Cut(name, GoingMark)
	return strings.TrimPrefix(head, "ccm-")
}

// HasParts says whether anything on a load balancer was made for the Service.
func HasParts(lb *cloud.LoadBalancer, key Key) bool {
	for _, backend := range lb.Backends {
		if key.Is(OwnerKey(backend.Name)) {
			return true
		}
	}
	for _, frontend := range lb.Frontends {
		if key.Is(FrontendOwner(frontend)) {
			return true
		}
		for _, rule := range frontend.Rules {
			if owner, _ := RuleOwner(rule); key.Is(owner) {
				return true
			}
		}
		for _, config := range frontend.TLSConfigs {
			if key.Is(OwnerKey(config.Name)) {
				return true
			}
		}
	}
	return false
}

// HasNone says whether a load balancer has the backend of hubs.
func HasNone(lb *cloud.LoadBalancer) bool {
	return slices.ContainsFunc(lb.Backends, func(b cloud.Backend) bool { return b.Name == NoneBackend })
}

// IsEmpty says whether a frontend has neither rules nor certificates.
func IsEmpty(frontend cloud.Frontend) bool { return len(frontend.Rules)+len(frontend.TLSConfigs) == 0 }

// LeadsTo says whether a frontend, or one of its rules, sends requests to a backend.
func LeadsTo(frontend cloud.Frontend, backend string) bool {
	return frontend.DefaultBackend == backend || slices.ContainsFunc(frontend.Rules, func(rule cloud.Rule) bool {
		_, to := RuleOwner(rule)
		return to == backend
	})
}

// InUse says whether anything is on the load balancer but what hubs leave.
func InUse(lb *cloud.LoadBalancer) bool {
	return len(lb.Frontends) > 0 || slices.ContainsFunc(lb.Backends, func(b cloud.Backend) bool { return b.Name != NoneBackend })
}
