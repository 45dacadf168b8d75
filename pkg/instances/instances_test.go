package instances

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const zone = "fi-hel1"

// account is a simulated account and a client of it.
type account struct {
	*simulatortest.Server
	cloud *cloud.Cloud
}

func newAccount(t *testing.T) account {
	t.Helper()
	sim := simulatortest.Start(t, simulator.Config{})
	return account{Server: sim, cloud: connect(t, sim)}
}

// connect returns a client that has seen nothing of the account yet.
func connect(t *testing.T, sim *simulatortest.Server) *cloud.Cloud {
	t.Helper()
	c, err := cloud.New(cloud.Config{Token: sim.Token, BaseURL: sim.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func newInstances(t *testing.T, c *cloud.Cloud, change ...func(*Config)) *Instances {
	t.Helper()
	config := Config{Cloud: c}
	for _, change := range change {
		change(&config)
	}
	instances, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return instances
}

func (a account) stop(t *testing.T, id string) {
	t.Helper()
	a.Do(t, http.MethodPost, "/server/"+id+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
	for deadline := time.Now().Add(time.Minute); ; {
		var answer struct{ Server struct{ State string } }
		a.Do(t, http.MethodGet, "/server/"+id, "", &answer)
		if answer.Server.State == "stopped" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("server is %s", answer.Server.State)
		}
	}
}

func (a account) deleteServer(t *testing.T, id string) {
	t.Helper()
	a.stop(t, id)
	a.Do(t, http.MethodDelete, "/server/"+id+"?storages=1", "", nil)
}

func node(name, providerID string) *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.NodeSpec{ProviderID: providerID}}
}

func TestMetadata(t *testing.T) {
	account := newAccount(t)
	id := account.CreateServer(t, "worker-1", zone)
	instances := newInstances(t, account.cloud)
	for _, node := range []*v1.Node{
		tainted(node("worker-1", "")),
		node("another-name", providerid.New(id)),
		node("another-name", "upcloud://"+id),
		{ObjectMeta: metav1.ObjectMeta{Name: "x", Annotations: map[string]string{AnnotationServerID: id}}},
	} {
		metadata, err := instances.InstanceMetadata(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		if metadata.ProviderID != "upcloud:////"+id || metadata.Zone != zone || metadata.Region != zone ||
			metadata.InstanceType != "2xCPU-4GB" {
			t.Errorf("metadata of %s: %+v", node.Name, metadata)
		}
		var kinds []string
		for _, address := range metadata.NodeAddresses {
			kinds = append(kinds, string(address.Type))
			if address.Type == v1.NodeInternalIP && !strings.HasPrefix(address.Address, "172.16.") {
				t.Errorf("internal address %s is not that of the private network", address.Address)
			}
		}
		if got := strings.Join(kinds, " "); got != "Hostname InternalIP ExternalIP" {
			t.Errorf("addresses of %s: %s", node.Name, got)
		}
	}
}

// D-17: a default server has no private network. UpCloud's own CCM never initializes such a node.
func TestMetadataWithoutPrivateNetwork(t *testing.T) {
	account := newAccount(t)
	var answer struct{ Server struct{ UUID string } }
	account.Do(t, http.MethodPost, "/server", `{"server":{"hostname":"plain","title":"plain","zone":"`+zone+`","plan":"1xCPU-1GB",
		"networking":{"interfaces":{"interface":[
			{"type":"public","ip_addresses":{"ip_address":[{"family":"IPv4"}]}},
			{"type":"utility","ip_addresses":{"ip_address":[{"family":"IPv4"}]}}]}},
		"storage_devices":{"storage_device":[{"action":"create","size":20,"tier":"maxiops","title":"s"}]}}}`, &answer)
	server, err := account.cloud.Server(t.Context(), answer.Server.UUID)
	if err != nil {
		t.Fatal(err)
	}
	metadata, err := newInstances(t, account.cloud).InstanceMetadata(t.Context(), tainted(node("plain", "")))
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range server.Addresses {
		want := v1.NodeAddress{Type: v1.NodeExternalIP, Address: address.IP.String()}
		if address.Access == "utility" {
			want.Type = v1.NodeInternalIP
		}
		if !slices.Contains(metadata.NodeAddresses, want) {
			t.Errorf("%v lacks %v", metadata.NodeAddresses, want)
		}
	}
	if len(server.Addresses) != 2 {
		t.Errorf("addresses: %v", server.Addresses)
	}
}

// A list that shows less than there is takes no address from a Node: the private one that Pods and the API server use, say.
func TestShortListTakesNoAddress(t *testing.T) {
	for _, list := range []string{"GET /network", "GET /ip_address"} {
		t.Run(list, func(t *testing.T) {
			account := newAccount(t)
			account.Inject(simulator.Fault{Operation: list, Stale: time.Hour}) // as it was before there were any servers
			id := account.CreateServer(t, "n1", zone)
			n := node("n1", providerid.New(id))
			metadata, err := newInstances(t, connect(t, account.Server)).InstanceMetadata(t.Context(), initialized(t, account, n))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(n.Status.Addresses, metadata.NodeAddresses); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// initialized gives the node all addresses that its server says it has.
func initialized(t *testing.T, account account, n *v1.Node) *v1.Node {
	t.Helper()
	id, err := providerid.Parse(n.Spec.ProviderID)
	if err != nil {
		t.Fatal(err)
	}
	server, err := account.cloud.Server(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if n.Status.Addresses, err = nodeAddresses(n, server.Addresses); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAmbiguousNameIsAnError(t *testing.T) {
	account := newAccount(t)
	first, second := account.CreateServer(t, "worker-1", zone), account.CreateServer(t, "worker-1", "us-nyc1")
	instances := newInstances(t, account.cloud)
	_, err := instances.InstanceMetadata(t.Context(), tainted(node("worker-1", "")))
	if err == nil || !strings.Contains(err.Error(), first) || !strings.Contains(err.Error(), second) {
		t.Errorf("error %v, want one that names both servers", err)
	}
	if exists, err := instances.InstanceExists(t.Context(), tainted(node("worker-1", ""))); err == nil {
		t.Errorf("InstanceExists = %v, want an error", exists)
	}
}

func TestExistence(t *testing.T) {
	account := newAccount(t)
	here, stopped, gone := account.CreateServer(t, "here", zone), account.CreateServer(t, "stopped", zone), account.CreateServer(t, "gone", zone)
	account.stop(t, stopped)
	account.deleteServer(t, gone)
	scope := labels.SelectorFromSet(labels.Set{"role": "worker"})
	never := "00ffffff-ffff-4fff-bfff-ffffffffffff"
	for _, test := range []struct {
		name             string
		node             *v1.Node
		scope            labels.Selector
		exists, shutdown bool
		wantErr          bool
	}{
		{name: "started", node: node("here", providerid.New(here)), exists: true},
		{name: "stopped", node: node("stopped", providerid.New(stopped)), exists: true, shutdown: true},
		{name: "deleted", node: node("gone", providerid.New(gone))},
		{name: "never was", node: node("here", providerid.New(never))},
		{name: "never was, by annotation", node: &v1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: "here", Annotations: map[string]string{AnnotationServerID: never}}}},
		{name: "no provider ID and no such name", node: tainted(node("gone", "")), wantErr: true},
		{name: "another cloud's", node: node("gone", "hcloud://1"), exists: true},
		{name: "bare metal", node: node("gone", "gone"), exists: true},
		{name: "broken provider ID", node: node("here", "upcloud:////here"), wantErr: true},
		// D-1: UpCloud's own CCM says of these that they do not exist, and so deletes control-plane Nodes.
		{name: "out of scope", node: node("here", providerid.New(here)), scope: scope, exists: true},
		{name: "out of scope and gone", node: node("gone", providerid.New(gone)), scope: scope, exists: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			instances := newInstances(t, account.cloud, func(c *Config) { c.Scope = test.scope })
			exists, err := instances.InstanceExists(t.Context(), test.node)
			if exists != test.exists || (err != nil) != test.wantErr {
				t.Errorf("InstanceExists = %v, %v, want %v, error %v", exists, err, test.exists, test.wantErr)
			}
			if !test.exists {
				return
			}
			shutdown, err := instances.InstanceShutdown(t.Context(), test.node)
			if shutdown != test.shutdown || err != nil {
				t.Errorf("InstanceShutdown = %v, %v, want %v", shutdown, err, test.shutdown)
			}
		})
	}
}

// Whatever goes wrong with the API, no node may look as if its server were gone.
func TestFailingAPIIsNoMissingServer(t *testing.T) {
	for _, fault := range []simulator.Fault{
		{Status: 401}, {Status: 403}, {Status: 429}, {Status: 500}, {Status: 503},
		{Operation: "GET /server", Status: 404},
		{Operation: "GET /server/{uuid}", Status: 404, Code: "NOT_FOUND"}, // a proxy's, or the path's, not the server's
		{Operation: "GET /server/{uuid}", Status: 403},
		{Operation: "GET /server/{uuid}", Drop: true},
		{Operation: "GET /server/{uuid}", Status: 500},
	} {
		t.Run(fmt.Sprintf("%s %d %v", fault.Operation, fault.Status, fault.Drop), func(t *testing.T) {
			account := newAccount(t)
			account.Inject(fault)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			exists, err := newInstances(t, account.cloud).
				InstanceExists(ctx, node("n", providerid.New("00ffffff-ffff-4fff-bfff-ffffffffffff")))
			if exists || err == nil {
				t.Errorf("InstanceExists = %v, %v, want an error", exists, err)
			}
		})
	}
}

// D-15: an empty answer for a node that waits makes the node controller try for ever.
func TestOutOfScopeNodesAreLeftAlone(t *testing.T) {
	account := newAccount(t)
	instances := newInstances(t, account.cloud, func(c *Config) { c.Scope = labels.SelectorFromSet(labels.Set{"role": "worker"}) })
	waiting := node("cp", "")
	waiting.Spec.Taints = []v1.Taint{{Key: "node.cloudprovider.kubernetes.io/uninitialized", Effect: v1.TaintEffectNoSchedule}}
	if metadata, err := instances.InstanceMetadata(t.Context(), waiting); metadata != nil || err != nil {
		t.Errorf("metadata of an uninitialized node = %v, %v, want none", metadata, err)
	}
	metadata, err := instances.InstanceMetadata(t.Context(), node("cp", "upcloud:////x"))
	if err != nil || metadata == nil || metadata.ProviderID != "upcloud:////x" || len(metadata.NodeAddresses) != 0 {
		t.Errorf("metadata of an initialized node = %v, %v", metadata, err)
	}
	if len(account.Requests()) != 0 {
		t.Errorf("requests: %v", account.Requests())
	}
}

// All nodes are answered for by one reading of the lists, however many they are and whoever asks.
func TestCallsDoNotGrowWithNodes(t *testing.T) {
	account := newAccount(t)
	var nodes []*v1.Node
	for i := range 12 {
		name := fmt.Sprintf("worker-%d", i)
		nodes = append(nodes, node(name, providerid.New(account.CreateServer(t, name, zone))))
	}
	instances := newInstances(t, account.cloud)
	visit := func() {
		for _, node := range nodes {
			if exists, err := instances.InstanceExists(t.Context(), node); !exists || err != nil {
				t.Fatal(exists, err)
			}
			if _, err := instances.InstanceShutdown(t.Context(), node); err != nil {
				t.Fatal(err)
			}
			if _, err := instances.InstanceMetadata(t.Context(), node); err != nil {
				t.Fatal(err)
			}
		}
	}
	account.ResetRequests()
	visit()
	// The list of addresses leaves out private ones, so each server is asked once, when its node joins.
	requests := account.Requests()
	if got := requests.Of("GET /server/{uuid}"); got != len(nodes) {
		t.Errorf("%d servers asked, want %d", got, len(nodes))
	}
	account.ResetRequests()
	visit()
	if _, err := account.cloud.ServersSince(t.Context(), time.Now()); err != nil { // as if the lists had aged
		t.Fatal(err)
	}
	visit()
	if got := account.Requests().Operations(); !slices.Equal(got, []string{"GET /ip_address", "GET /network", "GET /server"}) {
		t.Errorf("requests of two passes: %v", account.Requests())
	}
}
