package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// FollowSecrets uploads certificates again whenever their Secrets change, until ctx ends. Secrets are not watched before the
// first Service names one, and of what is watched only names are kept.
func (l *LoadBalancers) FollowSecrets(ctx context.Context, services corelisters.ServiceLister, nodes corelisters.NodeLister) {
	select {
	case <-l.secretUse.begun:
	case <-ctx.Done():
		return
	}
	factory := informers.NewSharedInformerFactoryWithOptions(l.client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("type", string(v1.SecretTypeTLS)).String()
		}),
		informers.WithTransform(withoutContent))
	follower{
		factory: factory, informer: factory.Core().V1().Secrets().Informer(), on: onSecrets,
		do:     func(ctx context.Context, name cache.ObjectName) error { return l.renewAll(ctx, name, services, nodes) },
		failed: "The certificate of a Secret that changed is not uploaded yet everywhere",
	}.run(ctx)
}

// onSecrets queues Secrets that are there, or have changed.
func onSecrets(queue nameQueue) cache.ResourceEventHandler {
	changed := func(object any) {
		if name, err := cache.ObjectToName(object); err == nil {
			queue.Add(name)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: changed,
		UpdateFunc: func(before, after any) {
			if before.(*v1.Secret).ResourceVersion != after.(*v1.Secret).ResourceVersion {
				changed(after)
			}
		},
	}
}

// withoutContent leaves of a Secret what tells that it has changed.
func withoutContent(object any) (any, error) {
	if full, ok := object.(*v1.Secret); ok {
		return &v1.Secret{ObjectMeta: metav1.ObjectMeta{
			Namespace: full.Namespace, Name: full.Name, ResourceVersion: full.ResourceVersion,
		}}, nil
	}
	return object, nil
}

// renewAll brings the load balancers up to date whose Services name the Secret that changed.
func (l *LoadBalancers) renewAll(
	ctx context.Context, secret cache.ObjectName, services corelisters.ServiceLister, nodes corelisters.NodeLister,
) error {
	all, err := services.Services(secret.Namespace).List(labels.Everything())
	if err != nil {
		return err
	}
	var failed []error
	for _, service := range all {
		if service.Spec.Type != v1.ServiceTypeLoadBalancer || service.DeletionTimestamp != nil || !l.secretUse.by(service, secret.Name) {
			continue
		}
		if err := l.renew(ctx, service, nodes); err != nil {
			failed = append(failed, fmt.Errorf("service %s: %w", klog.KObj(service), err))
		}
	}
	return errors.Join(failed...)
}

// secretUse remembers which Secrets the Services that this program looks after name. A Service of another controller is not
// there.
type secretUse struct {
	mu    sync.Mutex
	bySvc map[types.UID]map[string]bool
	begun chan struct{} // closed when the first Service has named a Secret
	once  sync.Once
}

func (u *secretUse) set(service *v1.Service, asked *settings.Settings) {
	names := map[string]bool{}
	for _, port := range asked.EveryPort() {
		for _, certificate := range port.Certificates {
			if certificate.Secret != "" {
				names[certificate.Secret] = true
			}
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(names) == 0 {
		delete(u.bySvc, service.UID)
		return
	}
	if u.bySvc == nil {
		u.bySvc = map[types.UID]map[string]bool{}
	}
	u.bySvc[service.UID] = names
	u.once.Do(func() { close(u.begun) })
}

func (u *secretUse) by(service *v1.Service, name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bySvc[service.UID][name]
}

// renew brings everything of a Service's load balancer up to date but its members. A Service that has none, or whose certificates
// are the current ones, is left alone.
func (l *LoadBalancers) renew(ctx context.Context, service *v1.Service, nodes corelisters.NodeLister) (err error) {
	defer recoverTo(&err, service)
	ctx, done, err := l.begin(ctx, service.Namespace, service.UID)
	if err != nil {
		return err
	}
	defer done()
	identity := l.identity(l.lastClusterName(), service)
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
	if w.secrets, err = l.readSecrets(ctx, service, asked); err != nil {
		return l.refuseSecret(ctx, identity, service, asked, err)
	}
	if err := w.readPods(ctx); err != nil {
		return err
	}
	if w.pods != nil {
		l.membership.forget(service) // Pods come and go here, too
	}
	err = w.change(ctx, lb)
	if isOnItsWay(err) {
		return nil
	}
	return err
}
