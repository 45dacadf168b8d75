package loadbalancer

import (
	"context"
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"
	servicehelpers "k8s.io/cloud-provider/service/helpers"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// refuse returns an error, and puts events on the Service: it cannot have a load balancer.
func (l *LoadBalancers) refuse(service *v1.Service, problems []settings.Problem) error {
	consequence := "No load balancer"
	if len(service.Status.LoadBalancer.Ingress) > 0 || service.Annotations[settings.AnnotationID] != "" {
		// It is not to be believed closed by who has just asked for that.
		consequence = "The load balancer that there is stays as it was, open to the same clients"
	}
	var messages []string
	for _, problem := range problems {
		l.warn(service, problem.Reason, "%s: %s", consequence, problem.Message)
		messages = append(messages, problem.Message)
	}
	text := strings.ToLower(consequence[:1]) + consequence[1:] + ": " + strings.Join(messages, "; ")
	return because(problems[0].Reason, api.NewRetryError(text, refusedRetry))
}

// refuseAndTend is refuse for a Service that may have a load balancer: nodes and Pods may have come, and gone, since somebody looked, or
// while no controller ran.
func (l *LoadBalancers) refuseAndTend(
	ctx context.Context, identity plan.Identity, service *v1.Service, nodes []*v1.Node, problems []settings.Problem,
) error {
	refused := l.refuse(service, problems)
	asked, slips := settings.Parse(service)
	l.secretUse.set(service, asked)
	if err := l.renewCertificates(ctx, identity, service, asked); err != nil {
		refused = notRenewed(refused, err)
	}
	mayHavePods := l.byPods(service) || l.config.PodMembers && len(slips) > 0
	if !mayHavePods && (service.Annotations[settings.AnnotationID] == "" || settings.NodesUnclear(service) && l.membership.known(service)) {
		return refused // it has no load balancer, or no node may join
	}
	return l.tend(ctx, identity, service, nodes, refused)
}

// tend brings the members of a Service up to date that is refused, and returns the error that is to be told.
func (l *LoadBalancers) tend(ctx context.Context, identity plan.Identity, service *v1.Service, nodes []*v1.Node, refused error) error {
	if !l.config.PodMembers && service.Annotations[settings.AnnotationID] == "" {
		return refused // it has no load balancer
	}
	if err := l.update(ctx, identity, service, nodes); err != nil { // is tried again sooner than what is refused
		return notFollowed(refused, err)
	}
	return refused
}

// notFollowed is the error for a Service that is told of something, and whose members could not be followed meanwhile.
func notFollowed(told, failed error) error {
	return because(reasonOf(told), fmt.Errorf("%s; and members that came or went meanwhile are not followed yet: %w", told.Error(), failed))
}

// notRenewed is the error for a Service that is told of something, and whose certificates could not be uploaded meanwhile.
func notRenewed(told, failed error) error {
	return because(reasonOf(told), fmt.Errorf("%s; certificates of Secrets that changed meanwhile are not uploaded yet: %w", told.Error(), failed))
}

// refuseSecrets is refuse for Secrets that cannot be used; nothing may tell when they can. The certificates of the others are renewed.
func (l *LoadBalancers) refuseSecrets(
	ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings, awaited []settings.Problem,
) error {
	l.said.say(service, awaited, l.warn)
	refused := awaiting(awaited)
	if err := l.renewCertificates(ctx, identity, service, asked); err != nil {
		return notRenewed(refused, err)
	}
	return refused
}

// awaiting is the error of a Service that waits for Secrets.
func awaiting(awaited []settings.Problem) error {
	var messages []string
	for _, one := range awaited {
		messages = append(messages, one.Message)
	}
	return because(awaited[0].Reason, api.NewRetryError(strings.Join(messages, "; "), secretRetry))
}

// withAwaited returns the status of a Service that may wait for Secrets. As the controller publishes none with an error, and a certificate
// may be issued only to who is reached at what is published, that comes first; the Service is looked at again once its Secret is there.
func (w *work) withAwaited(status *v1.LoadBalancerStatus, err error) (*v1.LoadBalancerStatus, error) {
	if err != nil || len(w.awaits) == 0 || !servicehelpers.LoadBalancerStatusEqual(&w.service.Status.LoadBalancer, status) {
		return status, err
	}
	return nil, awaiting(w.awaits)
}
