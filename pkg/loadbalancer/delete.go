package loadbalancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// deleteWait is how long one call waits for a load balancer to go. The service controller repeats failed deletions after
// 5, 10, 20 … 300 seconds, whatever kind of error it gets; a short wait spares quick ones that, without holding a worker
// for the minutes that UpCloud may take.
const deleteWait = 10 * time.Second

// gonePause is the first pause between two looks at whether a load balancer is gone.
const gonePause = 100 * time.Millisecond

// delete deletes what is the Service's, and returns nil when it is gone: first the load balancer, then the certificates that
// it used.
func (l *LoadBalancers) delete(ctx context.Context, identity Identity, service *v1.Service) error {
	settings, _ := ParseSettings(service) // what is wrong in them does not keep a Service from going
	if settings.Shared != nil {
		var err error
		if service, err = l.leaveShared(ctx, identity, service, settings); err != nil {
			return err
		}
	}
	return l.deleteOwn(ctx, identity, service, settings)
}

// deleteOwn deletes the load balancer that is the Service's alone, and its certificates.
func (l *LoadBalancers) deleteOwn(ctx context.Context, identity Identity, service *v1.Service, settings *Settings) error {
	waiting, cancel := context.WithTimeout(ctx, l.deleteWait)
	defer cancel()
	for {
		lb, err := l.findAfterLeaving(ctx, service, identity)
		if err != nil {
			return err
		}
		if lb == nil {
			break
		}
		if settings.Retain {
			return l.retain(ctx, identity, service, lb)
		}
		if err := l.refuseDeletion(service, settings, lb); err != nil {
			if failed := l.updateProtected(ctx, identity, service, settings, lb); failed != nil {
				err = notFollowed(err, failed)
			}
			return err
		}
		if err := l.deleteOne(ctx, waiting, identity, service, lb); err != nil {
			return err
		}
	}
	if err := deleteBundles(ctx, l.config.Cloud, bundleCleanup{serviceUID: identity.ServiceUID}); err != nil {
		return err
	}
	l.finish(ctx, service)
	return nil
}

// finish takes from the Service what told of its load balancer.
func (l *LoadBalancers) finish(ctx context.Context, service *v1.Service) {
	l.said.forget(service)
	l.membership.forget(service)
	l.sharing.forget(service.UID)
	l.tending.forget(service.UID)
	l.secretUse.set(service, &Settings{})
	if service.DeletionTimestamp == nil {
		l.annotate(ctx, service, map[string]any{AnnotationID: nil, AnnotationName: nil})
	}
}

func (l *LoadBalancers) refuseDeletion(service *v1.Service, settings *Settings, lb *cloud.LoadBalancer) error {
	if lb.State.Deleting() {
		return nil
	}
	if problems := unclearKeeping(service); len(problems) > 0 {
		l.said.say(service, problems, l.warn)
		return because(problems[0].Reason, fmt.Errorf("load balancer %s (%s) is not deleted before that is corrected or removed: %s", lb.ID,
			lb.Name, problems[0].Message))
	}
	if !settings.Protected {
		return nil
	}
	text := fmt.Sprintf("load balancer %s (%s) is protected: it is deleted when annotation %s%s is removed from the Service",
		lb.ID, lb.Name, AnnotationPrefix, protectionName)
	l.said.say(service, []Problem{{"DeletionProtected", text}}, l.warn)
	return because("DeletionProtected", errors.New(text))
}

// unclearKeeping are mistakes in the annotations that keep a load balancer from being deleted. Other ones keep no Service from going; but
// these were there to save the load balancer, and it cannot be had back.
func unclearKeeping(service *v1.Service) []Problem {
	var problems []Problem
	for _, name := range []string{retainName, protectionName} {
		value, given := service.Annotations[AnnotationPrefix+name]
		if _, err := boolean.parse(strings.TrimSpace(value)); given && err != nil {
			problems = append(problems, invalidAnnotation(name, value, "want "+boolean.allowed))
		}
	}
	return problems
}

// isKept says whether the Service's annotations keep its load balancer from being deleted.
func isKept(service *v1.Service, settings *Settings) bool {
	return settings.Protected || len(unclearKeeping(service)) > 0
}

// deleteOne deletes a load balancer and waits a little for it to go.
func (l *LoadBalancers) deleteOne(ctx, waiting context.Context, identity Identity, service *v1.Service, lb *cloud.LoadBalancer) error {
	if !lb.State.Deleting() {
		if err := l.claimOwnBundle(ctx, identity.of(lb), lb); err != nil {
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

// claimOwnBundle labels the certificate that UpCloud's own CCM made for a load balancer's own name, which carries no labels: it
// can be deleted only after the load balancer, when nothing leads to it any more.
func (l *LoadBalancers) claimOwnBundle(ctx context.Context, identity Identity, lb *cloud.LoadBalancer) error {
	name := ownBundleName(cmp.Or(identity.Generated, identity.Name))
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
			if !ours || bundle.Labels[LabelServiceUID] != "" {
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
func (l *LoadBalancers) retain(ctx context.Context, identity Identity, service *v1.Service, lb *cloud.LoadBalancer) error {
	hadPods, err := l.takePodsOff(ctx, service, lb)
	if err != nil {
		return err
	}
	bundles, err := serviceBundles(ctx, l.config.Cloud, identity.ServiceUID)
	if err != nil {
		return err
	}
	for _, bundle := range bundles {
		labels := maps.Clone(bundle.Labels)
		delete(labels, LabelServiceUID)
		if err := l.config.Cloud.ModifyCertificateBundle(ctx, bundle.ID, cloud.CertificateBundlePatch{Labels: labels}); err != nil {
			return err
		}
	}
	for _, key := range []string{LabelGeneratedName, LabelServiceUID} {
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
	l.tell(service, "RetainedLoadBalancer", "Load balancer %s (%s) stays in the account, as annotation %sretain says%s",
		lb.ID, lb.Name, AnnotationPrefix, without)
	l.finish(ctx, service)
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
