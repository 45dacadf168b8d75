package loadbalancer

import (
	"cmp"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// published returns the status of a load balancer that serves. One that only has changes under way goes on serving,
// so that what was published once stays so.
func (w *work) published(lb *cloud.LoadBalancer) (*v1.LoadBalancerStatus, error) {
	status := plan.StatusOf(lb, cmp.Or(w.settings.Status, w.config.Status))
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
	return service.Annotations[settings.AnnotationID] == lb.ID
}

// retryWhile is when to look again at a load balancer that is on its way: soon if it is young, and the longer it takes
// the more seldom.
func retryWhile(lb *cloud.LoadBalancer) time.Duration {
	if lb.Created.IsZero() {
		return 5 * time.Second
	}
	return min(max(time.Since(lb.Created)/4, time.Second), 10*time.Second)
}
