package routes

import (
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// watch notices which Nodes are alive in this cluster: their kubelets report to this API server. A cluster that was restored from
// another's etcd has the other's Nodes, too, with the servers that they have over there; a kubelet reports to one API server only.
type watch struct {
	since time.Time // when the process began
	mu    sync.Mutex
	begun bool
	nodes map[nodeKey]watched
}

type nodeKey struct {
	name string
	uid  types.UID
}

func keyOf(node *v1.Node) nodeKey { return nodeKey{node.Name, node.UID} }

type watched struct {
	heartbeat metav1.Time
	live      bool
}

// joinAge is for how long after a Node was created its kubelet's first report may come.
const joinAge = time.Minute

// look compares the Nodes with those of the look before. Those that were created since the process began, and whose kubelets have not
// reported for longer than it takes to join, are alive, and so are those whose kubelets have reported since the first look. A Node that
// appears with later reports came from another cluster's etcd, that was restored while this process ran.
func (w *watch) look(nodes []*v1.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := make(map[nodeKey]watched, len(nodes))
	for _, node := range nodes {
		now := heartbeat(node)
		was, known := w.nodes[keyOf(node)]
		reported := known && !was.heartbeat.IsZero() && now.After(was.heartbeat.Time)
		created := w.begun && !known || !node.CreationTimestamp.Time.Before(w.since.Truncate(time.Second))
		created = created && !now.After(node.CreationTimestamp.Add(joinAge))
		seen[keyOf(node)] = watched{heartbeat: now, live: was.live || reported || created}
	}
	w.begun, w.nodes = true, seen
}

// live says that the Node's kubelet was seen to report to this cluster.
func (w *watch) live(node *v1.Node) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[keyOf(node)].live
}

// heartbeat is when the kubelet reported last, as it wrote itself. Kubernetes' node lifecycle controller changes the condition, but not
// this time, when a kubelet is silent.
func heartbeat(node *v1.Node) metav1.Time {
	i := slices.IndexFunc(node.Status.Conditions, func(c v1.NodeCondition) bool { return c.Type == v1.NodeReady })
	if i < 0 {
		return metav1.Time{}
	}
	return node.Status.Conditions[i].LastHeartbeatTime
}
