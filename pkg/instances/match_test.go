package instances

import (
	"net/http"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// tainted is a Node as a kubelet with --cloud-provider=external registers it.
func tainted(n *v1.Node) *v1.Node {
	n.Spec.Taints = []v1.Taint{{Key: cloudproviderapi.TaintExternalCloudProvider, Value: "true", Effect: v1.TaintEffectNoSchedule}}
	return n
}

func (a account) addresses(t *testing.T, id, access string) (ips []string) {
	t.Helper()
	server, err := a.cloud.Server(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range server.Addresses {
		if address.Access == access {
			ips = append(ips, address.IP.String())
		}
	}
	return ips
}

// What says most about the server wins, and what it says is not checked against the rest.
func TestOrderOfMatching(t *testing.T) {
	account := newAccount(t)
	byID, byAnnotation, bySystem, byName, byAddress := account.CreateServer(t, "a", zone), account.CreateServer(t, "b", zone),
		account.CreateServer(t, "c", zone), account.CreateServer(t, "worker-1", zone), account.CreateServer(t, "d", zone)
	instances := newInstances(t, account.cloud)
	n := tainted(node("worker-1", providerid.New(byID)))
	n.Annotations = map[string]string{AnnotationServerID: byAnnotation}
	n.Status.NodeInfo.SystemUUID = strings.ToUpper(bySystem)
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeExternalIP, Address: account.addresses(t, byAddress, "public")[0]}}
	for _, step := range []struct {
		want  string
		after func()
	}{
		{byID, func() { n.Spec.ProviderID = "" }},
		{byAnnotation, func() { delete(n.Annotations, AnnotationServerID) }},
		{bySystem, func() { n.Status.NodeInfo.SystemUUID = "4c4c4544-0033-4a10-8052-b4c04f4d3032" }},
		{byName, func() { n.Name = "worker-2" }},
		{byAddress, func() {}},
	} {
		metadata, err := instances.InstanceMetadata(t.Context(), n)
		if err != nil || metadata.ProviderID != providerid.New(step.want) {
			t.Errorf("node %s, provider ID %q, annotations %v: %+v, %v, want %s", n.Name, n.Spec.ProviderID, n.Annotations, metadata, err, step.want)
		}
		step.after()
	}
}

// A public address is one server's. Private ones, and those of the utility network, are the same in many places: a machine of another
// cloud that has one must not become the server that has it here. The system UUID is proof whatever the address.
func TestMatchByAddress(t *testing.T) {
	account := newAccount(t)
	account.CreateServer(t, "other", zone)
	id := account.CreateServer(t, "database", zone)
	for _, access := range []string{"public", "utility", "private"} {
		provided := tainted(node("hetzner-1", ""))
		address := account.addresses(t, id, access)[0]
		provided.Annotations = map[string]string{cloudproviderapi.AnnotationAlphaProvidedIPAddr: address}
		found := tainted(node("hetzner-1", ""))
		found.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: address}}
		for _, n := range []*v1.Node{provided, found} {
			metadata, err := newInstances(t, account.cloud).InstanceMetadata(t.Context(), n)
			switch {
			case access != "public" && (err == nil || !strings.Contains(err.Error(), "private addresses prove nothing")):
				t.Errorf("by the %s address: %+v, %v", access, metadata, err)
			case access == "public" && (err != nil || metadata.ProviderID != providerid.New(id)):
				t.Errorf("by the %s address: %+v, %v", access, metadata, err)
			}
			n.Status.NodeInfo.SystemUUID = id
			metadata, err = newInstances(t, account.cloud).InstanceMetadata(t.Context(), n)
			if err != nil || metadata.ProviderID != providerid.New(id) {
				t.Errorf("by the system UUID, with the %s address: %+v, %v", access, metadata, err)
			}
		}
	}
}

// Of a new Node the server itself is asked, once for all the retries of a moment, and no list where the Node names its server.
func TestNewNodeCostsOneCall(t *testing.T) {
	account := newAccount(t)
	id := account.CreateServer(t, "n1", zone)
	account.Inject(simulator.Fault{Operation: "GET /server", Status: http.StatusServiceUnavailable})
	instances := newInstances(t, account.cloud)
	account.ResetRequests()
	for range 4 {
		metadata, err := instances.InstanceMetadata(t.Context(), tainted(node("n1", providerid.New(id))))
		if err != nil || len(metadata.NodeAddresses) != 3 {
			t.Fatal(metadata, err)
		}
	}
	if requests := account.Requests(); requests.Total() != 1 || requests.Of("GET /server/{uuid}") != 1 {
		t.Errorf("requests: %v", requests)
	}
}

// D-16: the node of another zone's server, whose title has the node's name in it, must not get its provider ID.
func TestPartOfATitleIsNoMatch(t *testing.T) {
	account := newAccount(t)
	account.CreateServer(t, "database-of-worker-1-customer", "us-nyc1")
	instances := newInstances(t, account.cloud)
	n := tainted(node("worker-1", ""))
	metadata, err := instances.InstanceMetadata(t.Context(), n)
	if err == nil || !strings.Contains(err.Error(), "no server of the account has this host name or title") {
		t.Errorf("metadata %+v, error %v", metadata, err)
	}
	if exists, err := instances.InstanceExists(t.Context(), n); err == nil {
		t.Errorf("InstanceExists = %v, want an error", exists)
	}
}

// A Node whose kubelet asks for no cloud provider, as of a machine elsewhere, is not that of a server which has its name or its
// address by chance: private addresses are the same in many places.
func TestNodesThatAskForNoCloudAreLeftAlone(t *testing.T) {
	account := newAccount(t)
	id := account.CreateServer(t, "worker-1", zone)
	account.stop(t, id)
	instances := newInstances(t, account.cloud)
	byAddress := node("elsewhere", "")
	byAddress.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: account.addresses(t, id, "private")[0]}}
	for _, n := range []*v1.Node{node("worker-1", ""), byAddress} {
		if exists, err := instances.InstanceExists(t.Context(), n); !exists || err != nil {
			t.Errorf("%s: InstanceExists = %v, %v", n.Name, exists, err)
		}
		if shutdown, err := instances.InstanceShutdown(t.Context(), n); shutdown || err != nil {
			t.Errorf("%s: InstanceShutdown = %v, %v", n.Name, shutdown, err)
		}
		metadata, err := instances.InstanceMetadata(t.Context(), n)
		if err != nil || metadata == nil || metadata.ProviderID != "" || len(metadata.NodeAddresses) > 0 {
			t.Errorf("%s: metadata %+v, %v", n.Name, metadata, err)
		}
	}
}

func TestAnnotationThatIsNoUUID(t *testing.T) {
	account := newAccount(t)
	account.CreateServer(t, "n1", zone)
	n := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Annotations: map[string]string{AnnotationServerID: "n1"}}}
	if _, err := newInstances(t, account.cloud).InstanceMetadata(t.Context(), n); err == nil || !strings.Contains(err.Error(), AnnotationServerID) {
		t.Errorf("error %v, want one that names the annotation", err)
	}
}
