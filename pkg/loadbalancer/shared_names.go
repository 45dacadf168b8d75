package loadbalancer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
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
	// noneBackend is the default backend of hubs. It has no members, so that what no route matches is answered with 503.
	noneBackend = "ccm-none"
	// goingMark is in the name of a hub that is about to be removed: see sweep.
	goingMark = "-going-"
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

// serviceKey stands for a Service in names. UIDs are unique among all clusters.
func (i Identity) serviceKey() string { return hexDigest(i.ServiceUID, 12) }

// ownPrefix begins the names of what is the Service's alone.
func (i Identity) ownPrefix() string {
	cluster := i.ClusterID
	if cluster == "" {
		cluster = i.ClusterName
	}
	return fmt.Sprintf("k-%s-%s-", hexDigest(cluster, 8), i.serviceKey())
}

// sharedBackendName ends in what a person can read, cut to what there is room for.
func (i Identity) sharedBackendName(service *v1.Service, port int) string {
	head := i.ownPrefix() + strconv.Itoa(port) + "-"
	part := func(text string, length int) string {
		return cut(strings.ReplaceAll(sanitizeName(text), "_", "-"), length)
	}
	return cut(head+part(i.ClusterName, 10)+"_"+part(service.Namespace, 10)+"_"+part(service.Name, 12), maxName)
}

func (i Identity) sharedTLSName(of string) string { return i.ownPrefix() + hexDigest(of, 16) }

// keyOf is the Service that a backend or TLS configuration was made for; empty: it was made by something else.
func keyOf(name string) string {
	if found := ownedName.FindStringSubmatch(name); found != nil {
		return found[2]
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

// ownerOf says in words whose backend it is, as far as the name tells.
func ownerOf(backend string) string {
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

// ruleOwner is the Service that a rule was made for: the one whose backend it leads to, if it has a route's name.
func ruleOwner(rule cloud.Rule) (key, backend string) {
	for _, action := range rule.Actions {
		if name := backendOf(action); name != "" {
			backend = name
		}
	}
	if routeName.MatchString(rule.Name) {
		key = keyOf(backend)
	}
	return key, backend
}

// frontendOwner is the Service that a frontend was made for as a whole.
func frontendOwner(frontend cloud.Frontend) string {
	if !portClaim.MatchString(frontend.Name) {
		return ""
	}
	return keyOf(frontend.DefaultBackend)
}

// isHub says whether a frontend was made for the routes of many.
func isHub(frontend cloud.Frontend) bool {
	return frontend.DefaultBackend == noneBackend &&
		(portClaim.MatchString(frontend.Name) || goingName.MatchString(frontend.Name))
}

// hubPort is the port of a hub's name, whether it is about to be removed or not.
func hubPort(name string) string {
	head, _, _ := strings.Cut(name, goingMark)
	return strings.TrimPrefix(head, "ccm-")
}

// hasParts says whether anything on a load balancer was made for the Service.
func hasParts(lb *cloud.LoadBalancer, key string) bool {
	for _, backend := range lb.Backends {
		if keyOf(backend.Name) == key {
			return true
		}
	}
	for _, frontend := range lb.Frontends {
		if frontendOwner(frontend) == key {
			return true
		}
		for _, rule := range frontend.Rules {
			if owner, _ := ruleOwner(rule); owner == key {
				return true
			}
		}
		for _, config := range frontend.TLSConfigs {
			if keyOf(config.Name) == key {
				return true
			}
		}
	}
	return false
}
