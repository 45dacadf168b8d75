package instances

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/record"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// A list that shows the server of another Node is that of the right account, however many others it lacks; one that shows none is
// believed for Nodes that are announced to go.
func TestMissingServersAreBelievedWhereTheAccountIsProved(t *testing.T) {
	for _, test := range []struct {
		nodes, gone, limit, marked int
		want                       bool // that a Node is deleted
	}{
		{nodes: 10, gone: 2, want: true},
		{nodes: 10, gone: 3, want: true},
		{nodes: 5, gone: 3, want: true},
		{nodes: 10, gone: 9, want: true},
		{nodes: 3, gone: 2, want: true},
		{nodes: 2, gone: 2},
		{nodes: 10, gone: 10},
		{nodes: 10, gone: 10, marked: 10, want: true},
		{nodes: 10, gone: 10, limit: 100, want: true},
		{nodes: 10, gone: 10, limit: 99},
		{nodes: 10, gone: 3, limit: 50, want: true},
		{nodes: 10, gone: 5, limit: 50},
		{nodes: 10, gone: 5, limit: 50, marked: 1, want: true},
		{nodes: 10, gone: 2, limit: 1, want: true},
	} {
		t.Run(fmt.Sprintf("%d of %d, %d marked, limit %d", test.gone, test.nodes, test.marked, test.limit), func(t *testing.T) {
			t.Parallel()
			account := newAccount(t)
			var nodes []*v1.Node
			for i := range test.nodes {
				id := fmt.Sprintf("00ffffff-ffff-4fff-bfff-%012d", i)
				if i >= test.gone {
					id = account.CreateServer(t, fmt.Sprintf("n%d", i), zone)
				}
				nodes = append(nodes, node(fmt.Sprintf("n%d", i), providerid.New(id)))
				if i < test.marked {
					nodes[i].Spec.Taints = []v1.Taint{{Key: "ToBeDeletedByClusterAutoscaler"}}
				}
			}
			instances := newInstances(t, account.cloud, func(c *Config) { c.MaxMissing = test.limit })
			instances.SetNodes(lister(t, append(nodes, node("hybrid", "hcloud://1"))...))
			events := record.NewFakeRecorder(10)
			instances.Start(nil, events)
			for i, node := range nodes[:test.gone] {
				exists, err := instances.InstanceExists(t.Context(), node)
				if exists || test.want != (err == nil) {
					t.Fatalf("InstanceExists = %v, %v", exists, err)
				}
				if test.want {
					// All were asked for when the first was, so that no other needs to wait for itself.
					if asked := len(instances.vanished.denied); asked != test.gone-1-i {
						t.Errorf("%d other servers are known to be missing, want %d", asked, test.gone-1-i)
					}
					continue
				}
				_, _ = instances.InstanceExists(t.Context(), node)
				if instances.vanished.missingNow() != float64(test.gone) {
					t.Errorf("%v servers are missing by the metric", instances.vanished.missingNow())
				}
			}
			want := 0
			if !test.want {
				want = test.gone
			}
			if len(events.Events) != want {
				t.Errorf("%d events, want one for each Node that is kept", len(events.Events))
			}
			if !test.want && !strings.Contains(<-events.Events, "NodeDeletionHeldBack") {
				t.Error("the event is another one")
			}
		})
	}
}

// Autoscalers announce what they delete, and so does a drain; Cluster Autoscaler's mark of a mere candidate announces nothing.
func TestDeletionIsExpectedOfMarkedNodes(t *testing.T) {
	now := metav1.Now()
	taint := func(key string) *v1.Node {
		return &v1.Node{Spec: v1.NodeSpec{Taints: []v1.Taint{{Key: "other"}, {Key: key}}}}
	}
	for name, test := range map[string]struct {
		node *v1.Node
		want bool
	}{
		"plain":                        {&v1.Node{}, false},
		"candidate":                    {taint("DeletionCandidateOfClusterAutoscaler"), false},
		"not ready":                    {taint("node.kubernetes.io/not-ready"), false},
		"Cluster Autoscaler":           {taint("ToBeDeletedByClusterAutoscaler"), true},
		"Karpenter":                    {taint("karpenter.sh/disrupted"), true},
		"Karpenter before version 1":   {taint("karpenter.sh/disruption"), true},
		"cordoned":                     {&v1.Node{Spec: v1.NodeSpec{Unschedulable: true}}, true},
		"taint of a cordon":            {taint("node.kubernetes.io/unschedulable"), true},
		"being deleted by a finalizer": {&v1.Node{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}}, true},
	} {
		if got := deletionExpected(test.node); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// The servers of Nodes out of scope may be in another account, and prove nothing. A list that is cut short costs one question for
// each Node that is not ready, however many it lacks.
func TestOnlyNodesInScopeProveTheAccount(t *testing.T) {
	account := newAccount(t)
	outside := node("outside", providerid.New(account.CreateServer(t, "outside", zone)))
	outside.Labels = map[string]string{"cloud": "other"}
	gone := []*v1.Node{
		node("n1", "upcloud:////00ffffff-ffff-4fff-bfff-000000000001"), node("n2", "upcloud:////00ffffff-ffff-4fff-bfff-000000000002"),
	}
	instances := newInstances(t, account.cloud, func(c *Config) {
		c.Scope, _ = labels.Parse("cloud!=other")
	})
	instances.SetNodes(lister(t, append(gone, outside)...))
	if exists, err := instances.InstanceExists(t.Context(), gone[0]); exists || err == nil || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("InstanceExists = %v, %v, want an error", exists, err)
	}
}

func TestOnlyServersOfNodesThatAreNotReadyAreAskedFor(t *testing.T) {
	account := newAccount(t)
	nodes := []*v1.Node{node("listed", providerid.New(account.CreateServer(t, "listed", zone)))}
	for i := range 20 {
		n := node(fmt.Sprintf("n%d", i), fmt.Sprintf("upcloud:////00ffffff-ffff-4fff-bfff-%012d", i))
		n.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}}
		if i == 0 {
			n.Status.Conditions[0].Status = v1.ConditionUnknown
		}
		nodes = append(nodes, n)
	}
	instances := newInstances(t, account.cloud)
	instances.SetNodes(lister(t, nodes...))
	account.ResetRequests()
	if exists, err := instances.InstanceExists(t.Context(), nodes[1]); exists || err != nil {
		t.Fatalf("InstanceExists = %v, %v", exists, err)
	}
	if n := account.Requests().Of("GET /server/{uuid}"); n != 2 {
		t.Errorf("%d servers were asked for, want the one twice", n)
	}
}

// A short answer of the list costs no questions while no answer would be believed anyway.
func TestKeptNodesCostNoQuestions(t *testing.T) {
	account := newAccount(t)
	var nodes []*v1.Node
	for i := range 50 {
		nodes = append(nodes, node(fmt.Sprintf("n%d", i), providerid.New(fmt.Sprintf("00ffffff-ffff-4fff-bfff-%012d", i))))
	}
	instances := newInstances(t, account.cloud)
	instances.SetNodes(lister(t, nodes...))
	account.ResetRequests()
	for _, node := range nodes {
		if exists, err := instances.InstanceExists(t.Context(), node); exists || err == nil {
			t.Fatal(exists, err)
		}
	}
	if got := account.Requests().Operations(); !slices.Equal(got, []string{"GET /server"}) || account.Requests().Total() > 2 {
		t.Errorf("requests: %v", account.Requests())
	}
}
