package instances

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// claimantsAge is for how long the index of Nodes by server serves: many Nodes are looked at at once.
const claimantsAge = 2 * time.Second

// claimants are the Nodes by the server that they name.
type claimants struct {
	mu    sync.Mutex
	byID  map[string][]*v1.Node
	taken time.Time
}

func (v *vanished) claimantsOf(id string) []*v1.Node {
	c := &v.claimants
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.taken) >= claimantsAge {
		c.byID, c.taken = map[string][]*v1.Node{}, time.Now()
		for _, node := range v.scoped() {
			if named, err := namedServer(node); err == nil && named != "" {
				c.byID[named] = append(c.byID[named], node)
			}
		}
	}
	return c.byID[id]
}

// duplicateError says that a Node names a server that belongs to another Node.
type duplicateError struct{ text string }

func (e *duplicateError) Error() string { return e.text }

// ownServer is a duplicateError if another Node has the better claim to the server. Whoever may register a Node chooses its provider ID.
func (i *Instances) ownServer(node *v1.Node, server *cloud.Server) error {
	for _, rival := range i.vanished.claimantsOf(server.ID) {
		if rival.Name != node.Name && rival.DeletionTimestamp == nil && slices.Compare(claim(rival, server), claim(node, server)) < 0 {
			return &duplicateError{fmt.Sprintf("server %s belongs to Node %s, so this Node gets none of its addresses: if the server was renamed, delete "+
				"Node %s; otherwise delete this Node, and start its kubelet with the provider ID of its own server, or without one", server.ID,
				rival.Name, rival.Name)}
		}
	}
	return nil
}

// claim orders the Nodes that name one server; the least has it: one with the server's name before others, one that is initialized
// before others, the oldest, the first by name.
func claim(node *v1.Node, server *cloud.Server) []string {
	rank := func(bad bool) string {
		if bad {
			return "1"
		}
		return "0"
	}
	return []string{
		rank(!strings.EqualFold(node.Name, server.Hostname) && node.Name != server.Title), rank(initializing(node)),
		node.CreationTimestamp.UTC().Format(time.RFC3339), node.Name,
	}
}
