package loadbalancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// deleteWait is how long one call waits for a load balancer to go. The service controller repeats failed deletions after
// 5, 10, 20 … 300 seconds, whatever kind of error it gets; a short wait spares quick ones that, without holding a worker
// for the minutes that UpCloud may take.
const deleteWait = 10 * time.Second

// gonePause is the first pause between two looks at whether a load balancer is gone.
const gonePause = 100 * time.Millisecond

// delete deletes what is the Service's, and returns nil when it is gone: first the load balancer, then the certificates that
// it used.
func (l *LoadBalancers) delete(ctx context.Context, identity plan.Identity, service *v1.Service) error {
	service, err := l.withoutDeniedKeeping(ctx, service)
	if err != nil {
		return err
	}
	asked, _ := settings.Parse(service) // what is wrong in them does not keep a Service from going
	if asked.Shared != nil {
		if service, err = l.leaveShared(ctx, identity, service, asked); err != nil {
			return err
		}
	}
	return l.deleteOwn(ctx, identity, service, asked)
}

// vanished says whether a Service is not there any more, though nothing had asked for its end when it was seen last. That is how a Kubernetes
// looks whose etcd was set back to before the Service was made. What the Service had then stays in the account.
func (l *LoadBalancers) vanished(ctx context.Context, service *v1.Service) (bool, error) {
	if l.client == nil || service.DeletionTimestamp != nil || service.Spec.Type != v1.ServiceTypeLoadBalancer || service.Spec.LoadBalancerClass != nil {
		return false, nil
	}
	now, err := l.client.CoreV1().Services(service.Namespace).Get(ctx, service.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("cannot tell whether Service %s/%s was deleted: %w", service.Namespace, service.Name, err)
	}
	if err == nil && now.UID == service.UID {
		return false, nil
	}
	klog.FromContext(ctx).Info("A Service is gone without having been deleted: its load balancer stays in the account, where upcloud-doctor finds it",
		"service", klog.KObj(service), "serviceUID", service.UID, "loadBalancer", service.Annotations[settings.AnnotationID])
	l.forget(service)
	l.conditions.forget(service.UID)
	return true, nil
}

// deleteOwn deletes the load balancer that is the Service's alone, and its certificates.
func (l *LoadBalancers) deleteOwn(ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings) error {
	ctx = leaving(ctx)
	waiting, cancel := context.WithTimeout(ctx, l.deleteWait)
	defer cancel()
	for {
		lb, twins, err := l.toDelete(ctx, service, identity, asked)
		if err != nil {
			return err
		}
		l.tellTwins(service, twins)
		if lb == nil {
			break
		}
		if len(twins) > 0 {
			if service, err = l.noteOwn(ctx, service, lb); err != nil {
				return err
			}
		}
		if sharers := others(lb, identity.Key()); len(sharers) > 0 && !lb.State.Deleting() {
			if err := l.leaveTo(ctx, identity, service, lb, sharers); err != nil {
				return err
			}
			break
		}
		if asked.Retain {
			return l.retain(ctx, identity, service, lb)
		}
		if err := l.refuseDeletion(service, asked, lb); err != nil {
			if failed := l.updateProtected(ctx, identity, service, asked, lb); failed != nil {
				err = notFollowed(err, failed)
			}
			return err
		}
		if err := l.deleteOne(ctx, waiting, identity, service, lb); err != nil {
			return err
		}
	}
	if err := l.deleteAllBundles(ctx, service, identity); err != nil {
		return err
	}
	l.finish(ctx, service)
	return nil
}

// finish takes from the Service what told of its load balancer.
func (l *LoadBalancers) finish(ctx context.Context, service *v1.Service) {
	l.forget(service)
	l.unfinished.forget(service.UID)
	if service.DeletionTimestamp == nil {
		l.annotate(ctx, service, map[string]any{settings.AnnotationID: nil, settings.AnnotationName: nil})
	}
}

// forget drops what is remembered of a Service.
func (l *LoadBalancers) forget(service *v1.Service) {
	l.records.drop(service.UID)
	l.sharing.forget(service.UID)
	l.tending.forget(service.UID)
	l.secretUse.set(service, &settings.Settings{})
}

func (l *LoadBalancers) refuseDeletion(service *v1.Service, asked *settings.Settings, lb *cloud.LoadBalancer) error {
	if lb.State.Deleting() {
		return nil
	}
	if problems := settings.UnclearKeeping(service); len(problems) > 0 {
		l.said.say(service, problems, l.warn)
		return because(problems[0].Reason, fmt.Errorf("load balancer %s (%s) is not deleted before that is corrected or removed: %s", lb.ID,
			lb.Name, problems[0].Message))
	}
	if !asked.Protected {
		return nil
	}
	text := fmt.Sprintf("load balancer %s (%s) is protected: it is deleted when annotation %s%s is removed from the Service",
		lb.ID, lb.Name, settings.AnnotationPrefix, settings.ProtectionName)
	l.said.say(service, []settings.Problem{{Reason: "DeletionProtected", Message: text}}, l.warn)
	return because("DeletionProtected", errors.New(text))
}

// isKept says whether the Service's annotations keep its load balancer from being deleted.
func isKept(service *v1.Service, asked *settings.Settings) bool {
	return asked.Protected || len(settings.UnclearKeeping(service)) > 0
}

// deleteOne deletes a load balancer and waits a little for it to go.
func (l *LoadBalancers) deleteOne(ctx, waiting context.Context, identity plan.Identity, service *v1.Service, lb *cloud.LoadBalancer) error {
	if !lb.State.Deleting() {
		if err := l.claimOwnBundle(ctx, identity.Of(lb), lb); err != nil {
			return err
		}
		klog.FromContext(ctx).Info("Deleting a load balancer", "service", klog.KObj(service), "loadBalancer", lb.ID)
		if err := l.config.Cloud.DeleteLoadBalancer(ctx, lb.ID); err != nil {
			return err
		}
	}
	err := l.waitGone(ctx, waiting, lb.ID)
	if err == nil {
		err = pause(waiting, gonePause) // a list may still show what is gone already: do not ask without end
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("load balancer %s (%s) is being deleted, which takes UpCloud up to three minutes; the Service goes "+
		"when it is gone", lb.ID, lb.Name)
}

// losesOwnCertificate says whether changes take the certificate for the load balancer's own name off. Nothing leads to its bundle then.
func losesOwnCertificate(identity plan.Identity, changes []plan.Change) bool {
	name := plan.OwnBundleName(cmp.Or(identity.Generated, identity.Name))
	return slices.ContainsFunc(changes, func(c plan.Change) bool { return c.DeleteTLS && c.Name == name })
}

// claimOwnBundle labels the certificate that UpCloud's own CCM made for a load balancer's own name, which carries no labels: it
// can be deleted only after the load balancer, when nothing leads to it any more.
func (l *LoadBalancers) claimOwnBundle(ctx context.Context, identity plan.Identity, lb *cloud.LoadBalancer) error {
	name := plan.OwnBundleName(cmp.Or(identity.Generated, identity.Name))
	for _, frontend := range lb.Frontends {
		for _, config := range frontend.TLSConfigs {
			if config.Name != name {
				continue
			}
			bundle, err := l.config.Cloud.CertificateBundle(ctx, config.BundleID)
			if errors.Is(err, cloud.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			ours := bundle.Name == name && bundle.Type == cloud.BundleDynamic
			if !ours || bundle.Labels[settings.LabelServiceUID] != "" {
				continue
			}
			labels := cloud.Labels{}
			maps.Copy(labels, bundle.Labels)
			maps.Copy(labels, bundleLabels(identity))
			return l.config.Cloud.ModifyCertificateBundle(ctx, bundle.ID, cloud.CertificateBundlePatch{Labels: labels})
		}
	}
	return nil
}

// retain leaves the load balancer to the user: without Pods, and without the labels that make it the Service's. The one that proves it
// goes last, so that an interrupted call is taken up again.
func (l *LoadBalancers) retain(ctx context.Context, identity plan.Identity, service *v1.Service, lb *cloud.LoadBalancer) error {
	hadPods, err := l.takePodsOff(ctx, service, lb)
	if err != nil {
		return err
	}
	bundles, err := serviceBundles(ctx, l.config.Cloud, identity)
	if err != nil {
		return err
	}
	for _, bundle := range bundles {
		labels := maps.Clone(bundle.Labels)
		delete(labels, settings.LabelServiceUID)
		if err := l.config.Cloud.ModifyCertificateBundle(ctx, bundle.ID, cloud.CertificateBundlePatch{Labels: labels}); err != nil {
			return err
		}
	}
	if err := l.noteRetained(ctx, service, lb); err != nil {
		return err
	}
	for _, key := range []string{settings.LabelGeneratedName, settings.LabelServiceUID} {
		if _, there := lb.Labels[key]; !there {
			continue
		}
		if err := l.config.Cloud.DeleteLoadBalancerLabel(ctx, lb.ID, key); err != nil {
			return err
		}
	}
	klog.FromContext(ctx).Info("Left a load balancer in the account", "service", klog.KObj(service), "loadBalancer", lb.ID)
	without := ""
	if hadPods {
		without = ", without the Pods that were its members: their addresses will be other Pods'"
	}
	l.tell(service, "RetainedLoadBalancer", "Load balancer %s (%s) stays in the account, as annotation %sretain says%s; a Service of this namespace takes it as "+
		"its own with annotation %s%s: %s", lb.ID, lb.Name, settings.AnnotationPrefix, without, settings.AnnotationPrefix, settings.AdoptName, lb.ID)
	l.finish(ctx, service)
	return nil
}

// noteRetained writes down whose the load balancer was.
func (l *LoadBalancers) noteRetained(ctx context.Context, service *v1.Service, lb *cloud.LoadBalancer) error {
	owner := service.Namespace + "/" + service.Name
	switch have, there := lb.Labels[settings.LabelRetainedFor]; {
	case !there:
		return l.config.Cloud.CreateLoadBalancerLabel(ctx, lb.ID, settings.LabelRetainedFor, owner)
	case have != owner:
		return l.config.Cloud.ModifyLoadBalancerLabel(ctx, lb.ID, settings.LabelRetainedFor, owner)
	}
	return nil
}

// waitGone asks for a load balancer until the API says that there is none, less and less often. The end of waiting ends it between
// two requests; in a request it would look like a fault of the API.
func (l *LoadBalancers) waitGone(ctx, waiting context.Context, id string) error {
	interval := gonePause
	for {
		_, err := l.config.Cloud.LoadBalancer(ctx, id)
		if errors.Is(err, cloud.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := pause(waiting, interval); err != nil {
			return err
		}
		interval = min(2*interval, 2*time.Second)
	}
}

// pause waits, or returns the error of the context that ended.
func pause(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
