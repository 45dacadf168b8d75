package integration

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
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
			if !networkAvailable(node) {
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
	c.putRoutes(router, `"nexthop":"`+addresses(c.node("routed-1"), v1.NodeInternalIP)[0]+`"`, `"nexthop":"172.16.200.200"`)
	c.eventually("one that leads elsewhere leads to its node again", complete)
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

// Nodes with Pod CIDRs of both families, on private networks of both: a route each, in either order of the node's addresses; the
// one of them that is lost is made again, and both go with their Node.
func TestBothFamiliesAreRouted(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.args = append(c.args, "--configure-cloud-routes=true", "--cluster-cidr=10.246.0.0/16,fd00:10:246::/48",
		"--controllers=*,-service-lb-controller", "--route-reconciliation-period=1s")
	four, six := c.network("four", "10.21.0.0/24", "IPv4"), c.network("six", "fd00:21::/64", "IPv6")
	for name, last := range map[string]string{"dual-1": "5", "dual-2": "6"} {
		c.serverWith(name, public4, private(six, "IPv6", "fd00:21::"+last), private(four, "IPv4", "10.21.0."+last))
	}
	router := c.router()
	c.ccm = c.start()
	for name, nodeIPs := range map[string]string{"dual-1": "10.21.0.5,fd00:21::5", "dual-2": "fd00:21::6,10.21.0.6"} {
		node := c.newNode(name)
		node.Annotations = map[string]string{"alpha.kubernetes.io/provided-node-ip": nodeIPs}
		node.Spec.PodCIDRs = []string{"10.246." + name[5:] + ".0/24", "fd00:10:246:" + name[5:] + "::/64"}
		if name == "dual-2" {
			slices.Reverse(node.Spec.PodCIDRs)
		}
		node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
		c.register(node)
	}
	c.initialized("dual-1", "dual-2")
	want := map[string]string{"192.168.7.0/24": "172.16.9.9", "10.246.1.0/24": "10.21.0.5", "fd00:10:246:1::/64": "fd00:21::5",
		"10.246.2.0/24": "10.21.0.6", "fd00:10:246:2::/64": "fd00:21::6"}
	complete := func() string {
		c.report("dual-1", "dual-2")
		if have := c.routes(router); !maps.Equal(have, want) {
			return fmt.Sprint(have)
		}
		for _, name := range []string{"dual-1", "dual-2"} {
			if !networkAvailable(c.node(name)) {
				return "the network of " + name + " is not available"
			}
		}
		return ""
	}
	c.eventually("the nodes have a route of each family", complete)
	for name, order := range map[string][]string{"dual-1": {"10.21.0.5", "fd00:21::5"}, "dual-2": {"fd00:21::6", "10.21.0.6"}} {
		if got := addresses(c.node(name), v1.NodeInternalIP); !slices.Equal(got, order) {
			t.Errorf("%s: internal %v, want the order of --node-ip, %v", name, got, order)
		}
	}
	c.putRoutes(router, `"route":"fd00:10:246:1::/64"`, `"route":"fd00:99::/64"`)
	c.eventually("the route that was lost is there again", complete)
	if err := client.CoreV1().Nodes().Delete(t.Context(), "dual-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	delete(want, "10.246.1.0/24")
	delete(want, "fd00:10:246:1::/64")
	c.eventually("both routes go with their Node", func() string {
		if have := c.routes(router); !maps.Equal(have, want) {
			return fmt.Sprint(have)
		}
		return ""
	})
}

// Another program keeps routes of its own on the router, and reads, changes and writes it again and again while nodes join. No
// route is lost, whoever's it is.
func TestAnotherProgramOnTheRouter(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.args = append(c.args, "--configure-cloud-routes=true", "--cluster-cidr=10.247.0.0/16",
		"--controllers=*,-service-lb-controller", "--route-reconciliation-period=1s")
	const count, others = 15, 10
	for i := range count {
		c.CreateServer(t, fmt.Sprintf("busy-%d", i), zone)
	}
	router := c.router()
	c.ccm = c.start()
	other := &otherProgram{c: c, router: router, own: make([]string, others)}
	routed := func(have map[string]string, i int) string {
		node := c.node(fmt.Sprintf("busy-%d", i))
		if !networkAvailable(node) || !slices.Contains(addresses(node, v1.NodeInternalIP), have[node.Spec.PodCIDR]) {
			return fmt.Sprintf("%s leads to %q", node.Name, have[node.Spec.PodCIDR])
		}
		return ""
	}
	for i := range count {
		node := c.newNode(fmt.Sprintf("busy-%d", i))
		node.Spec.PodCIDR = fmt.Sprintf("10.247.%d.0/24", i)
		node.Spec.PodCIDRs = []string{node.Spec.PodCIDR}
		c.register(node)
		if i%5 < 4 {
			continue
		}
		c.eventually("nodes have their routes while another program writes", func() string {
			for range 20 {
				other.change()
			}
			return routed(c.routes(router), i)
		})
	}
	c.eventually("all routes of both are there", func() string {
		other.keep()
		have := c.routes(router)
		if len(have) != 1+others+count {
			return fmt.Sprintf("%d routes, want %d: %v", len(have), 1+others+count, have)
		}
		for i := range count {
			if lacks := routed(have, i); lacks != "" {
				return lacks
			}
		}
		return ""
	})
	metrics := c.metrics()
	if !strings.Contains(metrics, `upcloud_ccm_static_routes_writes_total{result="ok"}`) {
		t.Error("the metrics do not tell of writes")
	}
	overwritten := regexp.MustCompile(`(?m)^upcloud_ccm_static_routes_overwritten_total .*`).FindString(metrics)
	t.Logf("%d writes of the other program, %d of the ccm; %s", other.writes, c.Requests().Of("PATCH /router/{uuid}")-other.writes, overwritten)
}

// otherProgram changes a router as the ccm does: it reads all routes, puts its own on top, writes all, and looks.
type otherProgram struct {
	c               *cluster
	router          string
	own             []string // as JSON
	changes, writes int
}

// change gives one of its routes another next hop.
func (o *otherProgram) change() {
	n := o.changes % len(o.own)
	o.own[n] = fmt.Sprintf(`{"name":"other-%d","route":"192.168.%d.0/24","nexthop":"172.16.9.%d"}`, n, 100+n, 1+o.changes/len(o.own)%200)
	o.changes++
	o.keep()
}

// keep makes its routes be there.
func (o *otherProgram) keep() {
	for {
		all := o.c.rawRoutes(o.router)
		before := slices.Clone(all)
		for _, route := range o.own {
			name, _, found := strings.Cut(route, ",")
			if !found {
				continue // is made later
			}
			there := slices.IndexFunc(all, func(r string) bool { return strings.HasPrefix(r, name+",") })
			if there < 0 {
				all = append(all, route)
			} else {
				all[there] = route
			}
		}
		if slices.Equal(all, before) {
			return
		}
		o.writes++
		o.c.Do(o.c.t, http.MethodPatch, "/router/"+o.router, `{"router":{"static_routes":[`+strings.Join(all, ",")+`]}}`, nil)
	}
}

func networkAvailable(node *v1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(condition v1.NodeCondition) bool {
		return condition.Type == v1.NodeNetworkUnavailable && condition.Status == v1.ConditionFalse
	})
}

// rawRoutes are the router's static routes as the API writes them.
func (c *cluster) rawRoutes(router string) (all []string) {
	c.t.Helper()
	var answer struct {
		Router struct {
			Routes []struct{ Name, Route, Nexthop string } `json:"static_routes"`
		}
	}
	c.Do(c.t, http.MethodGet, "/router/"+router, "", &answer)
	for _, r := range answer.Router.Routes {
		all = append(all, fmt.Sprintf(`{"name":%q,"route":%q,"nexthop":%q}`, r.Name, r.Route, r.Nexthop))
	}
	return all
}

// putRoutes writes the router's static routes with something in the place of something.
func (c *cluster) putRoutes(router, before, after string) {
	c.t.Helper()
	routes := strings.Join(c.rawRoutes(router), ",")
	if !strings.Contains(routes, before) {
		c.t.Fatalf("%s has no %s", routes, before)
	}
	c.Do(c.t, http.MethodPatch, "/router/"+router, `{"router":{"static_routes":[`+strings.ReplaceAll(routes, before, after)+`]}}`, nil)
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
