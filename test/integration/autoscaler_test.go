package integration

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Cluster Autoscaler taints Nodes, evicts their Pods, deletes up to ten servers at once, and leaves the Nodes to the CCM. Whatever
// share of the cluster that is, the Nodes go; the last ones too, for which no server of the cluster proves the account.
func TestClusterAutoscalerScalesDown(t *testing.T) {
	t.Parallel()
	c := started(t)
	nodes := c.members("scale", 10)
	for _, step := range []struct {
		count int
		mark  bool
	}{{5, true}, {3, false}, {2, true}} { // 5 of 10 by the autoscaler, 3 of 5 in the control panel, and 2 of 2
		leaving := nodes[:step.count]
		nodes = nodes[step.count:]
		if step.mark {
			for _, name := range leaving {
				c.patchNode(name, `{"spec":{"taints":[{"key":"ToBeDeletedByClusterAutoscaler","value":"1","effect":"NoSchedule"}]}}`)
			}
		}
		c.lose(leaving...)
		for _, name := range leaving {
			c.gone(name)
		}
		for _, name := range nodes {
			if !c.exists(name) {
				t.Errorf("%s is gone, though its server is there", name)
			}
		}
	}
}

// Without any sign that the Nodes were to go, and with no other server of the cluster in the list, the credentials may be another
// account's: the Nodes stay, and an event says so. A cordon, as before a drain, lets them go.
func TestNodesStayWhereNothingProvesTheAccount(t *testing.T) {
	t.Parallel()
	c := started(t)
	nodes := c.members("unproved", 3)
	c.lose(nodes...)
	c.eventuallyEvent(nodes[0], "NodeDeletionHeldBack", "credentials")
	c.always("no Node is deleted", "GET /server", 3, func() string {
		for _, name := range nodes {
			if !c.exists(name) {
				return name + " is gone"
			}
		}
		return ""
	})
	metrics := c.metrics()
	for _, want := range []string{"upcloud_node_servers_missing 3", "upcloud_node_deletions_held_back_total "} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
	for _, name := range nodes {
		c.patchNode(name, `{"spec":{"unschedulable":true}}`)
	}
	for _, name := range nodes {
		c.gone(name)
	}
}

// Karpenter holds its Nodes with a finalizer until it has deleted their servers. It deletes the Node first when it consolidates; the
// CCM does when a server vanishes by itself. Either way the Node goes with the finalizer, and the others are not held up.
func TestKarpenterRemovesNodes(t *testing.T) {
	t.Parallel()
	c := started(t)
	nodes := c.members("karpenter", 5)
	const finalizer = "karpenter.sh/termination"
	for _, name := range nodes {
		c.patchNode(name, fmt.Sprintf(`{"metadata":{"finalizers":[%q]}}`, finalizer))
	}
	release := func(name string) { c.patchNode(name, `{"metadata":{"finalizers":null}}`) }

	consolidated := nodes[:2]
	for _, name := range consolidated {
		if err := client.CoreV1().Nodes().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		c.patchNode(name, `{"spec":{"taints":[{"key":"karpenter.sh/disrupted","effect":"NoSchedule"}]}}`)
	}
	c.lose(consolidated...)
	vanished := nodes[2:4]
	c.lose(vanished...)
	for _, name := range vanished {
		c.eventually("the CCM deletes the Node of a server that vanished", func() string {
			if c.node(name).DeletionTimestamp == nil {
				return name + " is not being deleted"
			}
			return ""
		})
	}
	for _, name := range nodes[:4] {
		if !c.exists(name) {
			t.Errorf("%s is gone before Karpenter released it", name)
		}
		release(name)
	}
	for _, name := range nodes[:4] {
		c.gone(name)
	}
	if last := c.node(nodes[4]); last.DeletionTimestamp != nil {
		t.Errorf("%s is being deleted, though its server is there", last.Name)
	}
	release(nodes[4])
}

// members makes servers and their initialized Nodes.
func (c *cluster) members(prefix string, count int) (names []string) {
	c.t.Helper()
	for i := range count {
		name := fmt.Sprintf("%s-%d", prefix, i)
		node := c.newNode(name)
		node.Spec.ProviderID = "upcloud:////" + c.CreateServer(c.t, name, zone)
		c.register(node)
		names = append(names, name)
	}
	c.initialized(names...)
	return names
}

// lose deletes the servers of Nodes, whose kubelets are silent from then on.
func (c *cluster) lose(names ...string) {
	c.t.Helper()
	for _, name := range names {
		if err := c.RemoveServer(c.node(name).Spec.ProviderID[len("upcloud:////"):]); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, name := range names {
		c.setReady(name, v1.ConditionUnknown)
	}
}

func (c *cluster) patchNode(name, patch string) {
	c.t.Helper()
	if _, err := client.CoreV1().Nodes().Patch(c.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		c.t.Fatal(err)
	}
}
