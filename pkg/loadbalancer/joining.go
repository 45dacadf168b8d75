package loadbalancer

import (
	"context"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/fairness"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// joinings are the members that wait, of the Services that this program looks after.
type joinings struct {
	mu    sync.Mutex
	bySvc map[types.UID]map[string]time.Time // until when, by backend and member
}

// see notes what waits on a Service's load balancer, and since when.
func (j *joinings) see(service *v1.Service, lb *cloud.LoadBalancer, changes []plan.Change, now time.Time) {
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
			case !plan.IsJoining(member):
			case known:
				due[key] = at
			default:
				due[key] = now.Add(plan.ChecksTake(backend))
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
	var rounds rounds
	defer rounds.wait()
	wait.UntilWithContext(ctx, func(ctx context.Context) { l.letIn(ctx, services, &rounds) }, joiningPeriod)
}

// letIn begins to give those their weight that have waited for long enough.
func (l *LoadBalancers) letIn(ctx context.Context, services corelisters.ServiceLister, rounds *rounds) {
	due := map[string][]types.UID{}
	for _, uid := range l.joinings.due(l.now()) {
		one, _ := l.tending.get(uid) // empty for one that has ceased to have a load balancer of its own
		due[one.namespace] = append(due[one.namespace], uid)
	}
	rounds.begin(ctx, due, func(ctx context.Context, uid types.UID) error {
		return l.letServiceIn(ctx, uid, services)
	}, "Nodes that joined a load balancer get no traffic yet")
}

func (l *LoadBalancers) letServiceIn(ctx context.Context, uid types.UID, services corelisters.ServiceLister) error {
	one, _ := l.tending.get(uid)
	service, wanted := one.service(uid, services)
	if !wanted {
		l.joinings.forget(uid)
		return nil
	}
	if asked, _ := settings.Parse(service); asked.Shared != nil {
		l.joinings.forget(uid) // the load balancer that was its own is the controller's to end
		return nil
	}
	err := l.letInto(ctx, service)
	if _, continues := fairness.IsContinues(err); err != nil && !continues {
		l.joinings.putOff(uid, l.now().Add(joiningRetry))
	}
	return err
}

// letInto gives the members of a Service's load balancer that have waited for long enough what members have.
func (l *LoadBalancers) letInto(ctx context.Context, service *v1.Service) (err error) {
	defer recoverTo(&err, service)
	ctx, done, err := l.begin(ctx, service.Namespace, service.UID)
	if err != nil {
		return err
	}
	defer done()
	lb, err := l.find(ctx, service, l.identity(ctx, l.lastClusterName(), service))
	if err != nil {
		return err
	}
	if lb == nil || lb.State.Deleting() {
		l.joinings.forget(service.UID)
		return nil
	}
	var changes []plan.Change
	for _, backend := range lb.Backends {
		if !slices.ContainsFunc(backend.Members, plan.IsJoining) {
			continue
		}
		sessions := plan.SessionsOf(backend.Members)
		if sessions == 0 {
			size, err := l.plan(ctx, lb.Plan)
			if err != nil {
				return err
			}
			sessions = size.SessionsPerServer
		}
		members := plan.Weighted(backend.Members, sessions, func(name string) bool {
			return l.joinings.turn(service.UID, l.now(), backend.Name, name)
		})
		if !plan.SameMembers(members, backend.Members) {
			changes = append(changes, plan.Change{Name: backend.Name, ModifyBackend: &cloud.BackendPatch{Members: members}})
		}
	}
	if err := l.apply(ctx, service, lb, changes); err != nil {
		return err
	}
	l.joinings.see(service, lb, changes, l.now())
	return nil
}
