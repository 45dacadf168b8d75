package main

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	servicehelpers "k8s.io/cloud-provider/service/helpers"
)

// classView shows the service controller the Services of a class as if they had no class, and every other Service as one of another class.
//
// It works on copies, each time that a Service is read. The informer keeps the Services as the API server has them. A transform
// of the informer would not do: client-go may apply it to its own result, when a watch begins with the list, and a Service of
// the class would then look like one of another, whose load balancer has to go.
type classView struct {
	coreinformers.ServiceInformer
	class string
}

func (v classView) Informer() cache.SharedIndexInformer {
	return classInformer{v.ServiceInformer.Informer(), v.class}
}

func (v classView) Lister() corelisters.ServiceLister {
	return classLister{v.ServiceInformer.Lister(), v.class}
}

type classInformer struct {
	cache.SharedIndexInformer
	class string
}

func (i classInformer) AddEventHandlerWithResyncPeriod(
	handler cache.ResourceEventHandler, period time.Duration,
) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(classHandler{handler, i.class}, period)
}

type classHandler struct {
	cache.ResourceEventHandler
	class string
}

func (h classHandler) OnAdd(object any, initial bool) {
	h.ResourceEventHandler.OnAdd(shownObject(object, h.class), initial)
}

func (h classHandler) OnUpdate(before, now any) {
	h.ResourceEventHandler.OnUpdate(shownObject(before, h.class), shownObject(now, h.class))
}

type classLister struct {
	corelisters.ServiceLister
	class string
}

func (l classLister) List(selector labels.Selector) ([]*v1.Service, error) {
	all, err := l.ServiceLister.List(selector)
	return shownAll(all, l.class), err
}

func (l classLister) Services(namespace string) corelisters.ServiceNamespaceLister {
	return classNamespaceLister{l.ServiceLister.Services(namespace), l.class}
}

type classNamespaceLister struct {
	corelisters.ServiceNamespaceLister
	class string
}

func (l classNamespaceLister) List(selector labels.Selector) ([]*v1.Service, error) {
	all, err := l.ServiceNamespaceLister.List(selector)
	return shownAll(all, l.class), err
}

func (l classNamespaceLister) Get(name string) (*v1.Service, error) {
	service, err := l.ServiceNamespaceLister.Get(name)
	if err != nil {
		return nil, err
	}
	return shown(service, l.class), nil
}

func shownObject(object any, class string) any {
	if service, ok := object.(*v1.Service); ok {
		return shown(service, class)
	}
	return object
}

func shownAll(all []*v1.Service, class string) []*v1.Service {
	views := make([]*v1.Service, len(all))
	for i, service := range all {
		views[i] = shown(service, class)
	}
	return views
}

// shown is a copy of a Service: one of the class has no class there, and the finalizer that the service controller knows.
func shown(service *v1.Service, class string) *v1.Service {
	view := *service // what it shares with the original is not changed
	held := slices.Contains(service.Finalizers, classFinalizer)
	view.Finalizers = without(service.Finalizers, servicehelpers.LoadBalancerCleanupFinalizer)
	if given := service.Spec.LoadBalancerClass; (given == nil || *given != class) && !held {
		view.Spec.LoadBalancerClass = new("another")
		return &view
	}
	view.Spec.LoadBalancerClass = nil // a Service that was of the class, and is held, has to be let go
	if held {
		view.Finalizers = append(without(view.Finalizers, classFinalizer), servicehelpers.LoadBalancerCleanupFinalizer)
	}
	return &view
}
