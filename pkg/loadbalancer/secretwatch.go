package loadbalancer

import (
	"context"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/fairness"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

const (
	// secretPause is the time between two looks at a Secret, give or take a fifth, so that looks spread out.
	secretPause = 30 * time.Second
	// secretRate is how many Secrets are looked at a second, at most. With more than secretRate in each second of secretPause, looks at
	// each get rarer.
	secretRate = 20
)

// FollowSecrets uploads certificates again whenever their Secrets change, until ctx ends. It looks at those Secrets that Services name,
// each one by its name: the right to get Secrets suffices, where Services with certificates are. A Secret that many Services name is
// looked at once for all of them.
func (l *LoadBalancers) FollowSecrets(
	ctx context.Context, secrets typedv1.SecretsGetter, services corelisters.ServiceLister, nodes corelisters.NodeLister,
) {
	queue := fairness.NewQueue(namespaceOf, workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](time.Second, l.secretPause))
	rate := flowcontrol.NewTokenBucketRateLimiter(secretRate, secretRate)
	defer rate.Stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.secretUse.hand(ctx, func(name cache.ObjectName) { queue.AddAfter(name, l.untilNextLook()) })
	}()
	follower{
		do: func(ctx context.Context, name cache.ObjectName) error {
			if err := rate.Wait(ctx); err != nil {
				return nil //nolint:nilerr // ctx has ended
			}
			again, err := l.lookAt(ctx, secrets, name, services, nodes)
			if again > 0 {
				queue.AddAfter(name, again)
			}
			return err
		},
		failed: "A Secret of a certificate could not be read",
	}.work(ctx, queue)
	<-ended
}

// lookAt looks at a Secret once, and brings the load balancers of those Services up to date that have read another version of it. What
// has not read any yet is about to. It returns when to look again; zero: when a Service names the Secret again, or, with an error, soon.
func (l *LoadBalancers) lookAt(
	ctx context.Context, secrets typedv1.SecretsGetter, name cache.ObjectName, services corelisters.ServiceLister, nodes corelisters.NodeLister,
) (time.Duration, error) {
	users := l.secretUse.users(name, services)
	if len(users) == 0 {
		return 0, nil
	}
	// Any version that the API server has in memory will do: that costs its database nothing.
	found, err := secrets.Secrets(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{ResourceVersion: "0"})
	version, err := secretVersion(found, err)
	if err != nil {
		return 0, err
	}
	pause := l.untilNextLook()
	for _, service := range users {
		if service.Spec.Type != v1.ServiceTypeLoadBalancer || service.DeletionTimestamp != nil ||
			!l.secretUse.begin(name, service, version, l.now()) {
			continue
		}
		err := l.renew(ctx, service, nodes)
		if _, steps := fairness.IsContinues(err); err != nil && !steps {
			klog.FromContext(ctx).Error(err, "The certificate of a Secret that changed is not uploaded yet", "service", klog.KObj(service),
				"secret", name)
		}
		if retry := l.secretUse.end(name, service, version, err, l.now()); retry > 0 {
			pause = min(pause, retry)
		}
	}
	return pause, nil
}

func (l *LoadBalancers) untilNextLook() time.Duration { return wait.Jitter(l.secretPause*4/5, 0.5) }

// What Services have read of a Secret that they could not read.
const secretAbsent, secretForbidden = "absent", "forbidden"

// secretVersion says which version of a Secret the API server has answered with.
func secretVersion(found *v1.Secret, err error) (string, error) {
	switch {
	case apierrors.IsNotFound(err):
		return secretAbsent, nil
	case apierrors.IsForbidden(err):
		return secretForbidden, nil
	case err != nil:
		return "", err
	}
	return "version " + found.ResourceVersion, nil
}

// renew brings everything of a Service's load balancer up to date but its members. A Service that has none, or whose certificates
// are the current ones, is left alone.
func (l *LoadBalancers) renew(ctx context.Context, service *v1.Service, nodes corelisters.NodeLister) (err error) {
	defer recoverTo(&err, service)
	caller := ctx
	ctx, done, err := l.begin(ctx, service.Namespace, service.UID)
	if err != nil {
		return err
	}
	defer done()
	identity := l.identity(ctx, l.lastClusterName(), service)
	if asked, _ := settings.Parse(service); asked.Shared != nil {
		return l.renewSharing(ctx, identity, service, nodes)
	}
	lb, err := l.find(ctx, service, identity)
	if err != nil || lb == nil || lb.State.Deleting() {
		return err
	}
	asked, problems := settings.Parse(service)
	if l.refused(ctx, identity, service, asked, problems) { // which are told of elsewhere
		return l.renewCertificates(ctx, identity, service, asked)
	}
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: asked, componentsOnly: true}
	if w.secrets, w.awaits, err = l.readSecrets(ctx, service, asked); err != nil {
		return err
	}
	if err := w.readPods(ctx); err != nil {
		return err
	}
	if w.pods != nil {
		l.membership.forget(service) // Pods come and go here, too
	}
	if err = w.change(ctx, lb); err == nil {
		w.noteUploaded(service, w.secrets)
		w.tellAwaited(caller)
	}
	if isOnItsWay(err) {
		return nil
	}
	return err
}

// tellAwaited tells which Secrets the Service waits for now, if they are others than before.
func (w *work) tellAwaited(ctx context.Context) {
	before := w.said.last(w.service)
	others := slices.DeleteFunc(slices.Clone(before), isAboutSecret)
	remarks := slices.Concat(w.awaits, others)
	if slices.Equal(before, remarks) {
		return
	}
	w.said.say(w.service, remarks, w.warn)
	w.reportOutcome(ctx, w.service, nil)
}

// isAboutSecret says whether a remark is about a Secret that cannot be used.
func isAboutSecret(remark settings.Problem) bool {
	return remark.Reason == ReasonCertificatePending || remark.Reason == reasonInvalidSecret
}
