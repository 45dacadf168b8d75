package routes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const zone = "fi-hel1"

// rig is a simulated account with a network on a router, and a cluster in it.
type rig struct {
	*simulatortest.Server
	t               *testing.T
	network, router string
}

func newRig(t *testing.T, config simulator.Config) *rig {
	t.Helper()
	r := &rig{Server: simulatortest.Start(t, config), t: t}
	r.network = r.CreateNetwork(t, "nodes", zone, "172.16.0.0/16")
	r.router = r.createRouter()
	r.attach(r.network, r.router)
	return r
}

func (r *rig) createRouter() string {
	r.t.Helper()
	var made struct{ Router struct{ UUID string } }
	r.Do(r.t, "POST", "/router", `{"router":{"name":"r"}}`, &made)
	return made.Router.UUID
}

func (r *rig) attach(network, router string) {
	r.t.Helper()
	r.Do(r.t, "PUT", "/network/"+network, fmt.Sprintf(`{"network":{"router":%q}}`, router), nil)
}

// raw are the router's static routes as the API writes them, in its order.
func (r *rig) raw() []string {
	r.t.Helper()
	var answer struct {
		Router struct {
			Routes []json.RawMessage `json:"static_routes"`
		}
	}
	r.Do(r.t, "GET", "/router/"+r.router, "", &answer)
	var texts []string
	for _, route := range answer.Router.Routes {
		texts = append(texts, string(route))
	}
	return texts
}

// put replaces the router's static routes, as another program does.
func (r *rig) put(routes ...string) {
	r.t.Helper()
	r.Do(r.t, "PATCH", "/router/"+r.router, `{"router":{"static_routes":[`+strings.Join(routes, ",")+`]}}`, nil)
}

// leads are the router's routes without their names, in order: 10.244.1.0/24>172.16.0.3
func (r *rig) leads() string {
	r.t.Helper()
	var texts []string
	for _, text := range r.raw() {
		var route struct{ Route, Nexthop string }
		if err := json.Unmarshal([]byte(text), &route); err != nil {
			r.t.Fatal(err)
		}
		texts = append(texts, route.Route+">"+route.Nexthop)
	}
	slices.Sort(texts)
	return strings.Join(texts, " ")
}

// lastingAPI is the API as one program sees it. finish returns when all that the program asked for has had its effect, what it no
// longer waits for too, and nothing else of it comes through.
func (r *rig) lastingAPI() (address string, finish func()) {
	r.t.Helper()
	forward := r.Proxy(r.t)
	forward.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		ctx, cancel := context.WithCancel(context.WithoutCancel(request.Context()))
		defer cancel()
		forward.ServeHTTP(w, request.WithContext(ctx))
	}))
	r.t.Cleanup(web.Close)
	return web.URL, web.Close
}

// cluster is a Kubernetes cluster's nodes, and its Routes.
type cluster struct {
	*Routes
	t      *testing.T
	rig    *rig
	nodes  cache.Indexer
	events *record.FakeRecorder
}

// newCluster makes a cluster; url is where its Routes find the API.
func (r *rig) newCluster(url string, change func(*Config)) *cluster {
	r.t.Helper()
	client, err := cloud.New(cloud.Config{Token: r.Token, BaseURL: url, RequestsPerSecond: 10000, Burst: 10000})
	if err != nil {
		r.t.Fatal(err)
	}
	config := Config{Cloud: client}
	if change != nil {
		change(&config)
	}
	c := &cluster{Routes: New(config), t: r.t, rig: r, events: record.NewFakeRecorder(1000),
		nodes: cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})}
	namespace := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: types.UID(r.t.Name() + url)}}
	c.Start(fake.NewClientset(namespace), c.events)
	c.SetNodes(corelisters.NewNodeLister(c.nodes))
	c.watch.look(nil) // it was there before its nodes
	r.t.Cleanup(func() {
		c.Close()
		client.Close()
	})
	return c
}

// impatient makes batches short, and pauses shorter.
func (c *cluster) impatient() *cluster {
	c.t.Helper()
	owner, err := c.ownerOf(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	w := c.writerOf(c.rig.router, owner)
	w.window = 2 * time.Millisecond
	w.pace = wait.Backoff{Duration: time.Millisecond, Factor: 1.5, Jitter: 1, Steps: 25}
	return c
}

// addNode adds a node with a server on the network.
func (c *cluster) addNode(name string, podCIDRs ...string) *v1.Node {
	c.t.Helper()
	id := c.rig.createServer(name, "no")
	node := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1.NodeSpec{ProviderID: "upcloud:////" + id, PodCIDRs: podCIDRs},
	}
	node.Status.Addresses = []v1.NodeAddress{
		{Type: v1.NodeHostName, Address: name}, {Type: v1.NodeInternalIP, Address: c.rig.privateAddress(id)},
	}
	c.setNode(node)
	return node
}

func (c *cluster) setNode(node *v1.Node) {
	c.t.Helper()
	if err := c.nodes.Add(node); err != nil {
		c.t.Fatal(err)
	}
}

// createServer makes a server on the network alone; filtering is yes or no.
func (r *rig) createServer(name, filtering string) string {
	r.t.Helper()
	var answer struct{ Server struct{ UUID string } }
	r.Do(r.t, "POST", "/server", fmt.Sprintf(`{"server":{"hostname":%q,"title":%q,"zone":%q,"metadata":"yes","plan":"2xCPU-4GB",
		"networking":{"interfaces":{"interface":[{"type":"private","network":%q,"source_ip_filtering":%q,
			"ip_addresses":{"ip_address":[{"family":"IPv4"}]}}]}},
		"storage_devices":{"storage_device":[{"action":"create","size":20,"tier":"maxiops","title":"system"}]}}}`,
		name, name, zone, r.network, filtering), &answer)
	return answer.Server.UUID
}

func (r *rig) privateAddress(server string) string {
	r.t.Helper()
	client, err := cloud.New(cloud.Config{Token: r.Token, BaseURL: r.URL})
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	details, err := client.Server(r.t.Context(), server)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, address := range details.Addresses {
		if address.Access == "private" {
			return address.IP.String()
		}
	}
	r.t.Fatalf("server %s has no private address", server)
	return ""
}

func internalIP(node *v1.Node) string { return internalIPs(node.Status.Addresses)[0].String() }

func (c *cluster) create(node *v1.Node) error {
	var failed error
	for _, cidr := range node.Spec.PodCIDRs {
		if err := c.CreateRoute(c.t.Context(), "kubernetes", "hint", &cloudprovider.Route{
			TargetNode: types.NodeName(node.Name), TargetNodeAddresses: node.Status.Addresses, DestinationCIDR: cidr,
		}); err != nil {
			failed = err
		}
	}
	return failed
}

func (c *cluster) mustCreate(node *v1.Node) {
	c.t.Helper()
	if err := c.create(node); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) list() []*cloudprovider.Route {
	c.t.Helper()
	listed, err := c.ListRoutes(c.t.Context(), "kubernetes")
	if err != nil {
		c.t.Fatal(err)
	}
	return listed
}

// pass does what the route controller does each time: list, remove, add. It returns how much there was to do.
func (c *cluster) pass(ctx context.Context) (changes int, err error) {
	listed, err := c.ListRoutes(ctx, "kubernetes")
	if err != nil {
		return 1, err
	}
	has := map[string]bool{}
	for _, route := range listed {
		node, exists, _ := c.nodes.GetByKey(string(route.TargetNode))
		if exists && slices.Contains(node.(*v1.Node).Spec.PodCIDRs, route.DestinationCIDR) {
			has[string(route.TargetNode)+route.DestinationCIDR] = true
			continue
		}
		changes++
		if err := c.DeleteRoute(ctx, "kubernetes", route); err != nil {
			return changes, err
		}
	}
	for _, object := range c.nodes.List() {
		node := object.(*v1.Node)
		for _, cidr := range node.Spec.PodCIDRs {
			if has[node.Name+cidr] {
				continue
			}
			changes++
			route := &cloudprovider.Route{TargetNode: types.NodeName(node.Name), DestinationCIDR: cidr}
			if err := c.CreateRoute(ctx, "kubernetes", "", route); err != nil {
				return changes, err
			}
		}
	}
	return changes, nil
}

// settle runs passes until there is nothing left to do.
func (c *cluster) settle() {
	c.t.Helper()
	var err error
	for range 20 {
		var changes int
		if changes, err = c.pass(c.t.Context()); changes == 0 {
			return
		}
	}
	c.t.Fatalf("there is always something to do: %v", err)
}

func (c *cluster) event() string {
	select {
	case event := <-c.events.Events:
		return event
	default:
		return ""
	}
}

func prefixOf(i int) string {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), 24).String()
}

const foreign = `{"name":"office","nexthop":"172.16.9.9","route":"192.168.7.0/24"}`

func mustPrefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, mustPrefix(text))
	}
	return all
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}
