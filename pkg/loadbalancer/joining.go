package loadbalancer

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
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

func isJoining(m cloud.Member) bool {
	return m.Type != "dynamic" && m.Weight == joiningWeight && m.MaxSessions == joiningSessions
}

func serves(m cloud.Member) bool { return m.Enabled && m.Weight > 0 }

// cautious says whether nodes join the backend aside: where a node may well be one that gets no traffic.
func (b Backend) cautious() bool {
	url, _ := b.Asked["health_check_url"].(string)
	return b.Members == nil && strings.HasPrefix(url, localHealthCheckPrefix)
}

// joinAside has the new members in changes join aside, if there are others meanwhile; if there are not, none waits.
func joinAside(desired Desired, lb *cloud.LoadBalancer, changes []Change) []Change {
	backends := backendsByName(lb)
	for i, change := range changes {
		at := slices.IndexFunc(desired.Backends, func(b Backend) bool { return b.Name == change.Name })
		have, known := backends[change.Name]
		if change.ModifyBackend == nil || change.ModifyBackend.Members == nil || at < 0 || !known || !desired.Backends[at].cautious() {
			continue
		}
		patch := *change.ModifyBackend
		patch.Members = aside(patch.Members, have.Members)
		changes[i].ModifyBackend = &patch
	}
	return changes
}

func aside(want, have []cloud.Member) []cloud.Member {
	old := func(m cloud.Member) bool {
		return slices.ContainsFunc(have, func(h cloud.Member) bool { return h.Name == m.Name })
	}
	if !slices.ContainsFunc(want, func(m cloud.Member) bool { return old(m) && serves(m) }) {
		return weighted(want, sessionsOf(append(slices.Clone(want), have...)), func(string) bool { return true })
	}
	all := slices.Clone(want)
	for i := range all {
		if !old(all[i]) && all[i].Type != "dynamic" {
			all[i].Weight, all[i].MaxSessions = joiningWeight, joiningSessions
		}
	}
	return all
}

// weighted gives those that joined aside, and whose turn it is, what members have.
func weighted(members []cloud.Member, sessions int, turn func(name string) bool) []cloud.Member {
	all := slices.Clone(members)
	for i := range all {
		if isJoining(all[i]) && turn(all[i].Name) {
			all[i].Weight, all[i].MaxSessions = memberWeight, sessions
		}
	}
	return all
}

// sessionsOf is how many sessions the members have that did not join aside; 0: there is none.
func sessionsOf(members []cloud.Member) int {
	for _, member := range members {
		if member.Type != "dynamic" && !isJoining(member) {
			return member.MaxSessions
		}
	}
	return 0
}

// joinings are the members that wait, of the Services that this program looks after.
type joinings struct {
	mu    sync.Mutex
	bySvc map[types.UID]map[string]time.Time // until when, by backend and member
}

// see notes what waits on a Service's load balancer, and since when.
func (j *joinings) see(service *v1.Service, lb *cloud.LoadBalancer, changes []Change, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	before, due := j.bySvc[service.UID], map[string]time.Time{}
	for _, backend := range lb.Backends {
		members := backend.Members
		for _, change := range changes {
			if change.Name == backend.Name && change.ModifyBackend != nil && change.ModifyBackend.Members != nil {
				members = change.ModifyBackend.Members
			}
		}
		for _, member := range members {
			key := backend.Name + "/" + member.Name
			switch at, known := before[key]; {
			case !isJoining(member):
			case known:
				due[key] = at
			default:
				due[key] = now.Add(checksTake(backend))
			}
		}
	}
	if len(due) == 0 {
		delete(j.bySvc, service.UID)
		return
	}
	if j.bySvc == nil {
		j.bySvc = map[types.UID]map[string]time.Time{}
	}
	j.bySvc[service.UID] = due
}

// checksTake is how long a member that is not well is at most in finding that out.
func checksTake(backend cloud.Backend) time.Duration {
	seconds := func(name string) float64 {
		number, _ := asJSON(backend.Properties[name]).(float64)
		return max(number, 1)
	}
	return time.Duration(seconds("health_check_interval")*(seconds("health_check_fall")+1)) * time.Second
}

// due are the Services of which some member has waited for long enough.
func (j *joinings) due(now time.Time) []types.UID {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []types.UID
	for uid, due := range j.bySvc {
		for _, at := range due {
			if !at.After(now) {
				all = append(all, uid)
				break
			}
		}
	}
	return all
}

// turn says whether a member of the Service has waited for long enough.
func (j *joinings) turn(uid types.UID, now time.Time, backend, member string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	at, known := j.bySvc[uid][backend+"/"+member]
	return known && !at.After(now)
}

// forget forgets a Service; putOff comes back to it later.
func (j *joinings) forget(uid types.UID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.bySvc, uid)
}

func (j *joinings) putOff(uid types.UID, until time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	due := j.bySvc[uid]
	for key, at := range due {
		if at.Before(until) {
			due[key] = until
		}
	}
}

const (
	joiningPeriod = time.Second      // between two looks at who waits; nothing is asked of the API for that
	joiningRetry  = 10 * time.Second // after a failure
)

// FollowJoining gives the nodes that join a Service aside their weight in time, until ctx ends.
func (l *LoadBalancers) FollowJoining(ctx context.Context, services corelisters.ServiceLister) {
	wait.UntilWithContext(ctx, func(ctx context.Context) { l.letIn(ctx, services) }, joiningPeriod)
}

func (l *LoadBalancers) letIn(ctx context.Context, services corelisters.ServiceLister) {
	for _, uid := range l.joinings.due(l.now()) {
		one, _ := l.tending.get(uid) // empty for one that has ceased to have a load balancer of its own
		service, wanted := one.service(uid, services)
		if !wanted {
			l.joinings.forget(uid)
			continue
		}
		if settings, _ := ParseSettings(service); settings.Shared != nil {
			l.joinings.forget(uid) // the load balancer that was its own is the controller's to end
			continue
		}
		if err := l.letInto(ctx, service); err != nil {
			l.joinings.putOff(uid, l.now().Add(joiningRetry))
			klog.FromContext(ctx).Error(err, "Nodes that joined a load balancer get no traffic yet", "service", klog.KObj(service))
		}
	}
}

// letInto gives the members of a Service's load balancer that have waited for long enough what members have.
func (l *LoadBalancers) letInto(ctx context.Context, service *v1.Service) (err error) {
	defer recoverTo(&err, service)
	ctx, done, err := l.begin(ctx, service.UID)
	if err != nil {
		return err
	}
	defer done()
	lb, err := l.find(ctx, service, l.identity(l.lastClusterName(), service))
	if err != nil {
		return err
	}
	if lb == nil || lb.State.Deleting() {
		l.joinings.forget(service.UID)
		return nil
	}
	var changes []Change
	for _, backend := range lb.Backends {
		if !slices.ContainsFunc(backend.Members, isJoining) {
			continue
		}
		sessions := sessionsOf(backend.Members)
		if sessions == 0 {
			plan, err := l.plan(ctx, lb.Plan)
			if err != nil {
				return err
			}
			sessions = plan.SessionsPerServer
		}
		members := weighted(backend.Members, sessions, func(name string) bool {
			return l.joinings.turn(service.UID, l.now(), backend.Name, name)
		})
		if !sameMembers(members, backend.Members) {
			changes = append(changes, Change{Name: backend.Name, ModifyBackend: &cloud.BackendPatch{Members: members}})
		}
	}
	if err := l.apply(ctx, service, lb, changes); err != nil {
		return err
	}
	l.joinings.see(service, lb, changes, l.now())
	return nil
}
