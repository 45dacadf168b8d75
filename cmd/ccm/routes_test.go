package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	cloudprovider "k8s.io/cloud-provider"
	routecontroller "k8s.io/cloud-provider/controllers/route"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/routes"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// routeControllers are the node controllers, and the route controller beside them.
func routeControllers(ctx context.Context, c *cluster, shared informers.SharedInformerFactory) []func() {
	namespace := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "uid-of-the-cluster"}}
	if _, err := c.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	_, pods, _ := net.ParseCIDR("10.244.0.0/16")
	offered, ok := c.provider.Routes()
	if !ok {
		c.t.Fatal("routes are not offered")
	}
	controller, err := routecontroller.New(offered, c.client, shared.Core().V1().Nodes(), "kubernetes", []*net.IPNet{pods})
	if err != nil {
		c.t.Fatal(err)
	}
	return append(nodeControllers(ctx, c, shared), func() { controller.Run(ctx, 100*time.Millisecond, managerMetrics()) })
}

// router joins the network that the test's servers are on, and is it once the first of them is there.
func (c *cluster) router(t *testing.T) string {
	t.Helper()
	var made struct{ Router struct{ UUID string } }
	c.Do(t, http.MethodPost, "/router", `{"router":{"name":"r","static_routes":[
		{"name":"office","route":"192.168.7.0/24","nexthop":"172.16.9.9"}]}}`, &made)
	var list struct {
		Networks struct{ Network []struct{ UUID, Type string } }
	}
	c.Do(t, http.MethodGet, "/network?zone="+zone, "", &list)
	for _, network := range list.Networks.Network {
		if network.Type == "private" {
			c.Do(t, http.MethodPut, "/network/"+network.UUID, fmt.Sprintf(`{"network":{"router":%q}}`, made.Router.UUID), nil)
		}
	}
	return made.Router.UUID
}

// routes are the router's, by prefix.
func (c *cluster) routes(router string) map[string]string {
	c.t.Helper()
	var answer struct {
		Router struct {
			Routes []struct{ Route, Nexthop string } `json:"static_routes"`
		}
	}
	c.Do(c.t, http.MethodGet, "/router/"+router, "", &answer)
	found := map[string]string{}
	for _, route := range answer.Router.Routes {
		found[route.Route] = route.Nexthop
	}
	return found
}

func (c *cluster) networkUnavailable(node string) (v1.ConditionStatus, string) {
	for _, condition := range c.node(node).Status.Conditions {
		if condition.Type == v1.NodeNetworkUnavailable {
			return condition.Status, condition.Reason
		}
	}
	return "", ""
}

func podNode(name, podCIDR string) *v1.Node {
	node := newNode(name)
	node.Spec.PodCIDR, node.Spec.PodCIDRs = podCIDR, []string{podCIDR}
	return node
}

// The whole life of routes under the real controllers: nodes join and get theirs, somebody removes and changes some, a node
// leaves.
func TestRoutesUnderTheRealControllers(t *testing.T) {
	c := newClusterWith(t, flags{routes: true}, simulator.Config{}, routeControllers)
	for _, name := range []string{"a", "b"} {
		c.CreateServer(t, name, zone)
	}
	router := c.router(t)
	c.addNode(podNode("a", "10.244.0.0/24"))
	c.addNode(podNode("b", "10.244.1.0/24"))
	complete := func() string {
		have := c.routes(router)
		for name, prefix := range map[string]string{"a": "10.244.0.0/24", "b": "10.244.1.0/24"} {
			if !slices.ContainsFunc(c.node(name).Status.Addresses, func(address v1.NodeAddress) bool {
				return address.Type == v1.NodeInternalIP && address.Address == have[prefix]
			}) {
				return fmt.Sprintf("%s leads to %q", prefix, have[prefix])
			}
			if status, reason := c.networkUnavailable(name); status != v1.ConditionFalse {
				return fmt.Sprintf("network of %s is unavailable: %s %s", name, status, reason)
			}
		}
		if have["192.168.7.0/24"] != "172.16.9.9" || len(have) != 3 {
			return fmt.Sprint("all: ", have)
		}
		return ""
	}
	c.eventually("both nodes have their routes", complete)
	const office = `{"name":"office","route":"192.168.7.0/24","nexthop":"172.16.9.9"}`
	c.Do(t, http.MethodPatch, "/router/"+router, `{"router":{"static_routes":[`+office+`]}}`, nil)
	c.eventually("they have them again", complete)
	c.Do(t, http.MethodPatch, "/router/"+router, wrongHops(c, t, router), nil)
	c.eventually("they lead right again", complete)

	if err := c.client.CoreV1().Nodes().Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually("the route of the node that left is gone", func() string {
		if have := c.routes(router); have["10.244.0.0/24"] != "" || have["10.244.1.0/24"] == "" || have["192.168.7.0/24"] == "" {
			return fmt.Sprint(have)
		}
		return ""
	})
}

// wrongHops is a request that makes every route of the cluster lead astray.
func wrongHops(c *cluster, t *testing.T, router string) string {
	t.Helper()
	var answer struct {
		Router struct {
			Routes []map[string]string `json:"static_routes"`
		} `json:"router"`
	}
	c.Do(t, http.MethodGet, "/router/"+router, "", &answer)
	for _, route := range answer.Router.Routes {
		if strings.HasPrefix(route["name"], "ccm-") {
			route["nexthop"] = "172.16.200.200"
		}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A node for which the router has no room is marked, and told why in words of its own.
func TestANodeWithoutARouteIsTold(t *testing.T) {
	c := newClusterWith(t, flags{routes: true}, simulator.Config{MaxStaticRoutes: 1}, routeControllers)
	c.CreateServer(t, "a", zone)
	router := c.router(t)
	c.addNode(podNode("a", "10.244.0.0/24"))
	c.eventually("the node's network is unavailable", func() string {
		if status, reason := c.networkUnavailable("a"); status != v1.ConditionTrue || reason != "NoRouteCreated" {
			return fmt.Sprint(status, reason)
		}
		return ""
	})
	c.eventually("there is an event", func() string {
		events, err := c.client.CoreV1().Events("").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range events.Items {
			if event.Reason == routes.ReasonLimit && event.InvolvedObject.Name == "a" && strings.Contains(event.Message, "1 static routes") {
				return ""
			}
		}
		return fmt.Sprintf("%d events, none of them the one", len(events.Items))
	})
	c.Do(t, http.MethodPatch, "/router/"+router, `{"router":{"static_routes":[]}}`, nil)
	c.eventually("the node's network is available", func() string {
		if status, reason := c.networkUnavailable("a"); status != v1.ConditionFalse {
			return fmt.Sprint(status, reason)
		}
		return ""
	})
}

// Who asks for a route's next hop asks for the Node's metadata, and must not change the Node by that.
func TestRoutesChangeNoNode(t *testing.T) {
	c := newClusterWith(t, flags{routes: true}, simulator.Config{},
		func(ctx context.Context, c *cluster, shared informers.SharedInformerFactory) []func() {
			namespace := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "uid-of-the-cluster"}}
			if _, err := c.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
				c.t.Fatal(err)
			}
			shared.Core().V1().Nodes().Informer()
			return nil
		})
	id := c.CreateServer(t, "a", zone)
	router := c.router(t)
	node := podNode("a", "10.244.0.0/24")
	node.Spec.Taints, node.Spec.ProviderID = nil, "upcloud:////"+id // and its labels are those of no server
	c.addNode(node)
	c.eventually("the node is known", func() string {
		if _, err := c.provider.routes.ListRoutes(t.Context(), "kubernetes"); err != nil {
			return err.Error()
		}
		if err := c.provider.routes.CreateRoute(t.Context(), "kubernetes", "hint", &cloudprovider.Route{
			TargetNode: "a", DestinationCIDR: "10.244.0.0/24"}); err != nil {
			return err.Error()
		}
		return ""
	})
	if c.routes(router)["10.244.0.0/24"] == "" {
		t.Error("there is no route")
	}
	for _, action := range c.client.Actions() {
		if action.GetVerb() == "patch" || action.GetVerb() == "update" {
			t.Errorf("%s %s", action.GetVerb(), action.GetResource().Resource)
		}
	}
}
