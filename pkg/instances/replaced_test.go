package instances

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const goneServer = "00ffffff-ffff-4fff-bfff-ffffffffffff"

// reporting is a Node whose kubelet reports this, on a server that is gone.
func reporting(name string, ready v1.ConditionStatus) *v1.Node {
	n := node(name, providerid.New(goneServer))
	n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: ready}}
	n.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}, {Type: v1.NodeInternalIP, Address: "172.16.99.99"}}
	return n
}

// A server that was replaced under its name before the Node was not ready for long: the kubelet of the new one goes on with the old Node.
func TestNodeOfAReplacedServerGetsTheNewAddresses(t *testing.T) {
	account := newAccount(t)
	successor := account.CreateServer(t, "worker-1", zone)
	other := node("worker-2", providerid.New(account.CreateServer(t, "worker-2", zone)))
	n := reporting("worker-1", v1.ConditionTrue)
	instances := newInstances(t, account.cloud)
	instances.SetNodes(lister(t, n, other))
	events := record.NewFakeRecorder(10)
	instances.Start(nil, events)
	metadata, err := instances.InstanceMetadata(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(metadata.NodeAddresses, func(a v1.NodeAddress) bool { return a.Type == v1.NodeInternalIP }) ||
		!loses(n, metadata.NodeAddresses) { // the address of the server that is gone
		t.Errorf("addresses %v", metadata.NodeAddresses)
	}
	if event := <-events.Events; !strings.Contains(event, ReasonReplaced) || !strings.Contains(event, "kubectl delete node worker-1") ||
		!strings.Contains(event, providerid.New(successor)) {
		t.Errorf("event %q", event)
	}
	account.ResetRequests()
	if _, err := instances.InstanceMetadata(t.Context(), n); err != nil || len(events.Events) > 0 {
		t.Errorf("the second time: %v, %d events", err, len(events.Events))
	}
	if asked := account.Requests().Of("GET /server/{uuid}"); asked > 1 {
		t.Errorf("the second time took %v", account.Requests())
	}

	n.Status.Conditions[0].Status = v1.ConditionFalse
	if exists, err := instances.InstanceExists(t.Context(), n); !exists || err != nil {
		t.Errorf("while its kubelet reports: InstanceExists = %v, %v", exists, err)
	}
	if shutdown, err := instances.InstanceShutdown(t.Context(), n); shutdown || err != nil {
		t.Errorf("InstanceShutdown = %v, %v", shutdown, err)
	}
	n.Status.Conditions[0].Status = v1.ConditionUnknown
	if exists, err := instances.InstanceExists(t.Context(), n); exists || err != nil {
		t.Errorf("when its kubelet is silent: InstanceExists = %v, %v", exists, err)
	}
}

// With all servers replaced at once, nothing proves that the account is the Nodes' own, unless a kubelet reports to be one of its servers.
func TestReplacedServersWithoutProofOfTheAccount(t *testing.T) {
	account := newAccount(t)
	successor := account.CreateServer(t, "worker-1", zone)
	n, other := reporting("worker-1", v1.ConditionTrue), reporting("worker-2", v1.ConditionTrue)
	other.Spec.ProviderID = providerid.New(strings.Replace(goneServer, "00ff", "00ee", 1))
	instances := newInstances(t, account.cloud)
	instances.SetNodes(lister(t, n, other))
	events := record.NewFakeRecorder(10)
	instances.Start(nil, events)
	if metadata, err := instances.InstanceMetadata(t.Context(), n); err == nil {
		t.Errorf("metadata %+v", metadata)
	}
	if event := <-events.Events; !strings.Contains(event, ReasonReplaced) || !strings.Contains(event, "credentials") ||
		!strings.Contains(event, "kubectl delete node worker-1") {
		t.Errorf("event %q", event)
	}
	n.Status.NodeInfo.SystemUUID = strings.ToUpper(successor)
	if metadata, err := instances.InstanceMetadata(t.Context(), n); err != nil || !loses(n, metadata.NodeAddresses) {
		t.Errorf("metadata %+v, %v", metadata, err)
	}
}

func TestServersThatReplaceNothing(t *testing.T) {
	for name, prepare := range map[string]func(account account, n *v1.Node) (others []*v1.Node){
		"no server has the name": func(account, *v1.Node) []*v1.Node { return nil },
		"two servers have the name": func(a account, n *v1.Node) []*v1.Node {
			a.CreateServer(t, n.Name, zone)
			a.CreateServer(t, n.Name, zone)
			return nil
		},
		"another Node has the server": func(a account, n *v1.Node) []*v1.Node {
			return []*v1.Node{node("other", providerid.New(a.CreateServer(t, n.Name, zone)))}
		},
		"the kubelet runs on another server": func(a account, n *v1.Node) []*v1.Node {
			a.CreateServer(t, n.Name, zone)
			n.Status.NodeInfo.SystemUUID = a.CreateServer(t, "elsewhere", zone)
			return nil
		},
		"the old server may exist": func(a account, n *v1.Node) []*v1.Node {
			a.CreateServer(t, n.Name, zone)
			a.Inject(simulator.Fault{Operation: "GET /server/{uuid}", Status: http.StatusForbidden, Code: "SERVER_FORBIDDEN"})
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			account := newAccount(t)
			proof := node("proof", providerid.New(account.CreateServer(t, "proof", zone)))
			n := reporting("worker-1", v1.ConditionTrue)
			others := prepare(account, n)
			instances := newInstances(t, account.cloud)
			instances.SetNodes(lister(t, append(others, n, proof)...))
			events := record.NewFakeRecorder(10)
			instances.Start(nil, events)
			if metadata, err := instances.InstanceMetadata(t.Context(), n); err == nil {
				t.Errorf("metadata %+v", metadata)
			}
			if len(events.Events) > 0 {
				t.Errorf("event %q", <-events.Events)
			}
		})
	}
}

// Whoever may register a Node chooses its provider ID: a second Node gets none of the server's addresses.
func TestSecondNodeOfAServerGetsNoAddresses(t *testing.T) {
	account := newAccount(t)
	id := account.CreateServer(t, "worker-1", zone)
	owner, second := node("worker-1", providerid.New(id)), node("rogue", providerid.New(id))
	for _, waiting := range []bool{true, false} {
		instances := newInstances(t, account.cloud)
		if waiting {
			tainted(second)
		} else {
			second.Spec.Taints = nil
		}
		instances.SetNodes(lister(t, owner, second))
		events := record.NewFakeRecorder(10)
		instances.Start(nil, events)
		if _, err := instances.InstanceMetadata(t.Context(), owner); err != nil {
			t.Errorf("the server's own Node: %v", err)
		}
		if metadata, err := instances.InstanceMetadata(t.Context(), second); err == nil {
			t.Errorf("the second Node got %+v", metadata)
		}
		if len(events.Events) != 1 {
			t.Fatalf("%d events, want 1", len(events.Events))
		}
		if event := <-events.Events; !strings.Contains(event, ReasonDuplicate) || !strings.Contains(event, "worker-1") {
			t.Errorf("event %q", event)
		}
	}
}
