package loadbalancer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// sharedRounds is how often one call looks again after somebody else was faster.
const sharedRounds = 4

// ensureShared makes the Service's components be on the load balancer that it shares. The caller holds the Service's lock.
func (w *work) ensureShared(ctx context.Context) (*v1.LoadBalancerStatus, error) {
	var err error
	if w.access, err = w.accessOf(ctx, w.service, *w.settings.Shared); err != nil {
		return nil, err
	}
	if w.secrets, w.awaits, err = w.readSecrets(ctx, w.service, w.settings); err != nil {
		return nil, err
	}
	lb, err := w.join(ctx)
	if err != nil {
		return nil, err
	}
	w.sharing.note(w.service, w.told)
	ctx, unlock, err := w.lockShared(ctx, lb.ID, w.service.Namespace)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if lb.State.Deleting() {
		return nil, api.NewRetryError(fmt.Sprintf("load balancer %s (%s) is being deleted", lb.ID, lb.Name), retryWhile(lb))
	}
	problem, err := w.toTenant(ctx, madeForOne(lb, *w.settings.Shared))
	if err != nil {
		return nil, err
	}
	if problem != nil {
		w.said.say(w.service, []settings.Problem{*problem}, w.warn)
		return nil, because(problem.Reason, api.NewRetryError(problem.Message, refusedRetry))
	}
	problem, err = w.toTenant(ctx, settings.MayShare(w.access, lb, *w.settings.Shared, w.service, w.settings))
	if err != nil {
		return nil, err
	}
	if problem != nil {
		names, err := w.formerNames(ctx, lb)
		if err != nil {
			return nil, err
		}
		if len(names) > 0 {
			return nil, w.renamed(lb, names)
		}
		return nil, w.denied(ctx, lb, *problem)
	}
	if problem, configs, err := w.mayPresent(ctx, lb); problem != nil || err != nil {
		if err == nil {
			err = w.withdraw(ctx, lb, *problem, configs)
		}
		return nil, err
	}
	if err := w.notDoomed(ctx, lb); err != nil {
		return nil, err
	}
	if err := w.remember(ctx, lb); err != nil {
		return nil, err
	}
	shares, err := w.share(ctx, lb)
	if err != nil {
		return nil, err
	}
	if shares.Claims == 0 {
		return nil, w.nothing(shares)
	}
	w.sharing.settled(w.service.UID)
	return w.withAwaited(w.published(lb))
}

// nothing is the error of a Service all of whose ports and routes are others'.
func (w *work) nothing(shares plan.SharedPlan) error {
	return because(shares.Conflicts[0].Reason, api.NewRetryError(shares.Conflicts[0].Message, w.sharing.later(w.service.UID)))
}

func outOfReach(lb *cloud.LoadBalancer) error {
	return because("NetworkNotAttached", api.NewRetryError(fmt.Sprintf("no node is in a network of load balancer %s (%s): %s",
		lb.ID, lb.Name, attachedNetworks(lb)), sharedRetry))
}

// denied takes off what the Service has there still, if it was allowed once.
func (w *work) denied(ctx context.Context, lb *cloud.LoadBalancer, problem settings.Problem) error {
	if plan.HasParts(lb, w.identity.Key()) {
		if err := w.release(ctx, w.service, w.identity, lb); err != nil {
			return err
		}
	}
	w.said.say(w.service, []settings.Problem{problem}, w.warn)
	return because(problem.Reason, api.NewRetryError(problem.Message, refusedRetry))
}

// remember writes down where the Service's components are, before the first of them is made: without it, those of a Service whose
// annotations change would not be found again. The name is the one under which the Service was permitted last.
func (w *work) remember(ctx context.Context, lb *cloud.LoadBalancer) error {
	if w.recordedName(lb) == lb.Name || w.client == nil {
		return nil
	}
	annotations := map[string]string{settings.AnnotationID: lb.ID, settings.AnnotationName: lb.Name}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err == nil {
		_, err = w.client.CoreV1().Services(w.service.Namespace).
			Patch(ctx, w.service.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		return fmt.Errorf("note load balancer %s on the Service: %w", lb.ID, err)
	}
	return nil
}

// share brings the Service's components up to date. Who was faster at one of them is seen at the next look.
func (w *work) share(ctx context.Context, lb *cloud.LoadBalancer) (plan.SharedPlan, error) {
	shared := w.config.Cloud.Shared(lb.ID)
	var outside []string
	var err error
	if w.nodes, outside, err = w.reachable(ctx, lb, w.nodes); err != nil {
		return plan.SharedPlan{}, err
	}
	w.readServing(ctx)
	for round := 1; ; round++ {
		shares, err := w.sharedPlan(ctx, lb)
		if err != nil {
			return shares, err
		}
		if slices.ContainsFunc(shares.Changes, func(c plan.Change) bool { return c.DeleteTLS || c.DeleteFrontend }) {
			w.sharing.setDropped(w.service.UID, true)
		}
		err = w.applyShared(ctx, w.service, shared, shares.Changes)
		if err == nil && shares.Leaves {
			err = w.sweep(ctx, w.service, shared, lb)
		}
		if err == nil {
			err = w.deleteDropped(ctx)
		}
		// A hub that the Service has just left may have been in the way of its own next claim, on the same port.
		again := err == nil && shares.Leaves && len(shares.Conflicts) > 0 && round < sharedRounds
		if err == nil && !again {
			if len(shares.Conflicts) == 0 {
				w.membership.set(w.service, lb, w.members(w.nodes), outside...)
			}
			w.tellShared(lb, shares, outside)
			return shares, nil
		}
		overtaken := again || errors.Is(err, cloud.ErrAlreadyExists) || errors.Is(err, cloud.ErrNotFound) || errors.Is(err, cloud.ErrInvalid) ||
			errors.Is(err, cloud.ErrBusy) || errors.Is(err, cloud.ErrInUse)
		if !overtaken || round == sharedRounds {
			return shares, err
		}
		if lb, err = shared.Read(ctx); err != nil {
			return shares, err
		}
	}
}

// deleteDropped deletes the certificate bundles that were made for the Service and that it no longer presents, once one has been taken
// off. Of one that this program died over, upcloud-doctor tells, and it goes with the Service.
func (w *work) deleteDropped(ctx context.Context) error {
	if !w.sharing.hasDropped(w.service.UID) {
		return nil
	}
	cleanup := plan.BundleCleanup{Identity: w.identity, Keep: plan.BundleNames(w.settings, w.identity)}
	if _, err := deleteBundles(ctx, w.config.Cloud, cleanup); err != nil {
		return err
	}
	w.sharing.setDropped(w.service.UID, false)
	return nil
}

// SharedPlan finds what has to be done. If all nodes are out of reach there is nothing to claim ports or routes for.
func (w *work) sharedPlan(ctx context.Context, lb *cloud.LoadBalancer) (plan.SharedPlan, error) {
	want := plan.SharedState(w.input(lb.Networks), lb)
	if len(w.nodes) == 0 && !plan.HasParts(lb, want.Key) {
		return plan.SharedPlan{}, outOfReach(lb)
	}
	if err := w.provideShared(ctx, &want, lb); err != nil {
		return plan.SharedPlan{}, err
	}
	limits, err := w.sharedSessions(ctx, want.Backends, lb)
	if err != nil {
		return plan.SharedPlan{}, err
	}
	return plan.ShareDiff(want, lb, limits), nil
}

// sharedSessions returns how many sessions members may have. No notes tell there that a number was asked for once; but the backends
// are the Service's alone, so that members have what the plan allows unless a number is asked for. The plans are read once an hour. A
// plan that is no longer offered is not among them: then members keep what they have.
func (w *work) sharedSessions(ctx context.Context, backends []plan.Backend, lb *cloud.LoadBalancer) (plan.SessionLimits, error) {
	if !slices.ContainsFunc(backends, func(b plan.Backend) bool { return b.MaxSessions == nil }) {
		return plan.SessionLimits{}, nil
	}
	size, err := w.plan(ctx, lb.Plan)
	if errors.Is(err, errNoSuchPlan) {
		return w.sessions(ctx, plan.Desired{Backends: backends, DefaultPlan: lb.Plan}, lb)
	}
	return plan.SessionLimits{Fresh: size.SessionsPerServer, Reset: true}, err
}

// tellShared tells, once each, of what the Service does not get.
func (w *work) tellShared(lb *cloud.LoadBalancer, shares plan.SharedPlan, outside []string) {
	remarks := slices.Concat(w.awaits, shares.Conflicts, settings.Remarks(w.service, w.settings), w.foreignNodes(), w.localRemarks())
	if len(outside) > 0 {
		remarks = append(remarks, settings.Problem{Reason: "NetworkNotAttached", Message: fmt.Sprintf("Nodes %s have no internal address in a network of load balancer %s "+
			"(%s), and get no traffic from it: %s", strings.Join(outside, ", "), lb.ID, lb.Name, attachedNetworks(lb))})
	}
	w.said.say(w.service, remarks, w.warn)
}

func attachedNetworks(lb *cloud.LoadBalancer) string {
	var ids []string
	for _, network := range lb.Networks {
		if network.ID != "" {
			ids = append(ids, network.ID)
		}
	}
	return "it is attached to " + strings.Join(ids, ", ") + ", which was fixed when it was made"
}

// reachable leaves out the nodes that are in none of the load balancer's networks. Those that are members already were looked at.
func (w *work) reachable(ctx context.Context, lb *cloud.LoadBalancer, nodes []*v1.Node) (kept []*v1.Node, outside []string, err error) {
	if nodes, err = w.inNetworks(ctx, lb.Networks, nodes); err != nil {
		return nil, nil, err
	}
	members := map[string]bool{}
	for _, backend := range lb.Backends {
		for _, member := range backend.Members {
			if w.identity.Key().Is(plan.OwnerKey(backend.Name)) {
				members[member.Name+" "+member.IP] = true
			}
		}
	}
	isMember := func(node *v1.Node) bool {
		ip, ok := plan.InternalIPv4(node)
		return ok && members[plan.MemberName(node.Name)+" "+ip.String()]
	}
	if !slices.ContainsFunc(nodes, func(n *v1.Node) bool { return !isMember(n) }) {
		return nodes, nil, nil
	}
	located, err := w.locate(ctx, nodes, time.Now().Add(-settledAge))
	if err != nil {
		return nil, nil, err
	}
	inside, err := w.insideOf(ctx, lb.Networks, located)
	if err != nil {
		return nil, nil, err
	}
	for _, node := range nodes {
		switch {
		case inside[node.Name], isMember(node):
			kept = append(kept, node)
		default:
			outside = append(outside, node.Name)
		}
	}
	slices.Sort(outside)
	return kept, outside, nil
}

// provideShared makes the certificates, and fills in their IDs. What is there already costs no call.
func (w *work) provideShared(ctx context.Context, want *plan.SharedDesired, lb *cloud.LoadBalancer) error {
	if err := w.checkBundles(ctx, w.service, w.settings, lb); err != nil {
		return err
	}
	ids := map[string]string{}
	for _, frontend := range lb.Frontends {
		for _, config := range frontend.TLSConfigs {
			ids[config.Name] = config.BundleID
		}
	}
	p := &provider{balancers: w.LoadBalancers, service: w.service, secrets: w.secrets, desired: plan.Desired{Identity: w.identity}, lb: lb}
	for _, port := range w.settings.EveryPort() {
		for _, certificate := range port.Certificates {
			config := plan.TLSConfig(certificate, w.identity, fingerprintsOf(w.secrets))
			name := w.identity.SharedTLSName(config.Name)
			if config.BundleID != "" || ids[name] != "" || isAwaited(certificate, w.secrets) {
				continue
			}
			id, err := p.provide(ctx, certificate)
			if err != nil {
				return err
			}
			ids[name] = id
		}
	}
	fill := func(all []cloud.TLSConfig) {
		for i := range all {
			all[i].BundleID = cmp.Or(all[i].BundleID, ids[all[i].Name])
		}
	}
	for i := range want.Frontends {
		fill(want.Frontends[i].TLS)
	}
	for i := range want.Hubs {
		fill(want.Hubs[i].TLS)
	}
	return nil
}

// updateShared changes the members of the Service's backends, and nothing else. certain says that the settings are without a mistake.
func (w *work) updateShared(ctx context.Context, lb *cloud.LoadBalancer, certain bool) error {
	if lb.State.Deleting() || !plan.HasParts(lb, w.identity.Key()) {
		return nil
	}
	var outside []string
	var err error
	if w.nodes, outside, err = w.reachable(ctx, lb, w.nodes); err != nil {
		return err
	}
	w.readServing(ctx)
	desired := plan.Desired{Backends: plan.SharedState(w.input(lb.Networks), lb).Backends, DefaultPlan: lb.Plan}
	limits, err := w.sessions(ctx, desired, lb)
	if err != nil {
		return err
	}
	if err := w.applyShared(ctx, w.service, w.config.Cloud.Shared(lb.ID), plan.BackendChanges(desired, lb, limits)); err != nil {
		return err
	}
	if certain {
		w.membership.set(w.service, lb, w.members(w.nodes), outside...)
	}
	return nil
}

// conflictDelay and mostConflictDelay bound how often a Service that gets nothing looks again.
const (
	conflictDelay     = 30 * time.Second
	mostConflictDelay = 5 * time.Minute
)
