package routes

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// namePrefix begins the name of every route that a cloud controller manager of this project makes.
const namePrefix = "ccm-"

// Lengths of the hashes in names, in hexadecimal digits. What length of name the API allows is not known: these are 27
// characters. Two of 5,000 nodes share 12 digits once in 20 million clusters.
const (
	clusterDigits = 8
	nodeDigits    = 12
)

// Owner is the part of a route's name that tells whose it is: no two clusters on one router share it.
type Owner string

// NewOwner makes the Owner of what only one cluster has.
func NewOwner(cluster string) Owner { return Owner(namePrefix + digits(cluster, clusterDigits) + "-") }

// routeName is the one name for the node's route of a family: a node has at most one Pod CIDR of each.
func (o Owner) routeName(node string, prefix netip.Prefix) string {
	family := 6
	if prefix.Addr().Is4() {
		family = 4
	}
	return fmt.Sprintf("%s%s-%d", o, nodeHash(node), family)
}

// owns says that a route is this cluster's.
func (o Owner) owns(routeName string) bool { return strings.HasPrefix(routeName, string(o)) }

// anyRouteName is the form of the names that routeName makes, whatever the cluster.
var anyRouteName = regexp.MustCompile(fmt.Sprintf("^%s[0-9a-f]{%d}-[0-9a-f]{%d}-[46]$", namePrefix, clusterDigits, nodeDigits))

// isRouteName says that a CCM of this project made the route, for this cluster or another.
func isRouteName(name string) bool { return anyRouteName.MatchString(name) }

// nodeOf returns the hash of the node that a route of this cluster is for.
func (o Owner) nodeOf(routeName string) string {
	hash, _, _ := strings.Cut(strings.TrimPrefix(routeName, string(o)), "-")
	return hash
}

func nodeHash(node string) string { return digits(node, nodeDigits) }

func digits(text string, length int) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])[:length]
}
