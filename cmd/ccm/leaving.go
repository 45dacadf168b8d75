package main

import (
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	cloudprovider "k8s.io/cloud-provider"
	servicecontroller "k8s.io/cloud-provider/controllers/service"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/fairness"
)

// The service controller of k8s.io/cloud-provider leaves nodes out that the cluster autoscaler is about to remove, but does not look
// when one is marked so: it counts on health checks of kube-proxy's port 10256, which answer 503 then. Ours ask the node port, so
// that they work with any proxy, and would let such a node have new connections until its machine is gone. So the controller is
// told of the mark as if it were the label that leaves a node out, which it does heed at once.

// newServiceController makes the service controller, with an eye on nodes that are about to go.
func newServiceController(
	cloud cloudprovider.Interface, client kubernetes.Interface, services coreinformers.ServiceInformer, nodes coreinformers.NodeInformer,
	clusterName string,
) (*fairness.Controller, error) {
	return fairness.New(cloud, client, services, watchfulNodes{nodes}, clusterName, utilfeature.DefaultFeatureGate)
}

type watchfulNodes struct{ coreinformers.NodeInformer }

func (n watchfulNodes) Informer() cache.SharedIndexInformer {
	return watchfulInformer{n.NodeInformer.Informer()}
}

type watchfulInformer struct{ cache.SharedIndexInformer }

func (i watchfulInformer) AddEventHandlerWithResyncPeriod(
	handler cache.ResourceEventHandler, period time.Duration,
) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(watchfulHandler{handler}, period)
}

type watchfulHandler struct{ cache.ResourceEventHandler }

func (h watchfulHandler) OnUpdate(before, now any) {
	h.ResourceEventHandler.OnUpdate(leftOut(before), leftOut(now))
}

// leftOut is the node, with the label that leaves it out if it is about to go.
func leftOut(object any) any {
	node, ok := object.(*v1.Node)
	if !ok || !slices.ContainsFunc(node.Spec.Taints, func(t v1.Taint) bool { return t.Key == servicecontroller.ToBeDeletedTaint }) {
		return object
	}
	labelled := *node // what it shares with the cache is not changed
	labelled.Labels = maps.Clone(node.Labels)
	if labelled.Labels == nil {
		labelled.Labels = map[string]string{}
	}
	labelled.Labels[v1.LabelNodeExcludeBalancers] = "true"
	return &labelled
}
