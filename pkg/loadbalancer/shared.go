package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// A load balancer that Services share, also those of different clusters, has no owner among them. Each Service makes, changes and
// deletes components of its own, told by their names (shared_names.go), and nothing else. What two Services could both want, a port
// or a route, is claimed by making a component whose name follows from it: the API lets one of them.
//
// There are no locks between clusters, no leases and no clocks in this; only the removal of a whole load balancer that was made
// for a group needs time to pass (shared_group.go).

// sharesError is about a Service that no longer shares a load balancer, and has components there still.
type sharesError struct{ lb *cloud.LoadBalancer }

func (e *sharesError) Error() string {
	return fmt.Sprintf("the Service is about to leave load balancer %s (%s), which it shared", e.lb.ID, e.lb.Name)
}

// ensureSharing is ensure for a Service that shares.
func (l *LoadBalancers) ensureSharing(
	ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings, nodes []*v1.Node,
) (*v1.LoadBalancerStatus, error) {
	l.membership.forget(service)
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: asked, told: nodes}
	missed, err := w.readNodes(ctx, nodes, asked.Selector)
	if err != nil {
		return nil, err
	}
	status, err := w.ensureShared(ctx)
	if err == nil {
		l.noteUploaded(service, w.secrets)
	}
	if err == nil && missed != nil {
		return nil, missed
	}
	return status, err
}

// updateSharing is update for a Service that shares, or has not left yet what it shared. certain says that its settings are those of
// what it has there.
func (l *LoadBalancers) updateSharing(
	ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings, certain bool, nodes []*v1.Node,
) error {
	l.sharing.note(service, nodes)
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: asked}
	missed, err := w.readNodesAsPlaced(ctx, nodes, asked.Selector)
	if err != nil {
		return err
	}
	if certain && l.membership.has(service, w.members(l.membership.within(service, w.nodes))) {
		return missed
	}
	l.membership.forget(service)
	lb, err := l.annotated(ctx, service)
	if err != nil || lb == nil {
		return err
	}
	if identity.OwnsNamed(lb) && !plan.HasParts(lb, identity.Key()) {
		return l.updateRefused(ctx, identity, service, asked, nodes) // it has its own until it can share
	}
	if !certain {
		w.settings = &settings.Settings{Ports: l.portsAsStood(asked), MaxMembers: asked.MaxMembers}
	}
	if !certain && settings.NodesUnclear(service) { // which may join: those that leave do
		w.settings.MaxMembers = len(nodes)
		w.nodes = onlyMembers(w.nodes, lb)
	}
	if err := w.updateShared(ctx, lb, certain); err != nil {
		return err
	}
	return missed
}

// renewSharing brings a Service that shares up to date, with the nodes that it had last.
func (l *LoadBalancers) renewSharing(ctx context.Context, identity plan.Identity, service *v1.Service, nodes corelisters.NodeLister) error {
	one, known := l.sharing.get(service.UID)
	asked, problems := settings.Parse(service)
	if l.refused(ctx, identity, service, asked, problems) { // which is told of elsewhere
		return l.renewCertificates(ctx, identity, service, asked)
	}
	if !known {
		return nil // the controller comes by itself
	}
	awaited := slices.ContainsFunc(l.said.last(service), isAboutSecret)
	_, err := l.ensureSharing(ctx, identity, service, asked, one.present(nodes))
	if awaited || slices.ContainsFunc(l.said.last(service), isAboutSecret) {
		l.reportOutcome(ctx, service, err)
	}
	return err
}

// findAfterLeaving is find, after what the Service has on a load balancer that it no longer shares is gone.
func (l *LoadBalancers) findAfterLeaving(ctx context.Context, service *v1.Service, identity plan.Identity) (*cloud.LoadBalancer, error) {
	lb, err := l.find(ctx, service, identity)
	var shares *sharesError
	if !errors.As(err, &shares) {
		return lb, err
	}
	if err := l.release(ctx, service, identity, shares.lb); err != nil {
		return nil, err
	}
	l.sharing.forget(service.UID)
	return l.find(ctx, withoutID(service), identity)
}

// withoutID is the Service without the annotation that names a load balancer.
func withoutID(service *v1.Service) *v1.Service {
	service = service.DeepCopy()
	delete(service.Annotations, settings.AnnotationID)
	return service
}

// places are the load balancers that a Service that shares may have components on.
func (l *LoadBalancers) places(ctx context.Context, service *v1.Service, asked *settings.Settings) ([]*cloud.LoadBalancer, error) {
	before, err := l.annotated(ctx, service)
	if err != nil {
		return nil, err
	}
	lb, err := l.referred(ctx, *asked.Shared, before)
	if err != nil {
		return nil, err
	}
	var all []*cloud.LoadBalancer
	for _, one := range []*cloud.LoadBalancer{before, lb} {
		if one != nil && !one.State.Deleting() && !slices.ContainsFunc(all, func(have *cloud.LoadBalancer) bool { return have.ID == one.ID }) {
			all = append(all, one)
		}
	}
	return all, nil
}

// shares returns the shared load balancer on which there is work for the Service still, and the Service as find is to see it.
func (l *LoadBalancers) shares(
	ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings,
) (*v1.Service, *cloud.LoadBalancer, error) {
	if asked.Shared == nil {
		return service, nil, nil
	}
	all, err := l.places(ctx, service, asked)
	if err != nil {
		return service, nil, err
	}
	own := service
	for _, lb := range all {
		if plan.HasParts(lb, identity.Key()) {
			return service, lb, nil
		}
		if last, err := l.lastOfGroup(ctx, service, asked, lb); last || err != nil {
			return service, lb, err
		}
		if lb.ID == service.Annotations[settings.AnnotationID] && !identity.OwnsNamed(lb) {
			own = withoutID(service)
		}
	}
	return own, nil, nil
}

// leaveShared takes the Service off what it shares, and returns it as find is to see it.
func (l *LoadBalancers) leaveShared(ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings) (*v1.Service, error) {
	all, err := l.places(ctx, service, asked)
	if err != nil {
		return nil, err
	}
	own := service
	for _, lb := range all {
		if err := l.leaveOne(ctx, identity, service, asked, lb); err != nil {
			return nil, err
		}
		if lb.ID == service.Annotations[settings.AnnotationID] && !identity.OwnsNamed(lb) {
			own = withoutID(service)
		}
	}
	return own, nil
}

func (l *LoadBalancers) leaveOne(ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings, lb *cloud.LoadBalancer) error {
	ctx, unlock, err := l.lockShared(ctx, lb.ID, service.Namespace)
	if err != nil {
		return err
	}
	defer unlock()
	if plan.HasParts(lb, identity.Key()) {
		if err := l.release(ctx, service, identity, lb); err != nil {
			return err
		}
	}
	last, err := l.deletesLast(ctx, service, asked, lb)
	if err != nil || !last {
		return err
	}
	return l.deleteLast(ctx, identity, service, lb.ID)
}

// sharing remembers the Services that share, as tending those that do not, so that what somebody else does to their components can be
// mended.
type sharing struct {
	tending
	tries   map[types.UID]int  // in a row that gave a Service nothing
	dropped map[types.UID]bool // certificates were taken off whose bundles may be there still
}

func (s *sharing) forget(uid types.UID) {
	s.tending.forget(uid)
	s.settled(uid)
	s.setDropped(uid, false)
}

func (s *sharing) setDropped(uid types.UID, dropped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !dropped {
		delete(s.dropped, uid)
		return
	}
	if s.dropped == nil {
		s.dropped = map[types.UID]bool{}
	}
	s.dropped[uid] = true
}

func (s *sharing) hasDropped(uid types.UID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped[uid]
}

// later is when a Service that got nothing looks again: less and less often.
func (s *sharing) later(uid types.UID) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tries == nil {
		s.tries = map[types.UID]int{}
	}
	delay := min(conflictDelay<<min(s.tries[uid], 10), mostConflictDelay)
	s.tries[uid]++
	return delay
}

func (s *sharing) settled(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tries, uid)
}

// mendPeriod is how often each Service on a shared load balancer is looked after without a reason.
const mendPeriod = time.Minute

// FollowShared mends, until ctx ends, what somebody else has done to the Services' components of shared load balancers, and takes
// what was another Service's and is free again.
func (l *LoadBalancers) FollowShared(ctx context.Context, services corelisters.ServiceLister, nodes corelisters.NodeLister) {
	var rounds rounds
	defer rounds.wait()
	looks := &sharedLooks{}
	var last time.Time
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		if now := l.now(); now.Sub(last) >= mendPeriod {
			last = now
			l.mendShared(ctx, services, nodes, &rounds)
			return
		}
		l.lookShared(ctx, services, nodes, looks, &rounds)
	}, lookPeriod)
}

// mendShared looks once at each load balancer that the Services share, and begins to bring up to date the Services that are not.
func (l *LoadBalancers) mendShared(ctx context.Context, services corelisters.ServiceLister, nodes corelisters.NodeLister, rounds *rounds) {
	seen := &sightings{}
	rounds.begin(ctx, l.sharing.byNamespace(), func(ctx context.Context, uid types.UID) error {
		return l.mendOne(ctx, uid, services, nodes, seen)
	}, "A shared load balancer is not up to date")
}

func (l *LoadBalancers) mendOne(
	ctx context.Context, uid types.UID, services corelisters.ServiceLister, nodes corelisters.NodeLister, seen *sightings,
) (err error) {
	one, _ := l.sharing.get(uid)
	ctx, done, err := l.begin(ctx, one.namespace, uid)
	if err != nil {
		return err
	}
	defer done()
	// Not before: while the lock is waited for, the controller may do more recent work.
	one, _ = l.sharing.get(uid) // empty for one that has ceased to share
	service, wanted := one.service(uid, services)
	if !wanted {
		return nil
	}
	defer recoverTo(&err, service)
	told := one.present(nodes)
	asked, problems := settings.Parse(service)
	identity := l.identity(ctx, l.lastClusterName(), service)
	if asked.Shared == nil || l.refused(ctx, identity, service, asked, problems) {
		return nil
	}
	id := service.Annotations[settings.AnnotationID]
	lb, err := seen.of(ctx, id, func() (*cloud.LoadBalancer, error) { return l.annotated(ctx, service) })
	if err != nil {
		return err
	}
	if lb == nil || !asked.Shared.Names(lb) || l.upToDate(ctx, identity, service, asked, told, lb) {
		return nil
	}
	seen.forget(id)
	ctx, changes := recording(ctx)
	_, err = l.ensureSharing(ctx, identity, service, asked, told)
	l.tellMended(service, *changes)
	l.reportOutcome(ctx, service, err)
	return err
}

// upToDate says whether there is nothing to do for a Service on a load balancer as it was a moment ago. Whoever is not sure says
// no: then it is looked at again.
func (l *LoadBalancers) upToDate(
	ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings, nodes []*v1.Node, lb *cloud.LoadBalancer,
) bool {
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: asked}
	var missed, err error
	if w.secrets, w.awaits, err = l.readSecrets(ctx, service, asked); err != nil {
		return false
	}
	if missed, err = w.readNodes(ctx, nodes, asked.Selector); err != nil || missed != nil {
		return false
	}
	if w.nodes, _, err = w.reachable(ctx, lb, w.nodes); err != nil {
		return false
	}
	w.readServing(ctx)
	shares, err := w.sharedPlan(ctx, lb)
	return err == nil && len(shares.Changes) == 0
}
