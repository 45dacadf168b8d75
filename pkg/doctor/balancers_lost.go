package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// balancer is what a finding about load balancers is about.
type balancer struct {
	trace  plan.Trace
	lb     *cloud.LoadBalancer
	bundle *cloud.CertificateBundle
}

func (b balancer) removable() bool { return b.lb != nil || b.bundle != nil }

// describe fills in what the finding says.
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

// words are the finding's for a question.
func (b balancer) words(f *Finding) string {
	text := fmt.Sprintf("load balancer %s, named %q, in %s", f.LoadBalancerID, f.Title, f.Zone)
	switch {
	case f.Kind == OrphanComponents:
		text = fmt.Sprintf("the components of %s on load balancer %s, named %q", b.trace.Words, f.LoadBalancerID, f.Title)
	case b.bundle != nil:
		text = fmt.Sprintf("certificate bundle %s, named %q", f.CertificateID, f.Title)
	}
	return text
}

// checkMismatch finds out whether this cluster's load balancers are on this account, and carry its ID.
func (e *look) checkMismatch(ctx context.Context) error {
	named, found, ids := 0, 0, map[string]bool{}
	for i := range e.balancers {
		lb := &e.balancers[i]
		trace, made := e.cluster().TraceOf(lb)
		ours := made && trace.ClusterUID == e.uid
		if service := e.named(lb.ID); service != nil {
			found++
			ours = ours || made && trace.ClusterUID == "" && trace.Of(e.cluster(), service)
		}
		if ours {
			ids[lb.Labels[settings.LabelClusterID]] = true
		}
	}
	for i := range e.services {
		if e.services[i].Annotations[settings.AnnotationID] != "" && e.services[i].DeletionTimestamp == nil {
			named++
		}
	}
	if named > 0 && found == 0 && len(ids) == 0 {
		return e.checkServers(ctx, named)
	}
	if len(ids) == 0 || ids[e.config.Cluster.ID] {
		return nil
	}
	delete(ids, "")
	carried := "no cluster ID; leave --cluster-id out"
	if len(ids) > 0 {
		carried = strings.Join(slices.Sorted(maps.Keys(ids)), " or ") + "; give --cluster-id as ccm's configuration has it"
	}
	return mismatch("no load balancer of this cluster carries the cluster ID %q: they carry %s", e.config.Cluster.ID, carried)
}

// checkServers is for a cluster none of whose load balancers is in the account: a node's server there shows that it is the right one.
func (e *look) checkServers(ctx context.Context, named int) error {
	nodes, err := e.config.Kubernetes.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return unreadable("nodes", err)
	}
	for i := range nodes.Items {
		server, err := providerid.Parse(nodes.Items[i].Spec.ProviderID)
		if err != nil {
			continue
		}
		if _, err = e.config.Cloud.Server(ctx, server); err == nil || !isGone(err) {
			return err
		}
	}
	return mismatch("none of the load balancers that this cluster's %d Services name is in this account, and none of its nodes' servers; "+
		"check that the UpCloud credentials are those of the cluster's account", named)
}

// balancerFinding is a finding about a load balancer without an action.
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
		trace, made := e.cluster().TraceOf(lb)
		if !made || e.ignored(trace) || lb.State.Deleting() {
			continue
		}
		if service := e.knows(trace); service != nil {
			byService[service] = append(byService[service], lb)
		}
	}
	for service, all := range byService {
		used := slices.IndexFunc(all, func(lb *cloud.LoadBalancer) bool { return lb.ID == service.Annotations[settings.AnnotationID] })
		if used < 0 || len(all) < 2 {
			continue // its controller has not chosen yet
		}
		for i, lb := range all {
			if i != used {
				trace, _ := e.cluster().TraceOf(lb)
				e.report.Findings = append(e.report.Findings, balancerFinding(TwinBalancer, lb, trace.Claim, serviceName(service)))
			}
		}
	}
}

// judgeServices finds the Services whose load balancer is gone.
func (e *look) judgeServices(ctx context.Context) error {
	for i := range e.services {
		service := &e.services[i]
		id := strings.ToLower(service.Annotations[settings.AnnotationID])
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
	return now.UID == service.UID && now.DeletionTimestamp == nil && strings.EqualFold(now.Annotations[settings.AnnotationID], id), nil
}
