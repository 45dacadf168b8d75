package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// reasonAdoptionDenied is the reason of events about load balancers that a Service may not take as its own.
const reasonAdoptionDenied = "AdoptionDenied"

// adopt makes the load balancer that annotation adopt names the Service's own, and returns it. It returns nil if none is named, and if the
// one that the Service had adopted before is gone.
func (w *work) adopt(ctx context.Context) (*cloud.LoadBalancer, error) {
	id := w.settings.Adopt
	if id == "" {
		return nil, nil
	}
	// Two Services may name one: the second finds the first one's label.
	unlock, err := w.locks.lock(ctx, "adopt "+id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	lb, err := w.config.Cloud.LoadBalancer(ctx, id)
	if errors.Is(err, cloud.ErrNotFound) {
		if strings.EqualFold(w.service.Annotations[settings.AnnotationID], id) {
			return nil, nil
		}
		return nil, w.notAdopted("NoSuchLoadBalancer", fmt.Sprintf("annotation %s%s: the account has no load balancer %s: correct it, or remove the "+
			"annotation to have one made", settings.AnnotationPrefix, settings.AdoptName, id))
	}
	if err != nil {
		return nil, err
	}
	if lb.State.Deleting() {
		return nil, api.NewRetryError(fmt.Sprintf("load balancer %s (%s), which annotation %s%s names, is being deleted", lb.ID, lb.Name,
			settings.AnnotationPrefix, settings.AdoptName), retryWhile(lb))
	}
	why, err := w.whyNotAdopt(ctx, w.identity, w.service, lb)
	if err != nil {
		return nil, err
	}
	if why != "" {
		return nil, w.notAdopted(reasonAdoptionDenied, fmt.Sprintf("annotation %s%s: load balancer %s (%s) is not taken as this Service's own: %s",
			settings.AnnotationPrefix, settings.AdoptName, lb.ID, lb.Name, why))
	}
	take := func() (*cloud.LoadBalancer, error) { return w.take(ctx, lb) }
	if w.identity.OfNamespace(lb.Labels) { // it is counted already
		return take()
	}
	return w.withRoom(ctx, take)
}

// notAdopted puts an event on the Service, and returns an error that has it looked at again: a change of the configuration, or in the
// account, tells nothing.
func (w *work) notAdopted(reason, message string) error {
	w.said.say(w.service, []settings.Problem{{Reason: reason, Message: message}}, w.warn)
	return because(reason, api.NewRetryError(message, sharedRetry))
}

// whyNotAdopt returns why a Service may not take a load balancer as its own; empty: it may.
func (l *LoadBalancers) whyNotAdopt(ctx context.Context, identity plan.Identity, service *v1.Service, lb *cloud.LoadBalancer) (string, error) {
	if group, shared := lb.Labels[settings.LabelSharedGroup]; shared {
		return fmt.Sprintf("it was made for Services to share; set annotation %s%s=%s%s to share it", settings.AnnotationPrefix, settings.SharedName,
			settings.GroupPrefix, group), nil
	}
	if len(settings.EntriesFor(l.config.Shared, lb, settings.Reference{ID: lb.ID})) > 0 {
		return fmt.Sprintf("sharedLoadBalancers of the controller's configuration has it; set annotation %s%s=%s to share it", settings.AnnotationPrefix,
			settings.SharedName, lb.ID), nil
	}
	if sharers := others(lb, identity.Key()); len(sharers) > 0 {
		return fmt.Sprintf("%s have components on it; take those off first", strings.Join(sharers, ", ")), nil
	}
	if why := identity.WhyNotAdopt(lb, l.config.Adoptable, service.Namespace, l.config.Tenants != nil); why != "" {
		return why, nil
	}
	return l.ownerHere(ctx, identity, service, lb)
}

// ownerHere says whose a load balancer is among the other Services of this cluster; empty: no one's.
func (l *LoadBalancers) ownerHere(ctx context.Context, identity plan.Identity, service *v1.Service, lb *cloud.LoadBalancer) (string, error) {
	if l.client == nil {
		return "", errors.New("there is no Kubernetes API to ask whether another Service has the load balancer")
	}
	all, err := l.client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("cannot tell whether another Service has load balancer %s (%s): %w", lb.ID, lb.Name, err)
	}
	uid := lb.Labels[settings.LabelServiceUID]
	for i := range all.Items {
		other := &all.Items[i]
		if other.UID == service.UID {
			continue
		}
		named := strings.EqualFold(other.Annotations[settings.AnnotationID], lb.ID)
		of := plan.NewIdentity(identity.ClusterID, identity.ClusterName, other).InCluster(identity.ClusterUID)
		if uid != "" && uid == string(other.UID) || of.Owns(lb) || named && of.OwnsNamed(lb) {
			return fmt.Sprintf("it is that of Service %s/%s, which is there still; delete that Service with annotation %s%s=true first",
				other.Namespace, other.Name, settings.AnnotationPrefix, settings.RetainName), nil
		}
	}
	return "", nil
}

// take writes the labels that prove a load balancer to be the Service's, and those of the certificate bundles that were made for the Service
// that had it.
func (w *work) take(ctx context.Context, lb *cloud.LoadBalancer) (*cloud.LoadBalancer, error) {
	klog.FromContext(ctx).Info("Taking a load balancer as the Service's own", "service", klog.KObj(w.service), "loadBalancer", lb.ID, "name", lb.Name,
		"labels", lb.Labels)
	if err := w.takeBundles(ctx, lb); err != nil {
		return nil, err
	}
	for _, change := range w.identity.Adopted(lb.Labels, w.service.Namespace+"/"+w.service.Name) {
		if err := doChange(ctx, change, w.config.Cloud, lb.ID); err != nil {
			return nil, fmt.Errorf("load balancer %s: %s: %w", lb.ID, change, err)
		}
	}
	w.adopted = true
	w.tell(w.service, "AdoptedLoadBalancer", "Load balancer %s (%s) is this Service's own now, as annotation %s%s says", lb.ID, lb.Name,
		settings.AnnotationPrefix, settings.AdoptName)
	return w.config.Cloud.LoadBalancer(ctx, lb.ID)
}

// takeBundles labels the certificate bundles that the load balancer's notes tell of: the Service uses others in their place, and nothing
// else would find them.
func (w *work) takeBundles(ctx context.Context, lb *cloud.LoadBalancer) error {
	noted := plan.NotesOf(lb.Labels, plan.LabelBundles)
	if len(noted) == 0 {
		return nil
	}
	all, err := w.config.Cloud.CertificateBundles(ctx, nil)
	if err != nil {
		return err
	}
	for _, bundle := range all {
		if !noted.Has(bundle.Name) || !madeWith(&bundle, lb) {
			continue
		}
		labels := maps.Clone(bundle.Labels)
		if labels == nil {
			labels = cloud.Labels{}
		}
		delete(labels, settings.LabelClusterID)
		maps.Copy(labels, bundleLabels(w.identity))
		if err := w.config.Cloud.ModifyCertificateBundle(ctx, bundle.ID, cloud.CertificateBundlePatch{Labels: labels}); err != nil {
			return err
		}
	}
	return nil
}

// madeWith says whether more than its name tells that a certificate bundle was made for the Service that had the load balancer. Notes are
// short digests of names, and users choose names: one of the same digest may be anyone's. What retain left has the labels of its cluster; what
// UpCloud's own CCM made has none, and is presented there.
func madeWith(bundle *cloud.CertificateBundle, lb *cloud.LoadBalancer) bool {
	if uid := bundle.Labels[settings.LabelServiceUID]; uid != "" {
		return uid == lb.Labels[settings.LabelServiceUID]
	}
	if bundle.Labels[settings.LabelClusterName] == "" {
		return bundle.Type == cloud.BundleDynamic && presents(lb, bundle.ID)
	}
	for _, key := range []string{settings.LabelClusterName, settings.LabelClusterID, settings.LabelClusterUID, settings.LabelNamespace} {
		if of, has := bundle.Labels[key], lb.Labels[key]; of != "" && has != "" && of != has {
			return false
		}
	}
	return true
}

// adoptionRemedy says how a Service gets a load balancer as its own.
func adoptionRemedy(id string) string {
	return fmt.Sprintf("to have it as this Service's own, set annotation %s%s: %s, for which adoptableLoadBalancers of the controller's configuration must allow it "+
		"unless it was retained for a Service of this namespace", settings.AnnotationPrefix, settings.AdoptName, id)
}

// adoptionOf says how a Service gets the load balancer of a name as its own, as far as it may know of that.
func (w *work) adoptionOf(ctx context.Context, name string) string {
	all, err := w.config.Cloud.LoadBalancers(ctx, nil)
	if err != nil {
		return adoptionRemedy("UUID")
	}
	for i := range all {
		lb := &all[i]
		if lb.Name != name {
			continue
		}
		why, err := w.whyNotAdopt(ctx, w.identity, w.service, lb)
		switch {
		case w.identity.IsGenerated(lb) && w.config.Tenants == nil: // with that annotation its labels are a proof
			return fmt.Sprintf("if UpCloud's own CCM made it for this Service, set annotation %s: %s", settings.AnnotationID, lb.ID)
		case err == nil && why == "":
			return fmt.Sprintf("to have it as this Service's own, set annotation %s%s: %s", settings.AnnotationPrefix, settings.AdoptName, lb.ID)
		case w.config.Tenants == nil: // the UUIDs of what others have are no tenant's business
			return adoptionRemedy(lb.ID)
		}
	}
	return adoptionRemedy("UUID")
}

// hasAnother tells a Service that it keeps the load balancer that it has.
func hasAnother(asked *settings.Settings, lb *cloud.LoadBalancer) []settings.Problem {
	if asked.Adopt == "" || asked.Adopt == lb.ID {
		return nil
	}
	return []settings.Problem{{Reason: reasonAdoptionDenied, Message: fmt.Sprintf("annotation %s%s: the Service has load balancer %s (%s) already, and does not take %s: "+
		"remove the annotation, or delete the Service and make it again with the annotation", settings.AnnotationPrefix, settings.AdoptName, lb.ID, lb.Name, asked.Adopt)}}
}
