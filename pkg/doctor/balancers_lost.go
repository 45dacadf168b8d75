package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
)

// balancer is what a finding about load balancers is about.
type balancer struct {
	trace  loadbalancer.Trace
	lb     *cloud.LoadBalancer
	bundle *cloud.CertificateBundle
}

func (b balancer) removable() bool { return b.lb != nil || b.bundle != nil }

// describe fills in what is told of the finding.
func (f *Finding) describe() {
	f.Claim, f.Note = f.trace.Claim, "of "+f.trace.Words
	if !f.trace.Created.IsZero() {
		f.Created = &f.trace.Created
	}
	if f.bundle != nil {
		f.CertificateID, f.Title, f.State = f.bundle.ID, f.bundle.Name, f.bundle.State
		f.Note = ""
		return
	}
	f.LoadBalancerID, f.Title, f.Zone, f.State = f.lb.ID, f.lb.Name, f.lb.Zone, string(f.lb.State)
}

// subject is the finding in words for a question.
func (b balancer) subject(f *Finding) string {
	text := fmt.Sprintf("load balancer %s, named %q, in %s", f.LoadBalancerID, f.Title, f.Zone)
	switch f.Kind {
	case OrphanComponents:
		text = fmt.Sprintf("the components of %s on load balancer %s, named %q", b.trace.Words, f.LoadBalancerID, f.Title)
	case OrphanCertificate:
		text = fmt.Sprintf("certificate bundle %s, named %q", f.CertificateID, f.Title)
	}
	if f.Unclaimed() {
		text += ", which does not say which cluster's it is"
	}
	return text
}

// balancerFinding is a finding about a load balancer that is only told.
func balancerFinding(kind Kind, lb *cloud.LoadBalancer, claim cloud.Claim, object string) *Finding {
	f := &Finding{
		Kind: kind, LoadBalancerID: lb.ID, Title: lb.Name, Claim: claim, Zone: lb.Zone, State: string(lb.State), Object: object,
	}
	if !lb.Created.IsZero() {
		f.Created = &lb.Created
	}
	return f
}

func serviceName(service *corev1.Service) string {
	return "Service/" + service.Namespace + "/" + service.Name
}

// judgeTwins finds the load balancers that claim to be a Service's beside the one that it uses.
func (e *look) judgeTwins() {
	byService := map[*corev1.Service][]*cloud.LoadBalancer{}
	for i := range e.balancers {
		lb := &e.balancers[i]
		trace, made := e.config.Cluster.TraceOf(lb)
		if !made || e.ignored(trace) || lb.State.Deleting() {
			continue
		}
		if service := e.knows(trace); service != nil {
			byService[service] = append(byService[service], lb)
		}
	}
	for service, all := range byService {
		used := slices.IndexFunc(all, func(lb *cloud.LoadBalancer) bool { return lb.ID == service.Annotations[loadbalancer.AnnotationID] })
		if used < 0 || len(all) < 2 {
			continue // its controller has not chosen yet
		}
		for i, lb := range all {
			if i != used {
				trace, _ := e.config.Cluster.TraceOf(lb)
				e.report.Findings = append(e.report.Findings, balancerFinding(TwinBalancer, lb, trace.Claim, serviceName(service)))
			}
		}
	}
}

// judgeServices finds the Services whose load balancer is gone.
func (e *look) judgeServices(ctx context.Context) error {
	for i := range e.services {
		service := &e.services[i]
		id := strings.ToLower(service.Annotations[loadbalancer.AnnotationID])
		there := slices.ContainsFunc(e.balancers, func(lb cloud.LoadBalancer) bool { return lb.ID == id })
		if id == "" || there || service.Spec.Type != corev1.ServiceTypeLoadBalancer || service.DeletionTimestamp != nil {
			continue
		}
		lost, err := e.isLost(ctx, service, id)
		if err != nil {
			return err
		}
		if lost {
			e.report.Findings = append(e.report.Findings, &Finding{Kind: LostBalancer, LoadBalancerID: id, Object: serviceName(service)})
		}
	}
	return nil
}

// isLost looks at both sides again.
func (e *look) isLost(ctx context.Context, service *corev1.Service, id string) (bool, error) {
	_, err := e.config.Cloud.LoadBalancer(ctx, id)
	if err == nil || !isGone(err) {
		return false, err
	}
	now, err := e.config.Kubernetes.CoreV1().Services(service.Namespace).Get(ctx, service.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, unreadable("services", err)
	}
	return now.UID == service.UID && now.DeletionTimestamp == nil && strings.EqualFold(now.Annotations[loadbalancer.AnnotationID], id), nil
}
