package loadbalancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// published returns the status of a load balancer that serves. One that only has changes under way goes on serving,
// so that what was published once stays so.
func (w *work) published(lb *cloud.LoadBalancer) (*v1.LoadBalancerStatus, error) {
	status := statusOf(lb, cmp.Or(w.settings.Status, w.config.Status))
	service := w.service
	switch {
	case lb.State.Running() && len(status.Ingress) > 0:
		return status, nil
	case len(service.Status.LoadBalancer.Ingress) > 0 && w.known(service, lb):
		if len(status.Ingress) == 0 {
			status = service.Status.LoadBalancer.DeepCopy()
		}
		return status, nil
	}
	reason, text := waitingFor(lb)
	return nil, because(reason, api.NewRetryError(fmt.Sprintf("load balancer %s (%s) %s", lb.ID, lb.Name, text), retryWhile(lb)))
}

// waitingFor says why a load balancer does not serve. The text is the same each time, so that Kubernetes counts one event
// instead of listing many.
func waitingFor(lb *cloud.LoadBalancer) (reason, text string) {
	switch {
	case lb.ConfiguredStatus == "stopped":
		return ReasonStopped, "was stopped: start it in the UpCloud control panel"
	case lb.State == "failing":
		return ReasonFailing, "is failing: look at it in the UpCloud control panel, or ask UpCloud's support"
	}
	return ReasonSettingUp, "is being set up, which takes UpCloud some minutes"
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
