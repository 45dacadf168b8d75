package routes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// report makes the kubelets of these nodes report, as they do every five minutes and when something changes.
func (c *cluster) report(names ...string) {
	c.t.Helper()
	for _, name := range names {
		object, _, _ := c.nodes.GetByKey(name)
		node := object.(*v1.Node).DeepCopy()
		at := metav1.NewTime(heartbeat(node).Add(time.Minute))
		node.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue, LastHeartbeatTime: at}}
		c.setNode(node)
	}
}

// startAgain is a CCM that has just been started in a cluster with these nodes, and knows nothing of them.
func (r *rig) startAgain(change func(*Config), nodes ...*v1.Node) *cluster {
	r.t.Helper()
	c := r.newCluster(r.URL, change).impatient()
	c.watch.begun = false
	for _, node := range nodes {
		node = node.DeepCopy()
		node.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue,
			LastHeartbeatTime: metav1.NewTime(time.Unix(1_700_000_000, 0))}}
		c.setNode(node)
	}
	return c
}

func named(cluster string) func(*Config) { return func(c *Config) { c.ClusterID = cluster } }

// A cluster that was restored from another's etcd, without the other's servers: it has the other's Nodes and its identity, and keeps its
// hands off the other's routes, whether its operator deletes those Nodes or makes them again on servers of his own.
func TestCopyOfAClusterLeavesItsRoutesAlone(t *testing.T) {
	for _, id := range []string{"original", "another"} {
		t.Run("the copy is called "+id, func(t *testing.T) {
			r := newRig(t, simulator.Config{})
			original := r.newCluster(r.URL, named("original")).impatient()
			a, b := original.addNode("a", "10.244.0.0/24"), original.addNode("b", "10.244.1.0/24")
			original.settle()
			good := r.leads()

			restored := r.startAgain(named(id), a, b)
			if changes, err := restored.pass(t.Context()); changes > 0 || err != nil {
				t.Errorf("%d changes by a copy that has just started, %v", changes, err)
			}
			if err := restored.nodes.Delete(a); err != nil {
				t.Fatal(err)
			}
			restored.settle()
			if got := r.leads(); got != good {
				t.Fatalf("routes %s after a Node was deleted in the copy, want %s", got, good)
			}
			again := restored.addNode("a", "10.244.0.0/24") // on a server of its own
			restored.list()
			var conflict *ConflictError
			if err := restored.create(again); !errors.As(err, &conflict) {
				t.Errorf("error %v, want a conflict", err)
			}
			restored.mustHaveEvent(ReasonConflict, internalIP(a))
			if got := r.leads(); got != good {
				t.Errorf("routes %s after the Node was made again in the copy, want %s", got, good)
			}

			// What the copy makes for itself is its own, and none of the original's.
			c := restored.addNode("c", "10.244.7.0/24")
			restored.mustCreate(c)
			original.settle()
			if got, want := r.leads(), good+" 10.244.7.0/24>"+internalIP(c); got != want {
				t.Errorf("routes %s, want %s", got, want)
			}
		})
	}
}

// The same where etcd is restored under a CCM that runs: the original's Nodes appear as if they had just joined.
func TestCopyThatAppearsUnderARunningCCM(t *testing.T) {
	for name, started := range map[string]time.Duration{"begun before the Nodes were made": 2 * time.Hour, "begun after": 0} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, simulator.Config{})
			original := r.newCluster(r.URL, named("original")).impatient()
			a, b := original.addNode("a", "10.244.0.0/24"), original.addNode("b", "10.244.1.0/24")
			original.settle()
			good := r.leads()

			running := r.newCluster(r.URL, named("original")).impatient()
			running.watch.since = running.watch.since.Add(-started)
			for _, node := range []*v1.Node{a, b} {
				node = node.DeepCopy()
				node.CreationTimestamp = metav1.NewTime(time.Now().Add(-time.Hour))
				node.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, LastHeartbeatTime: metav1.NewTime(time.Now().Add(-10 * time.Minute))}}
				running.setNode(node)
			}
			running.settle()
			if err := running.nodes.Delete(a); err != nil {
				t.Fatal(err)
			}
			running.settle()
			if got := r.leads(); got != good {
				t.Errorf("routes %s after a Node was deleted in the copy, want %s", got, good)
			}
		})
	}
}

// kubeadm reset and init on the same servers: the routes of the former cluster lead to servers that are Nodes of this one now. They give
// way as soon as the kubelets have reported.
func TestClusterRebuiltOnItsServersTakesOverRoutes(t *testing.T) {
	r := newRig(t, simulator.Config{})
	former := r.newCluster(r.URL, named("former")).impatient()
	a, b, away := former.addNode("a", "10.244.0.0/24"), former.addNode("b", "10.244.1.0/24"), former.addNode("away", "10.244.3.0/24")
	c := former.addNode("c", "10.244.2.0/25")
	former.settle()
	former.Close()

	a.Spec.PodCIDRs, b.Spec.PodCIDRs, c.Spec.PodCIDRs = []string{"10.244.1.0/24"}, []string{"10.244.0.0/24"}, []string{"10.244.2.0/24"}
	rebuilt := r.startAgain(named("rebuilt"), a, b, c)
	rebuilt.list()
	var conflict *ConflictError
	if err := rebuilt.create(a); !errors.As(err, &conflict) {
		t.Errorf("before the kubelets reported: error %v, want a conflict", err)
	}
	rebuilt.report("a", "b", "c")
	rebuilt.settle()
	want := fmt.Sprintf("10.244.0.0/24>%s 10.244.1.0/24>%s 10.244.2.0/24>%s 10.244.3.0/24>%s", internalIP(b), internalIP(a), internalIP(c), internalIP(away))
	if got := r.leads(); got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
	if own := len(rebuilt.list()); own != 3 {
		t.Errorf("%d routes are listed, want 3", own)
	}
}

// The same Pod CIDRs on the same servers: the former cluster's routes do at once, and get this cluster's name later.
func TestIdenticalRoutesOfAFormerClusterAreAdopted(t *testing.T) {
	r := newRig(t, simulator.Config{})
	former := r.newCluster(r.URL, named("former")).impatient()
	a := former.addNode("a", "10.244.0.0/24")
	former.settle()
	good := r.leads()
	rebuilt := r.startAgain(named("rebuilt"), a)
	r.ResetRequests()
	rebuilt.settle()
	if n := r.Requests().Of("PATCH /router/{uuid}"); n != 0 {
		t.Errorf("%d writes, want none", n)
	}
	rebuilt.report("a")
	rebuilt.settle()
	owner, _ := rebuilt.ownerOf(t.Context())
	if raw := r.raw(); r.leads() != good || !strings.Contains(raw[0], string(owner)) {
		t.Errorf("routes %s, want the same with this cluster's name", raw)
	}
	_ = rebuilt.nodes.Delete(a)
	rebuilt.settle()
	if got := r.leads(); got != "" {
		t.Errorf("left: %s", got)
	}
}

// A route that a person made to the node itself does as well as one of the CCM, and stays when the node leaves.
func TestIdenticalRouteMadeByHandSatisfiesTheNode(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	a := c.addNode("a", "10.244.0.0/24")
	byHand := fmt.Sprintf(`{"name":"by hand","nexthop":%q,"route":"10.244.0.0/24"}`, internalIP(a))
	r.put(byHand)
	r.ResetRequests()
	c.mustCreate(a)
	listed := c.list()
	if len(listed) != 1 || listed[0].TargetNode != "a" {
		t.Fatalf("listed: %+v", listed)
	}
	if err := c.DeleteRoute(t.Context(), "", listed[0]); err == nil {
		t.Error("it can be deleted")
	}
	_ = c.nodes.Delete(a)
	c.settle()
	if raw := r.raw(); !slices.Equal(raw, []string{byHand}) || r.Requests().Of("PATCH /router/{uuid}") > 0 {
		t.Errorf("routes %s after %v", raw, r.Requests())
	}
	if events := c.allEvents(); len(events) > 0 {
		t.Errorf("events %q", events)
	}
}

// A CCM that was down while Nodes left: the routes of servers that are gone go; one that leads to a server that is still there may be
// another cluster's, and stays.
func TestRoutesOfNodesThatLeftMeanwhile(t *testing.T) {
	r := newRig(t, simulator.Config{})
	before := r.newCluster(r.URL, named("prod")).impatient()
	a, deleted, kept := before.addNode("a", "10.244.0.0/24"), before.addNode("deleted", "10.244.1.0/24"), before.addNode("kept", "10.244.2.0/24")
	before.settle()
	before.Close()
	if err := r.RemoveServer(strings.TrimPrefix(deleted.Spec.ProviderID, "upcloud:////")); err != nil {
		t.Fatal(err)
	}
	after := r.startAgain(named("prod"), a)
	after.settle()
	if got, want := r.leads(), fmt.Sprintf("10.244.0.0/24>%s 10.244.2.0/24>%s", internalIP(a), internalIP(kept)); got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
}

// Nodes that were there when the CCM started are alive once their kubelets report; those that join later are from the beginning.
func TestNodesAreAliveWhenTheirKubeletsReport(t *testing.T) {
	node := func(name string, minutes int) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1.NodeStatus{Conditions: []v1.NodeCondition{
			{Type: v1.NodeReady, LastHeartbeatTime: metav1.NewTime(time.Unix(1_700_000_000, 0).Add(time.Duration(minutes) * time.Minute))}}}}
	}
	w := watch{since: time.Unix(1_800_000_000, 0)}
	w.look([]*v1.Node{node("silent", 0), node("reports", 0)})
	joins, restored := node("joins", 0), node("restored", 60)
	joins.CreationTimestamp = metav1.NewTime(time.Unix(1_700_000_000, 0)) // the API server's clock may be another
	restored.CreationTimestamp = joins.CreationTimestamp
	w.look([]*v1.Node{node("silent", 0), node("reports", 5), joins, restored})
	w.look([]*v1.Node{node("silent", 0), node("reports", 5), joins, restored})
	created := node("created", 0)
	created.CreationTimestamp = metav1.NewTime(w.since)
	again := watch{since: w.since} // and the first look comes later
	again.look([]*v1.Node{created, node("silent", 0)})
	if !again.live(created) || again.live(node("silent", 0)) {
		t.Error("a Node that was created since the process began is not alive, or one that was there before is")
	}
	for name, want := range map[string]bool{"silent": false, "reports": true, "joins": true, "unknown": false, "restored": false} {
		if got := w.live(node(name, 0)); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}
