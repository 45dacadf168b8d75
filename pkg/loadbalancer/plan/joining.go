package plan

import (
	"slices"
	"strings"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// How a node joins a Service with externalTrafficPolicy Local.
//
// HAProxy uses a new member until it fails a check. A node without a Pod of the Service drops what comes to it, so for some seconds
// clients would wait in vain. Such a node therefore joins aside: with weight 0, so that it gets checks and no connections. When the
// checks have had their time, it gets its weight, and with it connections if it is well. Who joins aside is told by the member
// itself, so that another copy of this program finishes what this one began: besides weight 0 it has one session, which nobody
// who switches a member off by hand has a reason to write.
const (
	joiningWeight   = 0
	joiningSessions = 1
	memberWeight    = 100
)

// IsJoining says whether a member joined aside, and waits for its turn.
func IsJoining(m cloud.Member) bool {
	return m.Type != "dynamic" && m.Weight == joiningWeight && m.MaxSessions == joiningSessions
}

func serves(m cloud.Member) bool { return m.Enabled && m.Weight > 0 }

// cautious says whether nodes join the backend aside: where a node may well be one that gets no traffic.
func (b Backend) cautious() bool {
	url, _ := b.Asked["health_check_url"].(string)
	return b.Members == nil && strings.HasPrefix(url, settings.LocalHealthCheckPrefix)
}

// JoinAside has the new members in changes join aside, if there are others meanwhile; if there are not, none waits.
func JoinAside(desired Desired, lb *cloud.LoadBalancer, changes []Change) []Change {
	backends := backendsByName(lb)
	for i, change := range changes {
		at := slices.IndexFunc(desired.Backends, func(b Backend) bool { return b.Name == change.Name })
		have, known := backends[change.Name]
		if change.ModifyBackend == nil || change.ModifyBackend.Members == nil || at < 0 || !known || !desired.Backends[at].cautious() {
			continue
		}
		patch := *change.ModifyBackend
		patch.Members = aside(patch.Members, have.Members, desired.Backends[at].hasEndpoint)
		changes[i].ModifyBackend = &patch
	}
	return changes
}

// hasEndpoint says whether a member's node is known to serve.
func (b Backend) hasEndpoint(member string) bool {
	return slices.ContainsFunc(b.Targets, func(t Target) bool { return t.Name == member && t.Serves })
}

// aside has those join aside that are not known to serve.
func aside(want, have []cloud.Member, known func(name string) bool) []cloud.Member {
	old := func(m cloud.Member) bool {
		return slices.ContainsFunc(have, func(h cloud.Member) bool { return h.Name == m.Name })
	}
	if !slices.ContainsFunc(want, func(m cloud.Member) bool { return old(m) && serves(m) }) {
		return Weighted(want, SessionsOf(append(slices.Clone(want), have...)), func(string) bool { return true })
	}
	all := slices.Clone(want)
	for i := range all {
		if !old(all[i]) && all[i].Type != "dynamic" && !known(all[i].Name) {
			all[i].Weight, all[i].MaxSessions = joiningWeight, joiningSessions
		}
	}
	return all
}

// Weighted gives those that joined aside, and whose turn it is, what members have.
func Weighted(members []cloud.Member, sessions int, turn func(name string) bool) []cloud.Member {
	all := slices.Clone(members)
	for i := range all {
		if IsJoining(all[i]) && turn(all[i].Name) {
			all[i].Weight, all[i].MaxSessions = memberWeight, sessions
		}
	}
	return all
}

// SessionsOf is how many sessions the members have that did not join aside; 0: there is none.
func SessionsOf(members []cloud.Member) int {
	for _, member := range members {
		if member.Type != "dynamic" && !IsJoining(member) {
			return member.MaxSessions
		}
	}
	return 0
}

// ChecksTake is how long a member that is not well is at most in finding that out.
func ChecksTake(backend cloud.Backend) time.Duration {
	seconds := func(name string) float64 {
		number, _ := asJSON(backend.Properties[name]).(float64)
		return max(number, 1)
	}
	return time.Duration(seconds("health_check_interval")*(seconds("health_check_fall")+1)) * time.Second
}
