package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// routing starts a ccm that keeps routes, on nodes with these names and Pod CIDRs. The condition that it waits for may be of another test's
// ccm, which makes no route for these nodes.
func (c *cluster) routing(network string, podCIDRs map[string]string) {
	c.t.Helper()
	c.args = append(c.args, "--configure-cloud-routes=true", "--cluster-cidr="+network, "--route-reconciliation-period=1s")
	c.ccm = c.start()
	for name, cidr := range podCIDRs {
		node := c.newNode(name)
		node.Spec.PodCIDR, node.Spec.PodCIDRs = cidr, []string{cidr}
		c.register(node)
	}
	for name := range podCIDRs {
		c.eventually(name+" has its routes", func() string {
			if !networkAvailable(c.node(name)) {
				return "its network is not available"
			}
			return ""
		})
	}
}

// privateNetwork is the network that the test's servers are on.
func (c *cluster) privateNetwork() string {
	c.t.Helper()
	var list struct {
		Networks struct{ Network []struct{ UUID, Type string } }
	}
	c.Do(c.t, http.MethodGet, "/network?zone="+zone, "", &list)
	i := slices.IndexFunc(list.Networks.Network, func(n struct{ UUID, Type string }) bool { return n.Type == "private" })
	if i < 0 {
		c.t.Fatal("there is no private network")
	}
	return list.Networks.Network[i].UUID
}

// Terraform replaces the router, and removes the routes at an apply: the nodes have their routes again within passes, on the new
// router and not on the old one, and an event says what happened.
func TestRouterIsReplacedOutsideKubernetes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	podCIDRs := map[string]string{"moved-1": "10.248.1.0/24", "moved-2": "10.248.2.0/24"}
	for name := range podCIDRs {
		c.CreateServer(t, name, zone)
	}
	former := c.router()
	c.routing("10.248.0.0/16", podCIDRs)
	var good map[string]string
	c.eventually("the routes are there", func() string {
		if good = c.routes(former); len(good) != len(podCIDRs)+1 {
			return fmt.Sprint(good)
		}
		return ""
	})

	current := c.router() // attaches the network to another one
	complete := func() string {
		if have := c.routes(current); fmt.Sprint(have) != fmt.Sprint(good) {
			return fmt.Sprint(have)
		}
		return ""
	}
	c.eventually("the routes are on the new router", complete)
	c.eventually("the old one has the other owner's route alone", func() string {
		if have := c.rawRoutes(former); len(have) != 1 || !strings.Contains(have[0], "office") {
			return fmt.Sprint(have)
		}
		return ""
	})
	c.eventuallyEvent("moved-1", "RouteRestored", "from router "+former+" to router "+current)

	c.Do(t, http.MethodPatch, "/router/"+current, `{"router":{"static_routes":[`+office+`]}}`, nil)
	c.eventually("the routes are there again", complete)

	c.Do(t, http.MethodPut, "/network/"+c.privateNetwork(), `{"network":{"router":null}}`, nil)
	c.eventuallyEvent("moved-1", "NoRouter", c.privateNetwork())
	c.eventually("the network of the nodes is unavailable", func() string {
		if networkAvailable(c.node("moved-2")) {
			return "it is not"
		}
		return ""
	})
}

// Terraform detaches a network from the router that the CCM made, as its resource names none.
func TestRouterThatTheCCMMadeIsDetached(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.config = "  createRouter: true\n"
	c.CreateServer(t, "detached", zone)
	c.routing("10.249.0.0/16", map[string]string{"detached": "10.249.1.0/24"})
	network := c.privateNetwork()
	router := func() string {
		var answer struct{ Network struct{ Router string } }
		c.Do(t, http.MethodGet, "/network/"+network, "", &answer)
		return answer.Network.Router
	}
	var made string
	c.eventually("the network is on a router, which has the route", func() string {
		if made = router(); made == "" || len(c.routes(made)) == 0 {
			return "it is not"
		}
		return ""
	})
	c.Do(t, http.MethodPut, "/network/"+network, `{"network":{"router":null}}`, nil)
	c.eventually("the network is on its router again", func() string {
		if now := router(); now != made {
			return fmt.Sprintf("it is on %q", now)
		}
		return ""
	})
	c.eventuallyEvent("detached", "RouterAttached", "ignore_changes = [router]")
}

// Whoever may register a Node chooses its Pod CIDR: outside of the Pod network it gets no route.
func TestPodCIDROutsideThePodNetwork(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, name := range []string{"cidr-good", "cidr-evil"} {
		c.CreateServer(t, name, zone)
	}
	router := c.router()
	c.routing("10.250.0.0/16", map[string]string{"cidr-good": "10.250.1.0/24"})
	node := c.newNode("cidr-evil")
	node.Spec.PodCIDR, node.Spec.PodCIDRs = "0.0.0.0/0", []string{"0.0.0.0/0"}
	c.register(node)
	c.eventuallyEvent("cidr-evil", "InvalidPodCIDR", "outside --cluster-cidr (10.250.0.0/16)")
	c.eventually("its network is unavailable", func() string {
		if !slices.ContainsFunc(c.node("cidr-evil").Status.Conditions, func(condition v1.NodeCondition) bool {
			return condition.Type == v1.NodeNetworkUnavailable && condition.Status == v1.ConditionTrue
		}) {
			return "it is not"
		}
		return ""
	})
	c.eventually("the other Node has its route", func() string {
		have := c.routes(router)
		if have["0.0.0.0/0"] != "" {
			t.Fatalf("routes %v", have)
		}
		if have["10.250.1.0/24"] == "" {
			return fmt.Sprint(have)
		}
		return ""
	})
}
