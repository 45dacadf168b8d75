package loadbalancer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// apply carries out changes one after the other, and stops at the first that fails: the next reconcile looks anew and goes
// on from there.
func (l *LoadBalancers) apply(ctx context.Context, service *v1.Service, lb *cloud.LoadBalancer, changes []plan.Change) error {
	logger := klog.FromContext(ctx)
	for i, change := range changes {
		logger.Info("Changing a load balancer", "service", klog.KObj(service), "loadBalancer", lb.ID, "change", change.String())
		if err := doChange(ctx, change, l.config.Cloud, lb.ID); err != nil {
			return fmt.Errorf("load balancer %s: %s: %w", lb.ID, change, err)
		}
		noteDone(ctx, change)
		if err := l.stepEnded(ctx, len(changes)-i-1); err != nil {
			return err
		}
	}
	return nil
}

// update changes the members of the Service's backends. A Service without a load balancer gets it elsewhere, in ensure. One whose
// members are to stay as they were brought to be last takes no call.
func (l *LoadBalancers) update(ctx context.Context, identity plan.Identity, service *v1.Service, nodes []*v1.Node) error {
	asked, problems := settings.Parse(service)
	denied, err := l.denials(ctx, identity, service, asked)
	if err != nil {
		return err
	}
	problems = append(problems, denied...)
	if asked.Shared != nil && !l.byPods(service) {
		return l.updateSharing(ctx, identity, service, asked, len(problems) == 0, nodes)
	}
	l.tending.note(service, nodes)
	if asked.Shared != nil || len(problems) > 0 {
		return l.updateRefused(ctx, identity, service, asked, nodes)
	}
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: asked}
	if err := w.readPods(ctx); err != nil {
		return err
	}
	missed, err := w.readNodesAsPlaced(ctx, nodes, asked.Selector)
	if err != nil {
		return err
	}
	if l.membership.has(service, w.members(w.nodes)) {
		return missed
	}
	l.membership.forget(service)
	lb, err := l.find(ctx, service, identity)
	var shares *sharesError
	if errors.As(err, &shares) { // which it has not left yet: its Secret is missing, say
		return l.updateSharing(ctx, identity, service, asked, false, nodes)
	}
	if err != nil || lb == nil || lb.State.Deleting() {
		return err
	}
	if err := w.placeNodes(ctx, lb.Networks); err != nil {
		return err
	}
	full := plan.DesiredState(w.input(lb.Networks))
	foreign := plan.Foreign(full, lb)
	if err := w.updateMembers(ctx, lb, full.Without(foreign)); err != nil {
		return err
	}
	if len(foreign) == 0 {
		l.membership.set(service, lb, full.MemberDigest())
	}
	return missed
}

// updateRefused is update for a Service with a mistake, or one that cannot yet have what it wants to share, whose load balancer stands
// as it was. Nodes and Pods leave and join, but that no nodes join while it is the choice of nodes that has the mistake. Pods cannot be members
// of a shared load balancer, so that to ask for one is such a mistake.
func (l *LoadBalancers) updateRefused(
	ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings, nodes []*v1.Node,
) error {
	unclear := settings.NodesUnclear(service)
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: &settings.Settings{
		Ports: l.portsAsStood(asked), MaxMembers: asked.MaxMembers,
	}}
	missed, err := w.readNodesAsPlaced(ctx, nodes, asked.Selector)
	if err != nil {
		return err
	}
	nodesAlone := !unclear && !l.config.PodMembers
	if nodesAlone && l.membership.has(service, w.members(w.nodes)) {
		return missed
	}
	lb, err := l.find(ctx, service, identity)
	var shares *sharesError
	if errors.As(err, &shares) { // since before its Pods were to be members, or it was to have one of its own
		return l.updateSharing(ctx, identity, service, asked, false, nodes)
	}
	if err != nil || lb == nil || lb.State.Deleting() {
		return err
	}
	if err := w.placeNodes(ctx, lb.Networks); err != nil {
		return err
	}
	if unclear {
		w.nodes = onlyMembers(w.nodes, lb)
		w.settings.MaxMembers = max(len(nodes), cmp.Or(asked.MaxMembers, l.config.MaxMembers))
	}
	isPods := podBackends(lb)
	l.tending.setPods(service.UID, slices.ContainsFunc(lb.Backends, func(b cloud.Backend) bool { return isPods(b.Name) }))
	asItStood := func(port v1.ServicePort) bool { return port.NodePort == 0 || isPods(settings.PortName(port)) }
	if l.config.PodMembers && slices.ContainsFunc(service.Spec.Ports, asItStood) {
		if w.pods, err = l.podsOf(ctx, service, asItStood); err != nil {
			return err
		}
	}
	full := plan.DesiredState(w.input(lb.Networks))
	full.DefaultPlan = lb.Plan // to which no change is due
	foreign := plan.Foreign(full, lb)
	clear := full.Without(foreign)
	if settings.MembersUnclear(service) {
		clear.Backends = slices.DeleteFunc(clear.Backends, func(b plan.Backend) bool { return !b.Pods && !hasMemberOf(lb, b.Name, w.nodes) })
	}
	if err := w.updateMembers(ctx, lb, clear); err != nil {
		return err
	}
	if nodesAlone && len(foreign) == 0 {
		l.membership.set(service, lb, full.MemberDigest())
	}
	return missed
}

// updateMembers brings the members of those of the desired backends up to date that there are.
func (w *work) updateMembers(ctx context.Context, lb *cloud.LoadBalancer, desired plan.Desired) error {
	w.remark(lb, nil, "")
	limits, err := w.sessions(ctx, desired, lb)
	if err != nil {
		return err
	}
	changes := plan.JoinAside(desired, lb, plan.BackendChanges(desired, lb, limits))
	if len(changes) > 0 {
		w.membership.forget(w.service)
	}
	if err := w.apply(ctx, w.service, lb, changes); err != nil {
		return err
	}
	w.joinings.see(w.service, lb, changes, w.now())
	return nil
}

// hasMemberOf says whether any of the nodes is a member of a backend. If none is, its members may be others than nodes.
func hasMemberOf(lb *cloud.LoadBalancer, backend string, nodes []*v1.Node) bool {
	for _, have := range lb.Backends {
		if have.Name == backend {
			return slices.ContainsFunc(have.Members, func(m cloud.Member) bool {
				return slices.ContainsFunc(nodes, func(n *v1.Node) bool { return plan.MemberName(n.Name) == m.Name })
			})
		}
	}
	return false
}

// onlyMembers leaves out the nodes that are no members.
func onlyMembers(nodes []*v1.Node, lb *cloud.LoadBalancer) []*v1.Node {
	member := map[string]bool{}
	for _, backend := range lb.Backends {
		for _, one := range backend.Members {
			member[one.Name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(nodes), func(node *v1.Node) bool { return !member[plan.MemberName(node.Name)] })
}

// annotate writes annotations on the Service, nil removing one, if that changes any. They are a convenience: the labels
// tell the same, so that a failure is logged and no more.
func (l *LoadBalancers) annotate(ctx context.Context, service *v1.Service, annotations map[string]any) {
	changed := false
	for key, value := range annotations {
		have, ok := service.Annotations[key]
		changed = changed || (value == nil && ok) || (value != nil && (!ok || have != value))
	}
	if !changed || l.client == nil {
		return
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err == nil {
		_, err = l.client.CoreV1().Services(service.Namespace).
			Patch(ctx, service.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		klog.FromContext(ctx).Error(err, "The annotations of a load balancer cannot be written", "service", klog.KObj(service))
	}
}

// doChange makes the call that a change is.
func doChange(ctx context.Context, c plan.Change, api *cloud.Cloud, id string) error {
	switch {
	case c.CreateLabel != nil:
		return api.CreateLoadBalancerLabel(ctx, id, c.Name, *c.CreateLabel)
	case c.ModifyLabel != nil:
		return api.ModifyLoadBalancerLabel(ctx, id, c.Name, *c.ModifyLabel)
	case c.DeleteLabel:
		return api.DeleteLoadBalancerLabel(ctx, id, c.Name)
	case c.ModifyLoad != nil:
		return api.ModifyLoadBalancer(ctx, id, *c.ModifyLoad)
	case c.CreateFrontend != nil:
		return api.CreateFrontend(ctx, id, *c.CreateFrontend)
	case c.ModifyFrontend != nil:
		return api.ModifyFrontend(ctx, id, c.Name, *c.ModifyFrontend)
	case c.DeleteFrontend:
		return api.DeleteFrontend(ctx, id, c.Name)
	case c.CreateRule != nil:
		return api.CreateRule(ctx, id, c.Owner.Frontend, *c.CreateRule)
	case c.ReplaceRule != nil:
		return api.ReplaceRule(ctx, id, c.Owner.Frontend, *c.ReplaceRule)
	case c.DeleteRule:
		return api.DeleteRule(ctx, id, c.Owner.Frontend, c.Name)
	case c.CreateTLS != nil:
		return api.CreateTLSConfig(ctx, id, c.Owner, *c.CreateTLS)
	case c.ModifyTLS != nil:
		return api.ModifyTLSConfig(ctx, id, c.Owner, c.Name, *c.ModifyTLS)
	case c.DeleteTLS:
		return api.DeleteTLSConfig(ctx, id, c.Owner, c.Name)
	}
	return doOtherChange(ctx, c, api, id)
}

func doOtherChange(ctx context.Context, c plan.Change, api *cloud.Cloud, id string) error {
	switch {
	case c.CreateBackend != nil:
		return api.CreateBackend(ctx, id, *c.CreateBackend)
	case c.ModifyBackend != nil:
		return api.ModifyBackend(ctx, id, c.Name, *c.ModifyBackend)
	case c.DeleteBackend:
		return api.DeleteBackend(ctx, id, c.Name)
	case c.CreateResolver != nil:
		return api.CreateResolver(ctx, id, *c.CreateResolver)
	case c.ReplaceResolver != nil:
		return api.ReplaceResolver(ctx, id, *c.ReplaceResolver)
	case c.DeleteResolver:
		return api.DeleteResolver(ctx, id, c.Name)
	case c.AttachAddress != nil:
		return api.AttachFloatingAddress(ctx, id, *c.AttachAddress)
	case c.DetachAddress:
		return api.DetachFloatingAddress(ctx, id, c.Name)
	case c.DeleteBundles != nil:
		_, err := deleteBundles(ctx, api, *c.DeleteBundles)
		return err
	}
	return nil
}
