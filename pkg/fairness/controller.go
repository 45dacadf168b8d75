package fairness

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"
	servicecontroller "k8s.io/cloud-provider/controllers/service"
	"k8s.io/component-base/featuregate"
	controllersmetrics "k8s.io/component-base/metrics/prometheus/controllers"
)

// Controller is the service controller of k8s.io/cloud-provider, whose workers are shared out between namespaces.
//
// The library's workers read a Service before they do anything else. That is where they are told that it is not its turn: with an
// api.RetryError, on which they come back later, free for other Services meanwhile, without an event or a longer and longer pause.
type Controller struct {
	inner     *servicecontroller.Controller
	client    kubernetes.Interface
	balancers cloudprovider.LoadBalancer
	services  corelisters.ServiceLister
	turns     *Turns
	pace      *pace
	nodes     *nodeChanges
	handler   cache.ResourceEventHandler // the library's, which queues Services
}

// New returns the service controller with its work shared out. The parameters are those of the library's constructor.
func New(
	cloud cloudprovider.Interface, client kubernetes.Interface, services coreinformers.ServiceInformer, nodes coreinformers.NodeInformer,
	clusterName string, gate featuregate.FeatureGate,
) (*Controller, error) {
	balancers, ok := cloud.LoadBalancer()
	if !ok {
		return nil, fmt.Errorf("cloud provider %s has no load balancers", cloud.ProviderName())
	}
	c := &Controller{
		client: withoutContinuing{client}, balancers: balancers, services: services.Lister(),
		turns: NewTurns(1), pace: &pace{now: time.Now},
	}
	c.nodes = newNodeChanges(c)
	var err error
	c.inner, err = servicecontroller.New(sharedCloud{cloud, c}, c.client, sharedServices{services, c}, nodes, clusterName, gate)
	return c, err
}

// Run works on Services until ctx ends. It is called once.
func (c *Controller) Run(ctx context.Context, workers int, metrics *controllersmetrics.ControllerManagerMetrics) {
	c.turns.setWorkers(workers)
	ended := c.nodes.start(ctx, workers)
	defer ended()
	c.inner.Run(ctx, workers, metrics)
}

// enqueue has the library come to a Service as if it had just appeared.
func (c *Controller) enqueue(service *v1.Service) { c.handler.OnAdd(service, false) }

func keyOf(service *v1.Service) string { return service.Namespace + "/" + service.Name }

// sharedServices are the Services as the library sees them.
type sharedServices struct {
	coreinformers.ServiceInformer
	controller *Controller
}

func (s sharedServices) Informer() cache.SharedIndexInformer {
	return sharedInformer{s.ServiceInformer.Informer(), s.controller}
}

func (s sharedServices) Lister() corelisters.ServiceLister {
	return sharedLister{s.ServiceInformer.Lister(), s.controller}
}

type sharedInformer struct {
	cache.SharedIndexInformer
	controller *Controller
}

func (i sharedInformer) AddEventHandlerWithResyncPeriod(
	handler cache.ResourceEventHandler, period time.Duration,
) (cache.ResourceEventHandlerRegistration, error) {
	i.controller.handler = handler
	return i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(handler, period)
}

type sharedLister struct {
	corelisters.ServiceLister
	controller *Controller
}

func (l sharedLister) Services(namespace string) corelisters.ServiceNamespaceLister {
	return sharedNamespaceLister{l.ServiceLister.Services(namespace), namespace, l.controller}
}

type sharedNamespaceLister struct {
	corelisters.ServiceNamespaceLister
	namespace  string
	controller *Controller
}

// Get reads a Service that the library is about to work on; or says that it is not its turn.
func (l sharedNamespaceLister) Get(name string) (*v1.Service, error) {
	service, err := l.ServiceNamespaceLister.Get(name)
	if err != nil {
		return nil, err
	}
	if again, ok := l.controller.turns.Take(l.namespace, name); !ok {
		return nil, api.NewRetryError(fmt.Sprintf("namespace %s has its share of the workers at work; the Service's turn comes soon", l.namespace), again)
	}
	if wait, ok := l.controller.pace.take(keyOf(service)); !ok {
		l.controller.turns.End(l.namespace, name)
		return nil, api.NewRetryError("the Service has changed often; it is worked on again after a pause", wait)
	}
	return service, nil
}

// sharedCloud is the cloud as the library sees it.
type sharedCloud struct {
	cloudprovider.Interface
	controller *Controller
}

func (c sharedCloud) LoadBalancer() (cloudprovider.LoadBalancer, bool) {
	return sharedBalancers{c.controller.balancers, c.controller}, true
}

// sharedBalancers tell when work on a Service begins and ends.
type sharedBalancers struct {
	cloudprovider.LoadBalancer
	controller *Controller
}

// GetLoadBalancer is what the library asks before it deletes a load balancer.
func (b sharedBalancers) GetLoadBalancer(
	ctx context.Context, clusterName string, service *v1.Service,
) (*v1.LoadBalancerStatus, bool, error) {
	b.controller.turns.Begin(service.Namespace, service.Name)
	status, exists, err := b.LoadBalancer.GetLoadBalancer(ctx, clusterName, service)
	if err == nil && exists {
		b.controller.turns.Pause(service.Namespace, service.Name)
	} else {
		b.controller.turns.End(service.Namespace, service.Name)
	}
	return status, exists, err
}

func (b sharedBalancers) EnsureLoadBalancer(
	ctx context.Context, clusterName string, service *v1.Service, nodes []*v1.Node,
) (*v1.LoadBalancerStatus, error) {
	b.controller.turns.Begin(service.Namespace, service.Name)
	defer b.controller.turns.End(service.Namespace, service.Name)
	return b.LoadBalancer.EnsureLoadBalancer(ctx, clusterName, service, nodes)
}

// EnsureLoadBalancerDeleted goes on soon where its work was interrupted for others: the library pauses longer and longer before it
// tries a deletion again, whatever the error.
func (b sharedBalancers) EnsureLoadBalancerDeleted(ctx context.Context, clusterName string, service *v1.Service) error {
	b.controller.turns.Begin(service.Namespace, service.Name)
	defer b.controller.turns.End(service.Namespace, service.Name)
	err := b.LoadBalancer.EnsureLoadBalancerDeleted(ctx, clusterName, service)
	if pause, ok := IsContinues(err); ok {
		time.AfterFunc(pause, func() { b.controller.enqueue(service) })
	}
	return err
}

// UpdateLoadBalancer leaves the change of nodes to nodeChanges. The answer makes the library take it as done by somebody else.
func (b sharedBalancers) UpdateLoadBalancer(_ context.Context, clusterName string, service *v1.Service, nodes []*v1.Node) error {
	b.controller.nodes.add(clusterName, service, nodes)
	return cloudprovider.ImplementedElsewhere
}
