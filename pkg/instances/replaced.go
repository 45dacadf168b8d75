package instances

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// errNotReplaced says that no server is known to have taken the place of a Node's.
var errNotReplaced = errors.New("no server took its place")

// replacements remembers which Nodes' servers were proved to be gone and followed by others. A UUID is never used again, so that is
// looked at in the list of servers alone from then on.
type replacements struct {
	mu     sync.Mutex
	proved map[replaced]string // the new server's UUID
}

type replaced struct {
	node types.UID
	name string
	id   string // of the server that is gone
}

func (r *replacements) get(key replaced) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proved[key]
}

func (r *replacements) put(key replaced, successor string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proved == nil || len(r.proved) > 10_000 { // what is forgotten is proved again
		r.proved = map[replaced]string{}
	}
	r.proved[key] = successor
}

// replacement finds the server that took the place of a Node's: the Node's own is gone, and another one has its name. A kubelet that
// started there goes on with the Node that it finds, whose provider ID cannot be changed. So the Node is not deleted, as kubelets that
// run do not register again: it gets the new server's addresses and labels, and an event with the way out. Errors: errNotReplaced.
//
// That a server is gone is proved as it is for a deletion. Where nothing proves the account, there is only the event.
func (i *Instances) replacement(ctx context.Context, node *v1.Node) (*cloud.Server, error) {
	id, err := namedServer(node)
	if err != nil || id == "" {
		return nil, errors.Join(errNotReplaced, err)
	}
	set, err := i.cloud.ServersSince(ctx, time.Now().Add(-nameAge))
	if err != nil {
		return nil, err
	}
	if _, listed := set.Server(id); listed {
		return nil, errNotReplaced
	}
	successor, reported := i.successor(set, node, id)
	if successor == nil {
		return nil, errNotReplaced
	}
	key := replaced{node.UID, node.Name, id}
	if i.replacements.get(key) != successor.ID {
		if gone, err := i.vanished.deniedTwice(ctx, id, nil); err != nil || !gone {
			return nil, errors.Join(errNotReplaced, err)
		}
		if !reported && !i.vanished.census(set, node, id).provesAccount() {
			i.events.warn(node, ReasonReplaced, fmt.Sprintf("Server %s of this Node does not exist, and server %s has its name, but nothing proves that the "+
				"credentials are those of the Node's account, so the Node's addresses stay as they are. If the server was replaced, %s", id, successor.ID,
				wayOut(node, successor)))
			return nil, errNotReplaced
		}
		i.replacements.put(key, successor.ID)
	}
	i.events.warn(node, ReasonReplaced, fmt.Sprintf("Server %s of this Node was deleted, and server %s has its name: the Node has the addresses and labels of "+
		"the new server, but spec.providerID cannot be changed. To correct it, %s", id, successor.ID, wayOut(node, successor)))
	return successor, nil
}

func wayOut(node *v1.Node, successor *cloud.Server) string {
	return fmt.Sprintf("drain the node, run kubectl delete node %s, and restart its kubelet, which registers it with provider ID %s",
		node.Name, providerid.New(successor.ID))
}

// successor is the only server with the Node's name, unless another Node has it, or the Node's kubelet runs on another server, by the
// system UUID that it reports. reported says that this is the server's.
func (i *Instances) successor(set *cloud.ServerSet, node *v1.Node, id string) (_ *cloud.Server, reported bool) {
	candidates := set.Named(node.Name)
	if len(candidates) != 1 || candidates[0].ID == id {
		return nil, false
	}
	if server := reportedServer(set, node); server != nil {
		if server.ID != candidates[0].ID {
			return nil, false
		}
		reported = true
	}
	if len(i.vanished.claimantsOf(candidates[0].ID)) > 0 {
		return nil, false
	}
	return candidates[0], reported
}
