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
)

// sharedRounds is how often one call looks again after somebody else was faster.
const sharedRounds = 4

// ensureShared makes the Service's components be on the load balancer that it shares. The caller holds the Service's lock.
func (w *work) ensureShared(ctx context.Context) (*v1.LoadBalancerStatus, error) {
	var err error
	if w.secrets, err = w.readSecrets(ctx, w.service, w.settings); err != nil {
		return nil, w.refuseSecret(w.service, err)
	}
	lb, err := w.join(ctx)
	if err != nil {
		return nil, err
	}
	w.sharing.note(w.service, w.told)
	unlock, err := w.locks.lock(ctx, lb.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if lb.State.Deleting() {
		return nil, api.NewRetryError(fmt.Sprintf("load balancer %s (%s) is being deleted", lb.ID, lb.Name), retryWhile(lb))
	}
	if problem := mayShare(w.config.Shared, lb, *w.settings.Shared, w.service, w.settings); problem != nil {
		return nil, w.denied(ctx, lb, *problem)
	}
	if err := w.notDoomed(ctx, lb); err != nil {
		return nil, err
	}
	if err := w.remember(ctx, lb); err != nil {
		return nil, err
	}
	plan, err := w.share(ctx, lb)
	if err != nil {
		return nil, err
	}
	if plan.claims == 0 {
		return nil, w.nothing(plan)
	}
	w.sharing.settled(w.service.UID)
	return w.published(lb)
}

// nothing is the error of a Service all of whose ports and routes are others'.
func (w *work) nothing(plan sharedPlan) error {
	return because(plan.conflicts[0].Reason, api.NewRetryError(plan.conflicts[0].Message, w.sharing.later(w.service.UID)))
}

func outOfReach(lb *cloud.LoadBalancer) error {
	return because("NetworkNotAttached", api.NewRetryError(fmt.Sprintf("no node is in a network of load balancer %s (%s): %s",
		lb.ID, lb.Name, attachedNetworks(lb)), sharedRetry))
}

// denied takes off what the Service has there still, if it was allowed once.
func (w *work) denied(ctx context.Context, lb *cloud.LoadBalancer, problem Problem) error {
	if hasParts(lb, w.identity.serviceKey()) {
		if err := w.release(ctx, w.service, w.identity, lb); err != nil {
			return err
		}
	}
	w.said.say(w.service, []Problem{problem}, w.warn)
	return because(problem.Reason, api.NewRetryError(problem.Message, refusedRetry))
}

// remember writes down where the Service's components are, before the first of them is made: without it, those of a Service whose
// annotations change would not be found again.
func (w *work) remember(ctx context.Context, lb *cloud.LoadBalancer) error {
	if w.service.Annotations[AnnotationID] == lb.ID || w.client == nil {
		return nil
	}
	annotations := map[string]string{AnnotationID: lb.ID, AnnotationName: lb.Name}
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
func (w *work) share(ctx context.Context, lb *cloud.LoadBalancer) (sharedPlan, error) {
	shared := w.config.Cloud.Shared(lb.ID)
	var outside []string
	var err error
	if w.nodes, outside, err = w.reachable(ctx, lb, w.nodes); err != nil {
		return sharedPlan{}, err
	}
	for round := 1; ; round++ {
		plan, err := w.sharedPlan(ctx, lb)
		if err != nil {
			return plan, err
		}
		if slices.ContainsFunc(plan.changes, func(c Change) bool { return c.DeleteTLS || c.DeleteFrontend }) {
			w.sharing.setDropped(w.service.UID, true)
		}
		err = w.applyShared(ctx, w.service, shared, plan.changes)
		if err == nil && plan.leaves {
			err = w.sweep(ctx, w.service, shared, lb)
		}
		if err == nil {
			err = w.deleteDropped(ctx)
		}
		// A hub that the Service has just left may have been in the way of its own next claim, on the same port.
		again := err == nil && plan.leaves && len(plan.conflicts) > 0 && round < sharedRounds
		if err == nil && !again {
			if len(plan.conflicts) == 0 {
				w.membership.set(w.service, lb.ID, w.members(w.nodes), outside...)
			}
			w.tellShared(lb, plan, outside)
			return plan, nil
		}
		overtaken := again || errors.Is(err, cloud.ErrAlreadyExists) || errors.Is(err, cloud.ErrNotFound) || errors.Is(err, cloud.ErrInvalid) ||
			errors.Is(err, cloud.ErrBusy) || errors.Is(err, cloud.ErrInUse)
		if !overtaken || round == sharedRounds {
			return plan, err
		}
		if lb, err = shared.Read(ctx); err != nil {
			return plan, err
		}
	}
}

// deleteDropped deletes the certificate bundles that were made for the Service and that it no longer presents, once one has been taken
// off. Of one that this program died over, upcloud-doctor tells, and it goes with the Service.
func (w *work) deleteDropped(ctx context.Context) error {
	if !w.sharing.hasDropped(w.service.UID) {
		return nil
	}
	cleanup := bundleCleanup{serviceUID: w.identity.ServiceUID, keep: w.settings.bundleNames(w.identity)}
	if err := deleteBundles(ctx, w.config.Cloud, cleanup); err != nil {
		return err
	}
	w.sharing.setDropped(w.service.UID, false)
	return nil
}

// sharedPlan finds what has to be done. If all nodes are out of reach there is nothing to claim ports or routes for.
func (w *work) sharedPlan(ctx context.Context, lb *cloud.LoadBalancer) (sharedPlan, error) {
	want := sharedState(w.input(lb.Networks), lb)
	if len(w.nodes) == 0 && !hasParts(lb, want.key) {
		return sharedPlan{}, outOfReach(lb)
	}
	if err := w.provideShared(ctx, &want, lb); err != nil {
		return sharedPlan{}, err
	}
	limits, err := w.sharedSessions(ctx, want.backends, lb)
	if err != nil {
		return sharedPlan{}, err
	}
	return shareDiff(want, lb, limits), nil
}

// sharedSessions returns how many sessions members may have. No notes tell there that a number was asked for once; but the backends
// are the Service's alone, so that members have what the plan allows unless a number is asked for. The plans are read once an hour. A
// plan that is no longer offered is not among them: then members keep what they have.
func (w *work) sharedSessions(ctx context.Context, backends []Backend, lb *cloud.LoadBalancer) (sessionLimits, error) {
	if !slices.ContainsFunc(backends, func(b Backend) bool { return b.MaxSessions == nil }) {
		return sessionLimits{}, nil
	}
	plan, err := w.plan(ctx, lb.Plan)
	if errors.Is(err, errNoSuchPlan) {
		return w.sessions(ctx, Desired{Backends: backends, defaultPlan: lb.Plan}, lb)
	}
	return sessionLimits{fresh: plan.SessionsPerServer, reset: true}, err
}

// tellShared tells, once each, of what the Service does not get.
func (w *work) tellShared(lb *cloud.LoadBalancer, plan sharedPlan, outside []string) {
	remarks := slices.Concat(plan.conflicts, Remarks(w.service, w.settings))
	if len(outside) > 0 {
		remarks = append(remarks, Problem{"NetworkNotAttached", fmt.Sprintf("Nodes %s have no internal address in a network of load balancer %s "+
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
	members := map[string]bool{}
	for _, backend := range lb.Backends {
		for _, member := range backend.Members {
			if keyOf(backend.Name) == w.identity.serviceKey() {
				members[member.Name+" "+member.IP] = true
			}
		}
	}
	isMember := func(node *v1.Node) bool {
		ip, ok := internalIPv4(node)
		return ok && members[memberName(node.Name)+" "+ip.String()]
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
func (w *work) provideShared(ctx context.Context, want *sharedDesired, lb *cloud.LoadBalancer) error {
	if err := w.checkBundles(ctx, w.service, w.settings, lb); err != nil {
		return err
	}
	ids := map[string]string{}
	for _, frontend := range lb.Frontends {
		for _, config := range frontend.TLSConfigs {
			ids[config.Name] = config.BundleID
		}
	}
	p := &provider{balancers: w.LoadBalancers, service: w.service, secrets: w.secrets, desired: Desired{Identity: w.identity}, lb: lb}
	for _, port := range w.settings.everyPort() {
		for _, certificate := range port.Certificates {
			config := certificate.config(w.identity, fingerprintsOf(w.secrets))
			name := w.identity.sharedTLSName(config.Name)
			if config.BundleID != "" || ids[name] != "" {
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
	for i := range want.frontends {
		fill(want.frontends[i].TLS)
	}
	for i := range want.hubs {
		fill(want.hubs[i].tls)
	}
	return nil
}

// updateShared changes the members of the Service's backends, and nothing else. certain says that the settings are without a mistake.
func (w *work) updateShared(ctx context.Context, lb *cloud.LoadBalancer, certain bool) error {
	if lb.State.Deleting() || !hasParts(lb, w.identity.serviceKey()) {
		return nil
	}
	var outside []string
	var err error
	if w.nodes, outside, err = w.reachable(ctx, lb, w.nodes); err != nil {
		return err
	}
	desired := Desired{Backends: sharedState(w.input(lb.Networks), lb).backends, defaultPlan: lb.Plan}
	limits, err := w.sessions(ctx, desired, lb)
	if err != nil {
		return err
	}
	if err := w.applyShared(ctx, w.service, w.config.Cloud.Shared(lb.ID), BackendChanges(desired, lb, limits)); err != nil {
		return err
	}
	if certain {
		w.membership.set(w.service, lb.ID, w.members(w.nodes), outside...)
	}
	return nil
}

// conflictDelay and mostConflictDelay bound how often a Service that gets nothing looks again.
const (
	conflictDelay     = 30 * time.Second
	mostConflictDelay = 5 * time.Minute
)
