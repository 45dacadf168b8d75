package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod CIDRs become static routes on the router of the nodes' network: made, mended when somebody takes them away, removed with
// their Node; another owner's route stays. What the ccm may do in Kubernetes suffices for it.
func TestPodCIDRsAreRouted(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.args = append(c.args, "--configure-cloud-routes=true", "--cluster-cidr=10.244.0.0/16",
		"--controllers=*,-service-lb-controller", "--route-reconciliation-period=1s")
	prefixes := map[string]string{"routed-1": "10.244.1.0/24", "routed-2": "10.244.2.0/24"}
	for name := range prefixes {
		c.CreateServer(t, name, zone)
	}
	router := c.router()
	c.ccm = c.start()
	for name, prefix := range prefixes {
		node := c.newNode(name)
		node.Spec.PodCIDR, node.Spec.PodCIDRs = prefix, []string{prefix}
		c.register(node)
	}
	c.initialized("routed-1", "routed-2")
	complete := func() string {
		have := c.routes(router)
		for name, prefix := range prefixes {
			node := c.node(name)
			if !slices.Contains(addresses(node, v1.NodeInternalIP), have[prefix]) {
				return fmt.Sprintf("%s leads to %q", prefix, have[prefix])
			}
			available := func(condition v1.NodeCondition) bool {
				return condition.Type == v1.NodeNetworkUnavailable && condition.Status == v1.ConditionFalse
			}
			if !slices.ContainsFunc(node.Status.Conditions, available) {
				return "the network of " + name + " is not available"
			}
		}
		if len(have) != len(prefixes)+1 || have["192.168.7.0/24"] != "172.16.9.9" {
			return fmt.Sprint("all: ", have)
		}
		return ""
	}
	c.eventually("the nodes have their routes", complete)
	c.Do(t, http.MethodPatch, "/router/"+router, `{"router":{"static_routes":[`+office+`]}}`, nil)
	c.eventually("the nodes have them again", complete)
	if err := client.CoreV1().Nodes().Delete(t.Context(), "routed-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually("the route goes with its Node", func() string {
		have := c.routes(router)
		if have["10.244.1.0/24"] != "" || have["10.244.2.0/24"] == "" || have["192.168.7.0/24"] == "" {
			return fmt.Sprint(have)
		}
		return ""
	})
}

// A router with no room left: the Node's network stays unavailable, and an event tells why.
func TestRouterThatIsFull(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.args = append(c.args, "--configure-cloud-routes=true", "--cluster-cidr=10.245.0.0/16",
		"--controllers=*,-service-lb-controller", "--route-reconciliation-period=1s")
	c.CreateServer(t, "routeless", zone)
	router := c.router()
	full := []string{office}
	for i := range 49 {
		full = append(full, fmt.Sprintf(`{"name":"office-%d","route":"192.168.%d.0/24","nexthop":"172.16.9.9"}`, i, 100+i))
	}
	c.Do(t, http.MethodPatch, "/router/"+router, `{"router":{"static_routes":[`+strings.Join(full, ",")+`]}}`, nil)
	c.ccm = c.start()
	node := c.newNode("routeless")
	node.Spec.PodCIDR, node.Spec.PodCIDRs = "10.245.1.0/24", []string{"10.245.1.0/24"}
	c.register(node)
	c.eventually("an event tells of the limit", func() string {
		events, err := client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.name=routeless,reason=RouteLimitReached"})
		if err != nil {
			t.Fatal(err)
		}
		if len(events.Items) == 0 {
			return "there is none"
		}
		return ""
	})
	if have := c.routes(router); len(have) != len(full) {
		t.Errorf("%d routes, want the %d of others", len(have), len(full))
	}
}

const office = `{"name":"office","route":"192.168.7.0/24","nexthop":"172.16.9.9"}`

// router makes the router of the test's private network, with another owner's route on it.
func (c *cluster) router() string {
	c.t.Helper()
	var made struct{ Router struct{ UUID string } }
	c.Do(c.t, http.MethodPost, "/router", `{"router":{"name":"r","static_routes":[`+office+`]}}`, &made)
	var list struct {
		Networks struct{ Network []struct{ UUID, Type string } }
	}
	c.Do(c.t, http.MethodGet, "/network?zone="+zone, "", &list)
	for _, network := range list.Networks.Network {
		if network.Type == "private" {
			c.Do(c.t, http.MethodPut, "/network/"+network.UUID, fmt.Sprintf(`{"network":{"router":%q}}`, made.Router.UUID), nil)
		}
	}
	return made.Router.UUID
}

// routes are the router's next hops by prefix.
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
