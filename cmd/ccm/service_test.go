//go:build !race

// The service controller of k8s.io/cloud-provider 0.36 reads its cached Services in the node worker (serviceCache.allServices)
// while a service worker writes them: the race detector fails every program that runs both, ours or not.

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	servicecontroller "k8s.io/cloud-provider/controllers/service"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// allControllers are those that ccm runs by default.
func allControllers(ctx context.Context, c *cluster, shared informers.SharedInformerFactory) []func() {
	services, err := newServiceController(c.provider, c.client, shared.Core().V1().Services(), shared.Core().V1().Nodes(), "prod")
	if err != nil {
		c.t.Fatal(err)
	}
	return append(nodeControllers(ctx, c, shared), func() { services.Run(ctx, 4, managerMetrics()) })
}

func (c *cluster) service(name string) *v1.Service {
	c.t.Helper()
	service, err := c.client.CoreV1().Services("default").Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return service
}

// changeService changes a Service as a user does.
func (c *cluster) changeService(name string, change func(*v1.Service)) {
	c.t.Helper()
	service := c.service(name)
	change(service)
	if _, err := c.client.CoreV1().Services("default").Update(c.t.Context(), service, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) addService(name string, protocol v1.Protocol) {
	c.t.Helper()
	service := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-of-" + name)},
		Spec: v1.ServiceSpec{
			Type: v1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: v1.ServiceExternalTrafficPolicyCluster,
			Ports: []v1.ServicePort{{Name: "http", Protocol: protocol, Port: 80, NodePort: 30080}},
		},
	}
	if _, err := c.client.CoreV1().Services("default").Create(c.t.Context(), service, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// taint gives a node these taints and no others.
func (c *cluster) taint(name string, taints ...v1.Taint) {
	c.t.Helper()
	for {
		node := c.node(name)
		node.Spec.Taints = taints
		_, err := c.client.CoreV1().Nodes().Update(c.t.Context(), node, metav1.UpdateOptions{})
		if err == nil {
			return
		}
		if !apierrors.IsConflict(err) {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) loadBalancers() []cloud.LoadBalancer {
	c.t.Helper()
	all, err := c.provider.cloud.LoadBalancers(c.t.Context(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

func members(lb cloud.LoadBalancer) string {
	var names []string
	for _, backend := range lb.Backends {
		for _, member := range backend.Members {
			names = append(names, fmt.Sprintf("%s/%s:%d", backend.Name, member.Name, member.Port))
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// The whole life of a Service under the real controllers: nodes join, it gets a load balancer and an address, another
// node joins, one leaves, a port changes, it stops being a LoadBalancer and is one again, it is deleted.
func TestServiceUnderTheRealControllers(t *testing.T) {
	c := newCluster(t, allControllers)
	for _, name := range []string{"worker-1", "worker-2"} {
		c.CreateServer(t, name, zone)
		c.addNode(newNode(name))
	}
	c.eventually("the nodes are initialized", func() string {
		for _, name := range []string{"worker-1", "worker-2"} {
			if node := c.node(name); len(node.Spec.Taints) > 0 || len(node.Status.Addresses) < 2 {
				return name + " is not"
			}
		}
		return ""
	})

	c.addService("web", v1.ProtocolTCP)
	published := func() string {
		if len(c.service("web").Status.LoadBalancer.Ingress) == 0 {
			return "it has no address"
		}
		if !meta.IsStatusConditionTrue(c.service("web").Status.Conditions, loadbalancer.ConditionReady) {
			return fmt.Sprint("its conditions are ", c.service("web").Status.Conditions)
		}
		return ""
	}
	c.eventually("the Service is published", published)
	if got := c.service("web").Status.LoadBalancer.Ingress[0].Hostname; !strings.HasSuffix(got, ".upcloudlb.com") {
		t.Errorf("published as %q", got)
	}
	membersAre := func(want string) func() string {
		return func() string {
			all := c.loadBalancers()
			if len(all) != 1 {
				return fmt.Sprintf("there are %d load balancers", len(all))
			}
			if got := members(all[0]); got != want {
				return "they are " + got
			}
			return ""
		}
	}
	c.eventually("both nodes are members", membersAre("http/worker-1:30080 http/worker-2:30080"))

	c.CreateServer(t, "worker-3", zone)
	c.addNode(newNode("worker-3"))
	c.eventually("a third is", membersAre("http/worker-1:30080 http/worker-2:30080 http/worker-3:30080"))
	c.taint("worker-3", v1.Taint{Key: servicecontroller.ToBeDeletedTaint, Effect: v1.TaintEffectNoSchedule})
	c.eventually("it leaves when it is marked for removal", membersAre("http/worker-1:30080 http/worker-2:30080"))
	c.taint("worker-3")
	c.eventually("and is back without the mark", membersAre("http/worker-1:30080 http/worker-2:30080 http/worker-3:30080"))
	if err := c.client.CoreV1().Nodes().Delete(t.Context(), "worker-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually("the first no longer is", membersAre("http/worker-2:30080 http/worker-3:30080"))

	c.changeService("web", func(s *v1.Service) { s.Spec.Ports[0].NodePort = 30090 })
	c.eventually("the new node port is used", membersAre("http/worker-2:30090 http/worker-3:30090"))

	first := c.loadBalancers()[0].ID
	c.changeService("web", func(s *v1.Service) { s.Spec.Type = v1.ServiceTypeClusterIP })
	c.eventually("the account is empty", c.accountIsEmpty)
	c.eventually("nothing of it is left on the Service", func() string {
		service := c.service("web")
		if len(service.Finalizers)+len(service.Status.LoadBalancer.Ingress)+len(service.Annotations)+len(service.Status.Conditions) > 0 {
			return fmt.Sprint(service.Finalizers, service.Status, service.Annotations)
		}
		return ""
	})
	c.changeService("web", func(s *v1.Service) { s.Spec.Type = v1.ServiceTypeLoadBalancer })
	c.eventually("the Service is published again", published)
	if second := c.loadBalancers()[0].ID; second == first || c.service("web").Annotations[settings.AnnotationID] != second {
		t.Errorf("load balancer %s, annotations %v, before: %s", second, c.service("web").Annotations, first)
	}

	now := metav1.NewTime(time.Now())
	c.changeService("web", func(s *v1.Service) { s.DeletionTimestamp = &now })
	c.eventually("the Service may go", func() string {
		if finalizers := c.service("web").Finalizers; len(finalizers) > 0 {
			return fmt.Sprint("it is held by ", finalizers)
		}
		return c.accountIsEmpty()
	})
}

// Somebody takes away a member, then a frontend, then the whole load balancer, and nothing changes in Kubernetes.
func TestDriftUnderTheRealControllers(t *testing.T) {
	c := newClusterWith(t, flags{}, simulator.Config{}, allControllers, func(given *config) {
		given.loadBalancer.CheckInterval = 50 * time.Millisecond
	})
	c.CreateServer(t, "worker-1", zone)
	c.addNode(newNode("worker-1"))
	c.addService("web", v1.ProtocolTCP)
	whole := func() string {
		all, service := c.loadBalancers(), c.service("web")
		switch {
		case len(all) != 1:
			return fmt.Sprintf("there are %d load balancers", len(all))
		case members(all[0]) != "http/worker-1:30080" || len(all[0].Frontends) != 1:
			return fmt.Sprintf("members %s, frontends %v", members(all[0]), all[0].Frontends)
		case len(service.Status.LoadBalancer.Ingress) == 0 || all[0].Networks[0].DNSName != service.Status.LoadBalancer.Ingress[0].Hostname:
			return fmt.Sprintf("published as %v", service.Status.LoadBalancer)
		case !all[0].State.Running():
			return "it is " + string(all[0].State)
		}
		return ""
	}
	c.eventually("the Service is served", whole)
	first := c.loadBalancers()[0].ID
	path := "/load-balancer/" + first
	c.Do(t, http.MethodDelete, path+"/backends/http/members/worker-1", "", nil)
	c.eventually("it has its member again", whole)
	c.Do(t, http.MethodDelete, path+"/frontends/http", "", nil)
	c.eventually("it has its frontend again", whole)
	c.eventually("that is told", func() string {
		events, err := c.client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range events.Items {
			if event.Reason == "MendedLoadBalancer" && strings.Contains(event.Message, "create frontend http :80") {
				return ""
			}
		}
		return fmt.Sprintf("%d events, none of them the one", len(events.Items))
	})
	c.Do(t, http.MethodDelete, path, "", nil)
	c.eventually("there is another, and it is published", func() string {
		if all := c.loadBalancers(); len(all) == 1 && all[0].ID == first {
			return "the first is there still"
		}
		return whole()
	})
}

func (c *cluster) accountIsEmpty() string {
	if all := c.loadBalancers(); len(all) > 0 {
		return fmt.Sprintf("it has %d load balancers", len(all))
	}
	return ""
}

func TestUDPServiceIsToldWhy(t *testing.T) {
	c := newCluster(t, allControllers)
	c.addService("dns", v1.ProtocolUDP)
	c.eventually("there is an event", func() string {
		events, err := c.client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range events.Items {
			if event.Type == v1.EventTypeWarning && event.Reason == "UnsupportedProtocol" && strings.Contains(event.Message, "80/UDP (http)") {
				return ""
			}
		}
		return fmt.Sprintf("%d events, none of them the one", len(events.Items))
	})
	if all := c.loadBalancers(); len(all) > 0 {
		t.Errorf("load balancers: %+v", all)
	}
	now := metav1.NewTime(time.Now())
	c.changeService("dns", func(s *v1.Service) { s.DeletionTimestamp = &now })
	c.eventually("the Service may go", func() string {
		if finalizers := c.service("dns").Finalizers; len(finalizers) > 0 {
			return fmt.Sprint("it is held by ", finalizers)
		}
		return ""
	})
}
