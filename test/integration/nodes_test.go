package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Node's life (D-30: with its instance type): it registers, its server stops and starts again, and is deleted.
func TestNodeFollowsItsServer(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.config = "  serverLabelPrefix: node.\n"
	c.ccm = c.start()
	server := c.CreateServer(t, "follower", zone)
	c.Do(t, http.MethodPut, "/server/"+server, `{"server":{"labels":{"label":[{"key":"node.team","value":"blue"}]}}}`, nil)
	var group struct {
		Group struct{ UUID string } `json:"server_group"`
	}
	c.Do(t, http.MethodPost, "/server-group", fmt.Sprintf(`{"server_group":{"title":"workers","anti_affinity":"no","servers":{"server":[%q]}}}`,
		server), &group)
	c.register(c.newNode("follower"))
	c.initialized("follower")
	node := c.node("follower")
	if node.Spec.ProviderID != "upcloud:////"+server {
		t.Errorf("provider ID %s", node.Spec.ProviderID)
	}
	for key, want := range map[string]string{
		v1.LabelTopologyZone: zone, v1.LabelTopologyRegion: zone, v1.LabelInstanceTypeStable: "2xCPU-4GB",
		"upcloud.com/plan": "2xCPU-4GB", "upcloud.com/server-group": group.Group.UUID, "label.upcloud.com/team": "blue",
	} {
		if got := node.Labels[key]; got != want {
			t.Errorf("label %s=%s, want %s", key, got, want)
		}
	}
	if node.Labels["upcloud.com/host"] == "" {
		t.Error("there is no label of the host")
	}
	internal, external := addresses(node, v1.NodeInternalIP), addresses(node, v1.NodeExternalIP)
	if len(internal) != 1 || !strings.HasPrefix(internal[0], "172.16.") || len(external) != 1 || strings.HasPrefix(external[0], "172.16.") {
		t.Errorf("internal %v, external %v", internal, external)
	}

	const shutdown = "node.cloudprovider.kubernetes.io/shutdown"
	tainted := func() bool {
		return slices.ContainsFunc(c.node("follower").Spec.Taints, func(taint v1.Taint) bool { return taint.Key == shutdown })
	}
	if err := c.SetServerState(server, "stopped"); err != nil {
		t.Fatal(err)
	}
	c.setReady("follower", v1.ConditionUnknown)
	c.eventually("the Node of a stopped server is tainted", func() string {
		if !tainted() {
			return "it is not"
		}
		return ""
	})
	if err := c.SetServerState(server, "started"); err != nil {
		t.Fatal(err)
	}
	c.setReady("follower", v1.ConditionTrue)
	c.eventually("the Node of a server that runs again is not tainted", func() string {
		if tainted() {
			return "it is"
		}
		return ""
	})
	if err := c.RemoveServer(server); err != nil {
		t.Fatal(err)
	}
	asked := c.Requests().Of("GET /server/{uuid}")
	c.setReady("follower", v1.ConditionUnknown)
	c.gone("follower")
	// The first pass that found the Node not ready was the last: the next one would have asked for the server again.
	if again := c.Requests().Of("GET /server/{uuid}") - asked; again != 2 {
		t.Errorf("the server was asked for %d times before its Node was deleted, want twice, in one pass", again)
	}
}

// However many Nodes there are, and however often they are looked at, the account is read at once for all of them.
func TestTheNodeSetIsReadAtOnce(t *testing.T) {
	t.Parallel()
	c := started(t, "--node-monitor-period=1s", "--node-status-update-frequency=1s")
	const count = 60
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("set-%d", i))
		node := c.newNode(names[i])
		node.Spec.ProviderID = "upcloud:////" + c.CreateServer(t, names[i], zone)
		c.register(node)
	}
	c.initialized(names...)
	c.setReady(names[0], v1.ConditionUnknown) // these are looked at in every pass of the lifecycle controller too
	c.setReady(names[1], v1.ConditionUnknown)
	updates := func() int { return strings.Count(c.log(c.ccm), " nodes status took") }
	from := updates()
	c.ResetRequests()
	begin := time.Now()
	const looks = 5
	c.eventually("the Nodes are looked at again and again", func() string {
		if n := updates() - from; n < looks {
			return fmt.Sprintf("%d times", n)
		}
		return ""
	})
	// Two Nodes that are not ready, and sixty whose status is updated: lists, no more of them than passes, and no server by itself.
	// Each of the two controllers begins a pass in a second, at most.
	requests := c.Requests()
	passes := 2 * (int(time.Since(begin).Seconds()) + 1)
	if asked, all := requests.Of("GET /server/{uuid}"), requests.Total(); asked > 0 || all > passes {
		t.Errorf("%d calls, %d servers asked for %d nodes looked at %d times: %v", all, asked, count, looks, requests)
	}
}

func TestEveryWayToMatch(t *testing.T) {
	t.Parallel()
	c := started(t)
	want := map[string]string{}
	add := func(name string, change func(node *v1.Node, server string)) {
		t.Helper()
		server := c.CreateServer(t, "server-of-"+name, zone)
		node := c.newNode(name)
		change(node, server)
		c.register(node)
		want[name] = server
	}
	for form, format := range map[string]string{"two": "upcloud://%s", "three": "upcloud:///%s", "four": "upcloud:////%s", "bare": "%s"} {
		add("match-"+form, func(node *v1.Node, server string) { node.Spec.ProviderID = fmt.Sprintf(format, server) })
	}
	add("match-annotation", func(node *v1.Node, server string) {
		node.Annotations = map[string]string{"infrastructure.cluster.x-k8s.io/upcloud-vm-uuid": server}
	})
	add("match-system", func(node *v1.Node, server string) {
		node.Annotations = map[string]string{"alpha.kubernetes.io/provided-node-ip": c.privateAddress(server)}
		node.Status.NodeInfo.SystemUUID = server
	})
	want["match-name"] = c.CreateServer(t, "match-name", zone)
	c.register(c.newNode("match-name"))
	for name, server := range want {
		c.initialized(name)
		if got := c.node(name).Spec.ProviderID; !strings.HasSuffix(got, server) {
			t.Errorf("%s: provider ID %s, want that of %s", name, got, server)
		}
	}
}

// D-16: the name of a node is neither a part of a title, nor is it one of several servers' that have it; a private address proves nothing.
func TestNoGuessing(t *testing.T) {
	t.Parallel()
	c := started(t)
	c.CreateServer(t, "database-of-guess-part-customer", "us-nyc1")
	c.CreateServer(t, "guess-twice", zone)
	c.CreateServer(t, "guess-twice", "us-nyc1")
	c.serverWith("database", private(c.network("guess", "10.50.0.0/24", "IPv4"), "IPv4", "10.50.0.5"))
	names := []string{"guess-part", "guess-twice", "guess-address"}
	for _, name := range names {
		node := c.newNode(name)
		if name == "guess-address" {
			node.Annotations = map[string]string{"alpha.kubernetes.io/provided-node-ip": "10.50.0.5"}
		}
		c.register(node)
	}
	for name, told := range map[string]string{"guess-part": "no server of the account has this host name or title",
		"guess-twice": "2 servers have this host name or title", "guess-address": "private addresses prove nothing"} {
		c.eventually("an event tells why "+name+" is not initialized", func() string {
			events, err := client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{
				FieldSelector: "reason=NotInitialized,involvedObject.name=" + name})
			if err != nil {
				t.Fatal(err)
			}
			if len(events.Items) == 0 || !strings.Contains(events.Items[0].Message, told) {
				return fmt.Sprint("it does not: ", events.Items)
			}
			return ""
		})
		if node := c.node(name); node.Spec.ProviderID != "" || lacksInitialization(node) == "" {
			t.Errorf("%s was initialized as %s", name, node.Spec.ProviderID)
		}
		c.setReady(name, v1.ConditionUnknown)
	}
	c.always("a Node without a server is not deleted", "GET /server", 3, func() string {
		for _, name := range names {
			if !c.exists(name) {
				return name + " is gone"
			}
		}
		return ""
	})
}

// D-1, D-15: UpCloud's own CCM deletes the Nodes outside of its nodeScopeSelector, control planes by the sample of its
// documentation, as soon as they are not ready; and tries for ever to initialize them.
func TestNodesOutOfScopeAreLeftAlone(t *testing.T) {
	t.Parallel()
	c := started(t)
	inside := c.member("scope-inside")
	outside := func(name string) *v1.Node {
		node := c.newNode(name)
		node.Labels[testLabel] = c.name + "-not"
		return node
	}
	controlPlane := outside("scope-control-plane")
	controlPlane.Spec.ProviderID = "upcloud:////" + c.CreateServer(t, "scope-control-plane", zone)
	controlPlane.Spec.Taints = nil
	controlPlane.Status.Conditions[0].Status = v1.ConditionUnknown
	waiting := outside("scope-waiting") // its server exists, and it is not ours to initialize
	c.CreateServer(t, "scope-waiting", zone)
	left := outside("scope-left") // its server is gone, and it is not ours to delete
	left.Spec.ProviderID, left.Spec.Taints = "upcloud:////00ffffff-ffff-4fff-bfff-ffffffffffff", nil
	left.Status.Conditions[0].Status = v1.ConditionUnknown
	hybrid := c.newNode("scope-hybrid") // selected, but another cloud's
	hybrid.Spec.ProviderID, hybrid.Spec.Taints = "hcloud://1", nil
	hybrid.Status.Conditions[0].Status = v1.ConditionUnknown
	metal := c.newNode("scope-metal")
	metal.Spec.ProviderID = "metal-1"
	elsewhere := c.newNode("scope-elsewhere") // selected, and named like a stopped server, but its kubelet asks for no cloud provider
	elsewhere.Spec.Taints = nil
	elsewhere.Status.Conditions[0].Status = v1.ConditionUnknown
	if err := c.SetServerState(c.CreateServer(t, "scope-elsewhere", zone), "stopped"); err != nil {
		t.Fatal(err)
	}
	names := []string{controlPlane.Name, waiting.Name, left.Name, hybrid.Name, metal.Name, elsewhere.Name}
	c.register(controlPlane, waiting, left, hybrid, metal, elsewhere)
	t.Cleanup(func() {
		other := *c
		other.name = c.name + "-not"
		other.removeNodes()
	})
	if err := c.SetServerState(inside, "stopped"); err != nil {
		t.Fatal(err)
	}
	c.setReady("scope-inside", v1.ConditionUnknown) // so that the account is asked in every pass
	before := map[string]*v1.Node{}
	for _, name := range names {
		before[name] = c.node(name)
	}
	c.always("nodes that are not ours are left alone", "GET /server", 4, func() string {
		for _, name := range names {
			if !c.exists(name) {
				return name + " is deleted"
			}
			node := c.node(name)
			if node.Spec.ProviderID != before[name].Spec.ProviderID || len(node.Spec.Taints) != len(before[name].Spec.Taints) ||
				len(node.Status.Addresses) != 1 || len(node.Labels) != len(before[name].Labels) {
				return fmt.Sprintf("%s is changed: %+v", name, node)
			}
		}
		return ""
	})
	for _, name := range names {
		for line := range strings.Lines(c.log(c.ccm)) {
			if strings.HasPrefix(line, "E") && strings.Contains(line, name) {
				t.Errorf("there is an error: %s", line)
			}
		}
	}
}

// D-17: a server with no private address, which UpCloud makes by default, one with no public address, and others.
func TestAddressesOfEveryKind(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.config = "  nodePrivateNetworks: [wanted, 10.30.0.0/16]\n"
	c.ccm = c.start()
	plain := newCluster(t)
	plain.name, plain.dir = c.name+"-plain", t.TempDir()
	plain.ccm = plain.start()
	for _, of := range []*cluster{c, plain} {
		four := of.network("wanted", "10.20.0.0/24", "IPv4")
		six := of.network("six", "fd00:1::/64", "IPv6")
		other := of.network("other", "10.40.0.0/24", "IPv4")
		of.serverWith(of.name+"-choice", public4, private(other, "IPv4", "10.40.0.5"), private(four, "IPv4", "10.20.0.5"))
		of.serverWith(of.name+"-default", public4, public6, utility)
		of.serverWith(of.name+"-private", private(four, "IPv4", "10.20.0.6"))
		of.serverWith(of.name+"-public", public4)
		of.serverWith(of.name+"-dual", public4, private(four, "IPv4", "10.20.0.7"), private(six, "IPv6", "fd00:1::7"))
	}
	node := func(of *cluster, suffix, nodeIP string) string {
		n := of.newNode(of.name + "-" + suffix)
		if nodeIP != "" {
			n.Annotations = map[string]string{"alpha.kubernetes.io/provided-node-ip": nodeIP}
		}
		of.register(n)
		return n.Name
	}
	check := func(of *cluster, name, internal string, external int) {
		t.Helper()
		of.initialized(name)
		n := of.node(name)
		got := addresses(n, v1.NodeInternalIP)
		if internal != "" && !slices.Equal(got, strings.Fields(internal)) {
			t.Errorf("%s: internal %v, want %s", name, got, internal)
		}
		if len(got) == 0 || len(addresses(n, v1.NodeExternalIP)) != external || len(addresses(n, v1.NodeHostName)) != 1 {
			t.Errorf("%s: addresses %v", name, n.Status.Addresses)
		}
	}
	check(c, node(c, "choice", ""), "10.20.0.5", 1)
	check(plain, node(plain, "choice", ""), "10.40.0.5 10.20.0.5", 1)
	check(plain, node(plain, "default", ""), "", 2)
	check(plain, node(plain, "private", ""), "10.20.0.6", 0)
	check(plain, node(plain, "public", ""), "", 1)
	check(plain, node(plain, "dual", "fd00:1::7,10.20.0.7"), "fd00:1::7 10.20.0.7", 1)
	node(c, "public", "") // is on none of the networks that were chosen
	c.eventually("it is told that a server is on no chosen network", func() string {
		if !strings.Contains(c.log(c.ccm), "is on one of the private networks wanted, 10.30.0.0/16") {
			return "it is not"
		}
		return ""
	})
}
