package instances

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// fewMissing is how many servers may be missing at once whatever Config.MaxMissing is.
const fewMissing = 2

// deletionTaints are the keys of the taints that a program puts on a Node before it deletes the server: Cluster Autoscaler, and
// Karpenter's current and earlier versions.
var deletionTaints = []string{"ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"}

// deletionExpected says that the Node is announced to go: it is being deleted, an autoscaler marked it, or it is cordoned, as before
// a drain.
func deletionExpected(node *v1.Node) bool {
	return node.DeletionTimestamp != nil || node.Spec.Unschedulable || slices.ContainsFunc(node.Spec.Taints, func(taint v1.Taint) bool {
		return taint.Key == v1.TaintNodeUnschedulable || slices.Contains(deletionTaints, taint.Key)
	})
}

// census is what one list of servers has of the servers of the cluster's Nodes.
type census struct {
	nodes      int      // that name a server
	listed     int      // whose server is in the list
	missing    int      // whose server is not
	unexpected int      // of the missing, without a sign that the Node goes
	notReady   []string // missing servers of other Nodes that are not ready
}

// provesAccount says that the list is that of the account in which the Nodes' servers are: no two accounts have the UUID of a
// server in common.
func (c census) provesAccount() bool { return c.listed > 0 }

// keep counts, and returns an error if the Node must be kept although the list lacks its server.
func (v *vanished) keep(ctx context.Context, node *v1.Node, id string, age time.Duration) (census, error) {
	set, err := v.instances.cloud.ServersSince(ctx, time.Now().Add(-age))
	if err != nil {
		return census{}, err
	}
	if _, listed := set.Server(id); listed {
		return census{}, fmt.Errorf("node %s: the API lists server %s after all", node.Name, id)
	}
	found := v.census(set, node, id)
	v.mu.Lock()
	v.missing, v.counted = found.missing, time.Now()
	v.mu.Unlock()
	why := found.whyKeep(node, v.instances.config.MaxMissing)
	if why == "" {
		return found, nil
	}
	v.heldBack.Inc()
	message := fmt.Sprintf("The UpCloud API does not list server %s, but the Node is kept: %s", id, why)
	v.instances.events.warn(node, ReasonHeldBack, message)
	return census{}, fmt.Errorf("node %s: %s", node.Name, message)
}

// whyKeep is empty if nothing speaks against deleting the Node. A limit is Config.MaxMissing.
func (c census) whyKeep(node *v1.Node, limit int) string {
	switch {
	case limit >= 100 || deletionExpected(node):
		return ""
	case !c.provesAccount() && (c.missing > 1 || initializing(node)):
		return fmt.Sprintf("none of the servers of this cluster's %d Nodes is in the list, so the credentials may be those of another "+
			"account; check the credentials, and if the server was deleted, delete the Node with kubectl delete node %s", c.nodes, node.Name)
	case limit > 0 && c.unexpected > fewMissing && c.unexpected*100 >= limit*c.nodes:
		return fmt.Sprintf("the servers of %d of %d Nodes are missing at once, and data.maxMissingServersPercent is %d; if the servers were "+
			"deleted, delete the Nodes with kubectl delete node, or raise the limit", c.unexpected, c.nodes, limit)
	}
	return ""
}

// census counts the servers of all Nodes in scope that name theirs. The Node's own server, which the list lacks, is one of them.
func (v *vanished) census(set *cloud.ServerSet, node *v1.Node, id string) census {
	found := census{nodes: 1, missing: 1}
	if !deletionExpected(node) {
		found.unexpected++
	}
	for _, other := range v.scoped() {
		named, err := namedServer(other)
		if err != nil || named == "" || named == id {
			continue
		}
		found.nodes++
		if _, listed := set.Server(named); listed {
			found.listed++
			continue
		}
		found.missing++
		if !deletionExpected(other) {
			found.unexpected++
		}
		if !ready(other) {
			found.notReady = append(found.notReady, named)
		}
	}
	return found
}

// scoped are the Nodes that are looked after. Others may have their servers in another account, and prove nothing.
func (v *vanished) scoped() []*v1.Node {
	if v.nodes == nil {
		return nil
	}
	nodes, err := v.nodes.List(labels.Everything())
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(nodes, func(node *v1.Node) bool {
		return !v.instances.config.Scope.Matches(labels.Set(node.Labels))
	})
}

// readiness is the status of the Node's condition Ready: Unknown where its kubelet is silent.
func readiness(node *v1.Node) v1.ConditionStatus {
	for _, condition := range node.Status.Conditions {
		if condition.Type == v1.NodeReady {
			return condition.Status
		}
	}
	return v1.ConditionUnknown
}

func ready(node *v1.Node) bool { return readiness(node) == v1.ConditionTrue }
