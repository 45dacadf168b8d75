package loadbalancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/cloud-provider/api"
	servicehelpers "k8s.io/cloud-provider/service/helpers"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/fairness"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// The service controller looks at a load balancer only when something changes in Kubernetes. What somebody else does to one, in the
// control panel say, is noticed here.

// DefaultCheckInterval is how often load balancers are looked at without a reason.
const DefaultCheckInterval = 5 * time.Minute

// checkJitter spreads the looks of many clusters that were started at one time.
const checkJitter = 0.2

// FollowDrift mends, until ctx ends, what somebody else has done to the load balancers that Services have for themselves. A look costs
// one call for each hundred load balancers of the cluster; those that are as they should be cost nothing more.
func (l *LoadBalancers) FollowDrift(ctx context.Context, services corelisters.ServiceLister, nodes corelisters.NodeLister) {
	if l.config.CheckInterval < 0 {
		return
	}
	var rounds rounds
	defer rounds.wait()
	look := func(ctx context.Context) { l.mendDrift(ctx, services, nodes, &rounds) }
	wait.JitterUntilWithContext(ctx, look, l.config.CheckInterval, checkJitter, true)
}

// mendDrift looks once at all load balancers, and begins to bring those up to date that are not.
func (l *LoadBalancers) mendDrift(ctx context.Context, services corelisters.ServiceLister, nodes corelisters.NodeLister, rounds *rounds) {
	byNamespace := l.tending.byNamespace()
	if len(byNamespace) == 0 {
		return
	}
	listed, err := l.listOwn(ctx)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Whether load balancers are as they should be is not known")
		return
	}
	rounds.begin(ctx, byNamespace, func(ctx context.Context, uid types.UID) error {
		return l.mendDriftOf(ctx, uid, listed, services, nodes)
	}, "A load balancer is not as it should be")
}

// listOwn lists the load balancers that carry the cluster's labels.
func (l *LoadBalancers) listOwn(ctx context.Context) ([]cloud.LoadBalancer, error) {
	ctx, cancel := l.operation(ctx, "")
	defer cancel()
	if l.config.ClusterID != "" {
		return l.config.Cloud.LoadBalancers(ctx, cloud.Labels{settings.LabelClusterID: l.config.ClusterID})
	}
	return l.config.Cloud.LoadBalancers(ctx, cloud.Labels{settings.LabelClusterName: cmp.Or(l.config.ClusterName, l.lastClusterName())})
}

// mendDriftOf compares one Service's load balancer with what the Service asks for, and where they differ does what the controller
// does. The list may be out of date by then, so that it is only a reason to look.
func (l *LoadBalancers) mendDriftOf(
	ctx context.Context, uid types.UID, listed []cloud.LoadBalancer, services corelisters.ServiceLister, nodes corelisters.NodeLister,
) (err error) {
	one, _ := l.tending.get(uid)
	service, wanted := one.service(uid, services)
	if !wanted {
		return nil
	}
	defer recoverTo(&err, service)
	ctx, cancel := l.operation(ctx, service.Namespace)
	defer cancel()
	identity := l.identity(ctx, l.lastClusterName(), service)
	if l.asAsked(ctx, identity, service, one.present(nodes), ownOf(listed, identity, service)) {
		return nil
	}
	unlock, err := l.locks.lock(ctx, string(uid))
	if err != nil {
		return err
	}
	defer unlock()
	ctx = l.inSteps(ctx)
	// While the lock was waited for, the controller may have done more recent work.
	one, known := l.tending.get(uid)
	if service, wanted = one.service(uid, services); !known || !wanted {
		return nil
	}
	if asked, problems := settings.Parse(service); asked.Shared != nil || l.refused(ctx, identity, service, asked, problems) {
		return nil // the controller comes to it
	}
	return l.mendDrifted(ctx, identity, service, one.present(nodes))
}

// mendDrifted does what the controller does, and tells what it was. The caller holds the Service's lock.
func (l *LoadBalancers) mendDrifted(ctx context.Context, identity plan.Identity, service *v1.Service, nodes []*v1.Node) error {
	ctx, done := recording(ctx)
	status, err := l.ensure(ctx, identity, service, nodes)
	l.tellMended(service, *done)
	l.reportOutcome(ctx, service, err)
	if isOnItsWay(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.republish(service, status)
}

// isOnItsWay says whether the controller comes back to what has this error. It does not know of work that was interrupted here.
func isOnItsWay(err error) bool {
	var later *api.RetryError
	_, continues := fairness.IsContinues(err)
	return errors.As(err, &later) && !continues
}

// tellMended puts an event on a Service whose load balancer was changed without a change in Kubernetes.
func (l *LoadBalancers) tellMended(service *v1.Service, changes []string) {
	if len(changes) > 0 {
		l.tell(service, "MendedLoadBalancer", "The load balancer was not as the Service asks, though nothing had changed in Kubernetes: %s",
			inShort(changes))
	}
}

// inShort lists changes as an event has room for them.
func inShort(changes []string) string {
	const most = 5
	text := strings.Join(changes[:min(most, len(changes))], "; ")
	if more := len(changes) - most; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// republish writes the status that the controller wrote when it came last, if that has changed since: only the controller's own calls
// return theirs to it.
func (l *LoadBalancers) republish(service *v1.Service, status *v1.LoadBalancerStatus) error {
	if l.client == nil || servicehelpers.LoadBalancerStatusEqual(&service.Status.LoadBalancer, status) {
		return nil
	}
	updated := service.DeepCopy()
	updated.Status.LoadBalancer = *status
	_, err := servicehelpers.PatchService(l.client.CoreV1(), service, updated)
	return err
}

// ownOf finds a Service's load balancer among those listed; nil if it is not there.
func ownOf(listed []cloud.LoadBalancer, identity plan.Identity, service *v1.Service) *cloud.LoadBalancer {
	var found *cloud.LoadBalancer
	for i := range listed {
		lb := &listed[i]
		switch {
		case strings.EqualFold(lb.ID, service.Annotations[settings.AnnotationID]) && identity.OwnsNamed(lb):
			return lb
		case !identity.Owns(lb):
		case found == nil || lb.Created.Before(found.Created):
			found = lb
		}
	}
	return found
}

// asAsked says whether there is nothing to do for a Service whose load balancer was lb a moment ago. Whoever is not sure says no:
// then it is looked at again. It changes nothing, and makes no call but for what is not remembered.
func (l *LoadBalancers) asAsked(
	ctx context.Context, identity plan.Identity, service *v1.Service, nodes []*v1.Node, lb *cloud.LoadBalancer,
) bool {
	asked, problems := settings.Parse(service)
	switch {
	case asked.Shared != nil, l.refused(ctx, identity, service, asked, problems):
		return true // the controller comes to it, or tells of it
	case lb == nil:
		return service.Annotations[settings.AnnotationID] == "" // which the controller is about to make
	case lb.State.Deleting():
		return true // it is looked for again when it is gone
	}
	w := &work{LoadBalancers: l, service: service, identity: identity.Of(lb), settings: asked}
	var err error
	if w.secrets, w.awaits, err = l.readSecrets(ctx, service, asked); err != nil {
		return true // the controller comes to it, or tells of it
	}
	if err := w.readPods(ctx); err != nil {
		return true // the controller tries again
	}
	if missed, err := w.readNodes(ctx, nodes, asked.Selector); err != nil || missed != nil {
		return true // the controller tries again
	}
	if err := w.placeNodes(ctx, lb.Networks); err != nil {
		return true // the controller tries again
	}
	w.readServing(ctx)
	status := plan.StatusOf(lb, cmp.Or(asked.Status, l.config.Status))
	if lb.State.Running() && len(status.Ingress) > 0 && !servicehelpers.LoadBalancerStatusEqual(&service.Status.LoadBalancer, status) {
		return false
	}
	return w.unchanged(ctx, lb)
}

// unchanged says whether change would do nothing.
func (w *work) unchanged(ctx context.Context, lb *cloud.LoadBalancer) bool {
	desired := plan.DesiredState(w.input(lb.Networks))
	desired = desired.Without(plan.Foreign(desired, lb))
	if w.lacksCertificate(desired, lb) {
		return false
	}
	limits, err := w.sessions(ctx, desired, lb)
	if err != nil {
		return false
	}
	// As no certificate is lacking, none is made.
	if err := w.provideCertificates(ctx, w.service, w.settings, w.secrets, desired, lb, false); err != nil {
		return false
	}
	return len(plan.Diff(desired, lb, limits)) == 0
}

// lacksCertificate says whether a certificate that the Service asks for is on none of the frontends.
func (w *work) lacksCertificate(desired plan.Desired, lb *cloud.LoadBalancer) bool {
	for _, port := range w.settings.EveryPort() {
		for _, certificate := range port.Certificates {
			config := plan.TLSConfig(certificate, desired.Identity, fingerprintsOf(w.secrets))
			there := slices.ContainsFunc(lb.Frontends, func(f cloud.Frontend) bool {
				return slices.ContainsFunc(f.TLSConfigs, func(t cloud.TLSConfig) bool { return t.Name == config.Name })
			})
			if config.BundleID == "" && !there && !isAwaited(certificate, w.secrets) {
				return true
			}
		}
	}
	return false
}

type recordingKey struct{}

// recording lets apply note in the list what was done under the context.
func recording(ctx context.Context) (context.Context, *[]string) {
	done := &[]string{}
	return context.WithValue(ctx, recordingKey{}, done), done
}

// noteDone notes a change that was made.
func noteDone(ctx context.Context, change plan.Change) {
	if done, ok := ctx.Value(recordingKey{}).(*[]string); ok {
		*done = append(*done, change.String())
	}
}
