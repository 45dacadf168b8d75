package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// refusedRetry is when a Service that cannot have a load balancer is looked at again. A change of the Service comes before
// that by itself; this is only so that its event does not fade away.
const refusedRetry = 15 * time.Minute

// ensure makes the Service's load balancer be as desired, one step nearer each time it is called.
func (l *LoadBalancers) ensure(
	ctx context.Context, identity Identity, service *v1.Service, nodes []*v1.Node,
) (*v1.LoadBalancerStatus, error) {
	if err := l.refuse(service); err != nil {
		return nil, err
	}
	lb, err := l.find(ctx, service, identity)
	if err != nil {
		return nil, err
	}
	if lb != nil && lb.State.Deleting() {
		return nil, api.NewRetryError(fmt.Sprintf("load balancer %s (%s) is being deleted: a new one is made when it is gone",
			lb.ID, lb.Name), retryWhile(lb))
	}
	nodes, missed := l.withAddresses(ctx, nodes)
	if lb == nil {
		if lb, err = l.create(ctx, identity, service, nodes); err != nil {
			return nil, err
		}
	} else if err := l.change(ctx, identity, service, lb, nodes); err != nil {
		return nil, err
	}
	l.annotate(ctx, service, map[string]any{AnnotationID: lb.ID, AnnotationName: lb.Name})
	if missed != nil {
		return nil, missed
	}
	return l.published(service, lb)
}

// refuse returns an error, and puts an event on the Service, if it cannot have a load balancer.
func (l *LoadBalancers) refuse(service *v1.Service) error {
	problems := Problems(service)
	if len(problems) == 0 {
		return nil
	}
	consequence := "No load balancer"
	if len(service.Status.LoadBalancer.Ingress) > 0 || service.Annotations[AnnotationID] != "" {
		// It is not to be believed closed by who has just asked for that.
		consequence = "The load balancer that there is stays as it was, open to the same clients"
	}
	var messages []string
	for _, problem := range problems {
		l.warn(service, problem.Reason, "%s: %s", consequence, problem.Message)
		messages = append(messages, problem.Message)
	}
	return api.NewRetryError(strings.ToLower(consequence[:1])+consequence[1:]+": "+strings.Join(messages, "; "), refusedRetry)
}

// create makes the load balancer. A name that is taken may be by one of our own, whose making was never answered.
func (l *LoadBalancers) create(
	ctx context.Context, identity Identity, service *v1.Service, nodes []*v1.Node,
) (*cloud.LoadBalancer, error) {
	place, err := l.place(ctx, nodes)
	if err != nil {
		return nil, err
	}
	if len(place.Outside) > 0 {
		l.warn(service, "NodesOutsideNetwork", "Nodes %s have no internal address in network %s, to which the load balancer is "+
			"attached: it cannot reach them", strings.Join(place.Outside, ", "), place.NetworkID)
	}
	plan, err := l.plan(ctx, l.config.Plan)
	if err != nil {
		return nil, err
	}
	targets, _ := Targets(nodes)
	desired := DesiredState(identity, service, targets, l.config.MaxMembers)
	lb, err := l.config.Cloud.CreateLoadBalancer(ctx, desired.Create(place, plan.Name, plan.SessionsPerServer))
	if errors.Is(err, cloud.ErrAlreadyExists) || errors.Is(err, cloud.ErrBusy) {
		return l.takenName(ctx, identity, err)
	}
	if err != nil {
		return nil, err
	}
	klog.FromContext(ctx).Info("Made a load balancer", "service", klog.KObj(service), "loadBalancer", lb.ID, "name", lb.Name)
	if l.events != nil {
		l.events.Eventf(service, v1.EventTypeNormal, "NewLoadBalancer", "Made load balancer %s (%s) in %s", lb.ID, lb.Name, lb.Zone)
	}
	return lb, nil
}

func (l *LoadBalancers) takenName(ctx context.Context, identity Identity, conflict error) (*cloud.LoadBalancer, error) {
	all, err := l.findByLabels(ctx, identity)
	if err != nil {
		return nil, err
	}
	if len(all) > 0 {
		return &all[0], nil
	}
	return nil, fmt.Errorf("a load balancer named %s exists, and its labels do not say that it is this Service's: if it is, "+
		"name its UUID in annotation %s of the Service; if it is another cluster's, give each cluster its own clusterID; else delete "+
		"or rename it: %w", identity.Name, AnnotationID, conflict)
}

// change brings an existing load balancer up to date.
func (l *LoadBalancers) change(
	ctx context.Context, identity Identity, service *v1.Service, lb *cloud.LoadBalancer, nodes []*v1.Node,
) error {
	targets, _ := Targets(nodes)
	desired := DesiredState(identity, service, targets, l.config.MaxMembers)
	foreign := Foreign(desired, lb)
	desired = desired.without(foreign)
	sessions, err := l.sessions(ctx, desired, lb)
	if err != nil {
		return err
	}
	if err := l.apply(ctx, service, lb, Diff(desired, lb, sessions)); err != nil || len(foreign) == 0 {
		return err
	}
	problem := fmt.Sprintf("load balancer %s (%s) has frontends or backends called %s that were not made for this Service: they "+
		"are left alone, and these ports are not served; rename the Service's ports, or delete what is in their place",
		lb.ID, lb.Name, strings.Join(foreign, ", "))
	l.warn(service, "ForeignComponent", "%s", problem)
	return api.NewRetryError(problem, refusedRetry)
}

// sessions returns how many sessions new members may have, asking for the plans only if there are any.
func (l *LoadBalancers) sessions(ctx context.Context, desired Desired, lb *cloud.LoadBalancer) (int, error) {
	if !NewMembers(desired, lb) {
		return 0, nil
	}
	for _, backend := range lb.Backends { // a plan that is no longer offered is not in the list of plans
		for _, member := range backend.Members {
			return member.MaxSessions, nil
		}
	}
	plan, err := l.plan(ctx, lb.Plan)
	return plan.SessionsPerServer, err
}

// plan returns a plan by name.
func (l *LoadBalancers) plan(ctx context.Context, name string) (cloud.LoadBalancerPlan, error) {
	plans, err := l.config.Cloud.LoadBalancerPlans(ctx)
	if err != nil {
		return cloud.LoadBalancerPlan{}, err
	}
	var known []string
	for _, plan := range plans {
		if plan.Name == name {
			return plan, nil
		}
		known = append(known, plan.Name)
	}
	return cloud.LoadBalancerPlan{}, fmt.Errorf("load balancer plan %q does not exist: set loadBalancerPlan to one of %s",
		name, strings.Join(known, ", "))
}

// published returns the status of a load balancer that serves. One that only has changes under way goes on serving,
// so that what was published once stays so.
func (l *LoadBalancers) published(service *v1.Service, lb *cloud.LoadBalancer) (*v1.LoadBalancerStatus, error) {
	status := statusOf(lb, l.config.Status)
	switch {
	case lb.State.Running() && len(status.Ingress) > 0:
		return status, nil
	case len(service.Status.LoadBalancer.Ingress) > 0 && l.known(service, lb):
		if len(status.Ingress) == 0 {
			status = service.Status.LoadBalancer.DeepCopy()
		}
		return status, nil
	}
	return nil, api.NewRetryError(fmt.Sprintf("load balancer %s (%s) %s", lb.ID, lb.Name, waitingFor(lb)), retryWhile(lb))
}

// waitingFor says why a load balancer does not serve. The text is the same each time, so that Kubernetes counts one event
// instead of listing many.
func waitingFor(lb *cloud.LoadBalancer) string {
	switch {
	case lb.ConfiguredStatus == "stopped":
		return "was stopped: start it in the UpCloud control panel"
	case lb.State == "failing":
		return "is failing: look at it in the UpCloud control panel, or ask UpCloud's support"
	}
	return "is being set up, which takes UpCloud some minutes"
}

// known says whether the Service's status is about this load balancer, and not about one that it had before.
func (l *LoadBalancers) known(service *v1.Service, lb *cloud.LoadBalancer) bool {
	return service.Annotations[AnnotationID] == lb.ID
}

// retryWhile is when to look again at a load balancer that is on its way: soon if it is young, and the longer it takes
// the more seldom.
func retryWhile(lb *cloud.LoadBalancer) time.Duration {
	if lb.Created.IsZero() {
		return 5 * time.Second
	}
	return min(max(time.Since(lb.Created)/4, time.Second), 10*time.Second)
}

// withAddresses completes nodes whose status has no internal address yet. The service controller tells of a node when it
// gets its provider ID, a moment before it gets its addresses, and then no more. So when the API does not answer for one,
// the error has to be returned once the others are served: nothing else would make that node a member.
func (l *LoadBalancers) withAddresses(ctx context.Context, nodes []*v1.Node) (completed []*v1.Node, missed error) {
	completed = make([]*v1.Node, 0, len(nodes))
	for _, node := range nodes {
		if _, ok := internalIPv4(node); !ok && node.Spec.ProviderID != "" && l.config.NodeAddresses != nil {
			addresses, err := l.config.NodeAddresses(ctx, node)
			switch {
			case err == nil:
			case errors.Is(err, cloud.ErrUnavailable), ctx.Err() != nil:
				missed = fmt.Errorf("node %s is no member yet, as its addresses are not known: %w", node.Name, err)
			default: // does not pass by itself, and must not hold up every Service
				klog.FromContext(ctx).Error(err, "A node's addresses are not known, it is no member", "node", node.Name)
			}
			node = node.DeepCopy()
			node.Status.Addresses = append(node.Status.Addresses, addresses...)
		}
		completed = append(completed, node)
	}
	return completed, missed
}
