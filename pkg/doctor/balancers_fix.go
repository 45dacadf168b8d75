package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
)

// ErrOtherClusterBalancers is ErrOtherCluster for load balancers.
var ErrOtherClusterBalancers = errors.New("no Service of this Kubernetes knows any load balancer of this cluster: check that " +
	"--kubeconfig, --cluster-id and --cluster-name are of one cluster, and answer for each leftover instead of --yes")

// Fix removes the leftovers of a report from the account, and notes in each finding what came of it. nil for ask removes all that
// the rules allow. Both sides are looked at again just before each removal.
func (b *Balancers) Fix(ctx context.Context, report *Report, ask Ask) error {
	if ask == nil && report.Strange() {
		return ErrOtherClusterBalancers
	}
	removed := map[string]bool{}
	return report.fix(ask, func(finding *Finding) error { return b.remove(ctx, finding, removed) })
}

// remove looks at both sides again, and then removes one thing. Its error ends Fix; that one thing could not be removed does not.
// removed are the load balancers that were removed before: for a moment, the API does not tell that they are about to go.
func (b *Balancers) remove(ctx context.Context, finding *Finding, removed map[string]bool) error {
	e, err := b.read(ctx)
	if err != nil {
		return err
	}
	if finding.bundle != nil {
		if e, err = e.untilReleased(ctx, finding.bundle.ID, removed); err != nil {
			return err
		}
	}
	if !e.stillOrphan(finding) {
		finding.Outcome = OutcomeResolved
		return nil
	}
	if finding.Kept = e.whyKept(finding); finding.Kept != "" {
		finding.Outcome = OutcomeKept
		return nil
	}
	switch finding.Kind {
	case OrphanBalancer:
		err = b.config.Cloud.DeleteLoadBalancer(ctx, finding.lb.ID)
		removed[finding.lb.ID] = err == nil
	case OrphanComponents:
		err = loadbalancer.RemoveTrace(ctx, b.config.Cloud, finding.lb, finding.trace)
	case OrphanCertificate:
		err = b.config.Cloud.DeleteCertificateBundle(ctx, finding.bundle.ID)
	}
	if err != nil {
		finding.Outcome, finding.Error = OutcomeFailed, err.Error()
		return ctx.Err()
	}
	finding.Outcome = OutcomeRemoved
	klog.FromContext(ctx).V(2).Info("Removed a leftover", "kind", finding.Kind, "what", finding.Subject())
	return nil
}

// stillOrphan finds the finding's subject again as it is now, and reports whether it still is a leftover.
func (e *look) stillOrphan(f *Finding) bool {
	cluster := e.config.Cluster
	if f.bundle != nil {
		i := slices.IndexFunc(e.bundles, func(b cloud.CertificateBundle) bool { return b.ID == f.bundle.ID })
		if i < 0 || !maps.Equal(e.bundles[i].Labels, f.bundle.Labels) {
			return false
		}
		f.bundle = &e.bundles[i]
		service := e.knows(f.trace)
		return service == nil || service.DeletionTimestamp == nil && !cluster.AsksFor(service, f.bundle.Name)
	}
	i := slices.IndexFunc(e.balancers, func(lb cloud.LoadBalancer) bool { return lb.ID == f.lb.ID })
	if i < 0 || e.balancers[i].State.Deleting() || e.knows(f.trace) != nil {
		return false
	}
	now := &e.balancers[i]
	if f.Kind == OrphanComponents {
		for _, trace := range cluster.TracesOn(now) {
			if trace.Same(f.trace) {
				f.lb, f.trace = now, trace
				return true
			}
		}
		return false
	}
	if !maps.Equal(now.Labels, f.lb.Labels) {
		return false
	}
	f.lb = now
	return true
}

// untilReleased waits for load balancers that are being deleted to let go of a certificate bundle.
func (e *look) untilReleased(ctx context.Context, bundle string, removed map[string]bool) (*look, error) {
	err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, e.goneWait, true, func(ctx context.Context) (bool, error) {
		if user := e.userOf(bundle); user == nil || !user.State.Deleting() && !removed[user.ID] {
			return true, nil
		}
		now, err := e.read(ctx)
		if err == nil {
			e = now
		}
		return false, err
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return e, nil // whoever judges it sees who uses it
	}
	return e, err
}

// whyKept says which rule forbids a removal; empty when none does.
func (e *look) whyKept(f *Finding) string {
	trace := f.trace
	switch {
	case trace.Claim == cloud.ClaimOther:
		return "it is another cluster's"
	case trace.Claim == cloud.ClaimNone && e.config.Unclaimed != UnclaimedRemove:
		return "it carries this cluster's name and no cluster ID: --unclaimed remove takes it for this cluster's"
	case trace.Created.IsZero():
		return "the API does not tell its age"
	case time.Since(trace.Created) < e.config.SafetyAge:
		return fmt.Sprintf("it is younger than %s", e.config.SafetyAge)
	}
	switch f.Kind {
	case OrphanBalancer:
		return e.whyBalancerKept(f.lb)
	case OrphanCertificate:
		if user := e.userOf(f.bundle.ID); user != nil && !e.leaves(user) {
			return fmt.Sprintf("load balancer %s (%s) uses it", user.ID, user.Name)
		}
	}
	return ""
}

func (e *look) whyBalancerKept(lb *cloud.LoadBalancer) string {
	if service := e.named(lb.ID); service != nil {
		return serviceName(service) + " names it"
	}
	if all := loadbalancer.Uninvited(lb); len(all) > 0 {
		return "on it is what was not made for its Service: " + strings.Join(all, ", ")
	}
	return ""
}

// leaves reports whether a load balancer, or something on it, is a leftover that Fix removes too. What uses a certificate then is
// looked at again.
func (e *look) leaves(lb *cloud.LoadBalancer) bool {
	return slices.ContainsFunc(e.report.Findings, func(f *Finding) bool { return f.lb != nil && f.lb.ID == lb.ID && f.Kept == "" })
}
