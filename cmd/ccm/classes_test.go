//go:build !race

// See service_test.go: the service controller of the library does not pass the race detector.

package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	servicehelpers "k8s.io/cloud-provider/service/helpers"
)

// classAndNodeControllers are those of a cluster where somebody else serves Services without a class.
func classAndNodeControllers(ctx context.Context, c *cluster, shared informers.SharedInformerFactory) []func() {
	services, err := newClassController(c.provider, c.client, shared, defaultClass, "prod")
	if err != nil {
		c.t.Fatal(err)
	}
	return append(nodeControllers(ctx, c, shared), func() {
		services.Run(ctx, 4, managerMetrics())
	})
}

func (c *cluster) addServiceOfClass(name string, class *string, finalizers ...string) {
	c.t.Helper()
	c.addService(name, v1.ProtocolTCP)
	c.changeService(name, func(s *v1.Service) { s.Spec.LoadBalancerClass, s.Finalizers = class, finalizers })
}

// Services of our class are served, with a finalizer of their own, and all others are left alone: the one of another controller that is
// about to go, too.
func TestServicesOfOurClass(t *testing.T) {
	c := newCluster(t, classAndNodeControllers)
	c.CreateServer(t, "worker-1", zone)
	c.addNode(newNode("worker-1"))
	c.eventually("the node is initialized", func() string {
		if node := c.node("worker-1"); len(node.Spec.Taints) > 0 || len(node.Status.Addresses) < 2 {
			return "it is not"
		}
		return ""
	})
	ours, other := defaultClass, "example.com/other"
	c.addServiceOfClass("none", nil, servicehelpers.LoadBalancerCleanupFinalizer)
	c.addServiceOfClass("other", &other)
	now := metav1.NewTime(time.Now())
	c.changeService("none", func(s *v1.Service) { s.DeletionTimestamp = &now })
	service := c.service("none")
	service.ObjectMeta = metav1.ObjectMeta{Namespace: "default", Name: "ours", UID: "uid-of-ours"}
	service.Spec.LoadBalancerClass = &ours
	if _, err := c.client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually("the Service is published", func() string {
		if len(c.service("ours").Status.LoadBalancer.Ingress) == 0 {
			return "it has no address"
		}
		return ""
	})
	got := c.service("ours")
	if !slices.Equal(got.Finalizers, []string{classFinalizer}) || got.Spec.LoadBalancerClass == nil || *got.Spec.LoadBalancerClass != ours {
		t.Errorf("finalizers %v, class %v", got.Finalizers, got.Spec.LoadBalancerClass)
	}
	if all := c.loadBalancers(); len(all) != 1 || members(all[0]) != "http/worker-1:30080" {
		t.Errorf("load balancers: %+v", all)
	}

	// Becoming another type takes the class away; the finalizer says that there is something to clean up.
	c.changeService("ours", func(s *v1.Service) { s.Spec.Type, s.Spec.LoadBalancerClass = v1.ServiceTypeClusterIP, nil })
	c.eventually("nothing of it is left", func() string {
		if service := c.service("ours"); len(service.Finalizers)+len(service.Status.LoadBalancer.Ingress) > 0 {
			return fmt.Sprint(service.Finalizers, service.Status)
		}
		return c.accountIsEmpty()
	})
	c.changeService("ours", func(s *v1.Service) { s.Spec.Type, s.Spec.LoadBalancerClass = v1.ServiceTypeLoadBalancer, &ours })
	c.eventually("it is back", func() string {
		if len(c.loadBalancers()) != 1 || len(c.service("ours").Status.LoadBalancer.Ingress) == 0 {
			return "it is not"
		}
		return ""
	})
	c.changeService("ours", func(s *v1.Service) { s.DeletionTimestamp = &now })
	c.eventually("the Service may go", func() string {
		if finalizers := c.service("ours").Finalizers; len(finalizers) > 0 {
			return fmt.Sprint("it is held by ", finalizers)
		}
		return c.accountIsEmpty()
	})
	for name, want := range map[string][]string{"none": {servicehelpers.LoadBalancerCleanupFinalizer}, "other": nil} {
		if s := c.service(name); !slices.Equal(s.Finalizers, want) || len(s.Annotations)+len(s.Status.LoadBalancer.Ingress) > 0 {
			t.Errorf("%s was touched: %v %v %v", name, s.Finalizers, s.Annotations, s.Status)
		}
	}
}
