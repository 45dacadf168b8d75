package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Target is a node, or a Pod, as a load balancer sees it.
type Target struct {
	Name string // of the members that lead to it
	IP   netip.Addr
	Port int // of a Pod; a node is reached at the backend's node port
	// Unsure: the node is not ready. It stays a member, as health checks know better, but is the first to give way where
	// there are more nodes than members.
	Unsure bool
	// Serves: the node has a ready endpoint of a Service that only such nodes serve. It is the last to give way.
	Serves bool
}

// Targets returns the nodes that have an address to be reached at, ordered by name, and the names of those that have none.
// One address for each node: the name of a member is its node's, and names are unique within a backend.
func Targets(nodes []*v1.Node) (targets []Target, unreachable []string) {
	for _, node := range nodes {
		if ip, ok := InternalIPv4(node); ok {
			targets = append(targets, Target{Name: MemberName(node.Name), IP: ip, Unsure: !isReady(node)})
		} else {
			unreachable = append(unreachable, node.Name)
		}
	}
	slices.SortFunc(targets, func(a, b Target) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(unreachable)
	return targets, unreachable
}

// InternalIPv4 is the first internal IPv4 address of a node: that of its members.
func InternalIPv4(node *v1.Node) (netip.Addr, bool) {
	if all := InternalIPv4s(node.Status.Addresses); len(all) > 0 {
		return all[0], true
	}
	return netip.Addr{}, false
}

// InternalIPv4s are the internal IPv4 addresses among these.
func InternalIPv4s(addresses []v1.NodeAddress) []netip.Addr {
	var all []netip.Addr
	for _, address := range addresses {
		if address.Type != v1.NodeInternalIP {
			continue
		}
		if ip, err := netip.ParseAddr(address.Address); err == nil && ip.Unmap().Is4() {
			all = append(all, ip.Unmap())
		}
	}
	return all
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// MemberName is the node's name where the API takes that, as with UpCloud's own CCM. Dots and long names it does not take;
// a digest then keeps apart what would become the same.
func MemberName(node string) string {
	if settings.ValidName(node) {
		return node
	}
	return settings.Cut(settings.SanitizeName(node), settings.MaxName-9) + "-" + settings.ShortDigest(node)
}

// Limit returns at most most of the targets, those that serve first, then ready ones. The choice follows from the Service and each node's own name,
// so that a node that comes or goes changes one member, and not the whole set. Each node has the same share of all Services, which takes
// a hash that mixes well: names of nodes differ in a digit.
func Limit(targets []Target, most int, serviceUID string) []Target {
	if len(targets) <= most {
		return targets
	}
	type ranked struct {
		Target
		rank uint64
	}
	var all []ranked
	for _, target := range targets {
		digest := sha256.Sum256([]byte(serviceUID + "/" + target.Name))
		all = append(all, ranked{Target: target, rank: binary.BigEndian.Uint64(digest[:])})
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(compareBool(b.Serves, a.Serves), compareBool(a.Unsure, b.Unsure), cmp.Compare(a.rank, b.rank), strings.Compare(a.Name, b.Name))
	})
	var chosen []Target
	for _, one := range all[:most] {
		chosen = append(chosen, one.Target)
	}
	slices.SortFunc(chosen, func(a, b Target) int { return strings.Compare(a.Name, b.Name) })
	return chosen
}

// SessionLimits say how many sessions a member may have at one time.
type SessionLimits struct {
	Fresh int // of new members
	// A change of the plan takes the members along that have as many as the plan that there was allowed.
	From, To int
	Reset    bool // a number is no longer asked for: back to fresh
}

// of is the number for a member that there is.
func (l SessionLimits) of(have int) int {
	switch {
	case l.Reset && l.Fresh > 0:
		return l.Fresh
	case l.From != 0 && have == l.From:
		return l.To
	}
	return have
}

// MembersOf returns what a backend's members shall be, and whether that is a change. A member that stays keeps its weight,
// switched-off state and whatever else it has; dynamic members are a resolver's, not ours. If no node is left, the members
// stay, but for the port: all nodes at once do not go, but a selector or a label is easily got wrong, and members that are
// down cost nothing. Pods do go all at once, and another Pod gets their addresses.
func (b Backend) MembersOf(have []cloud.Member, limits SessionLimits) ([]cloud.Member, bool) {
	if b.Members != nil {
		return b.Members, !SameMembers(b.Members, have)
	}
	if len(b.Targets) == 0 && !b.Pods {
		return b.withPort(have)
	}
	byName := map[string]cloud.Member{}
	want := []cloud.Member{}
	for _, member := range have {
		if member.Type == "dynamic" {
			want = append(want, member)
		} else {
			byName[member.Name] = member
		}
	}
	kept := 0
	for _, target := range b.Targets {
		member := cloud.Member{
			Name: target.Name, IP: target.IP.String(), Port: cmp.Or(target.Port, b.NodePort), Weight: memberWeight,
			MaxSessions: limits.Fresh, Type: "static", Enabled: true,
		}
		old, there := byName[target.Name]
		if there {
			member.Weight, member.MaxSessions, member.Enabled = old.Weight, limits.of(old.MaxSessions), old.Enabled
			member = member.WithExtra(old)
		}
		if b.MaxSessions != nil {
			member.MaxSessions = *b.MaxSessions
		}
		if there && IsJoining(old) {
			member.MaxSessions = joiningSessions
		}
		if there && member.SameTarget(old) {
			kept++
		}
		want = append(want, member)
	}
	return want, kept != len(b.Targets) || kept != len(byName)
}

// withPort gives the nodes' members the port that they have now.
func (b Backend) withPort(have []cloud.Member) ([]cloud.Member, bool) {
	all, changed := slices.Clone(have), false
	for i := range all {
		if all[i].Type != "dynamic" && all[i].Port != b.NodePort {
			all[i].Port, changed = b.NodePort, true
		}
	}
	return all, changed
}

// SameMembers compares members that were given one by one, in whatever order the API has them.
func SameMembers(want, have []cloud.Member) bool {
	if len(want) != len(have) {
		return false
	}
	for _, member := range want {
		same := func(other cloud.Member) bool {
			return member.SameTarget(other) && covered(asJSON(member), asJSON(other))
		}
		if !slices.ContainsFunc(have, same) {
			return false
		}
	}
	return true
}

// MemberDigest is a digest of what the members of a desired state follow from.
func (d Desired) MemberDigest() [sha256.Size]byte {
	digest := sha256.New()
	encoder := json.NewEncoder(digest)
	for _, backend := range d.Backends {
		targets := make([]Target, len(backend.Targets))
		for i, target := range backend.Targets {
			targets[i] = target
			targets[i].Unsure, targets[i].Serves = false, false // are about which are chosen, and they have been
		}
		// A hash takes everything, and none of this is of a type that JSON has no form for.
		_ = encoder.Encode([]any{backend.Name, backend.NodePort, backend.MaxSessions, backend.Members, targets})
	}
	return [sha256.Size]byte(digest.Sum(nil))
}
