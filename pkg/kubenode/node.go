package kubenode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Node is the part of a Node that the plugin acts on.
type Node struct {
	Metadata struct {
		UID string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		// Taints are kept as they came: a change must leave the others as they are, fields that are unknown here too.
		Taints []json.RawMessage `json:"taints"`
	} `json:"spec"`
	Status struct {
		VolumesAttached []struct {
			Name string `json:"name"`
		} `json:"volumesAttached"`
	} `json:"status"`
}

// Volumes returns the IDs of the driver's volumes that Kubernetes has attached to the Node.
func (n *Node) Volumes(driver string) []string {
	var ids []string
	for _, volume := range n.Status.VolumesAttached {
		// As k8s.io/kubernetes/pkg/volume/util.GetUniqueVolumeName has it for CSI.
		if id, ok := strings.CutPrefix(volume.Name, "kubernetes.io/csi/"+driver+"^"); ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// Tainted tells whether the Node has a taint of that key, whatever its value and effect.
func (n *Node) Tainted(key string) bool {
	return slices.ContainsFunc(n.Spec.Taints, func(taint json.RawMessage) bool { return taintKey(taint) == key })
}

func taintKey(taint json.RawMessage) string {
	var fields struct {
		Key string `json:"key"`
	}
	if json.Unmarshal(taint, &fields) != nil {
		return ""
	}
	return fields.Key
}

// RemoveTaint takes the taints of that key off the Node as it was read. ErrConflict when its taints have changed since:
// read it again.
func (c *Client) RemoveTaint(ctx context.Context, node *Node, key string) error {
	if !node.Tainted(key) {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(taint json.RawMessage) bool { return taintKey(taint) == key })
	const path = "/spec/taints"
	// The list is one value to the API server: the test keeps from undoing what somebody else did to it meanwhile.
	patch := []map[string]any{{"op": "test", "path": path, "value": node.Spec.Taints}}
	if len(left) == 0 {
		patch = append(patch, map[string]any{"op": "remove", "path": path})
	} else {
		patch = append(patch, map[string]any{"op": "replace", "path": path, "value": left})
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	var after Node
	return c.do(ctx, http.MethodPatch, c.nodePath(), "application/json-patch+json", body, &after)
}

// Registered is nil when the kubelet of the Node has taken the driver up, under this node ID and with the number of
// volumes it can have. A CSINode that an earlier Node of the same name left behind does not count.
func (c *Client) Registered(ctx context.Context, node *Node, driver, nodeID string) error {
	var csiNode struct {
		Metadata struct {
			OwnerReferences []struct {
				UID string `json:"uid"`
			} `json:"ownerReferences"`
		} `json:"metadata"`
		Spec struct {
			Drivers []struct {
				Name        string `json:"name"`
				NodeID      string `json:"nodeID"`
				Allocatable struct {
					Count *int32 `json:"count"`
				} `json:"allocatable"`
			} `json:"drivers"`
		} `json:"spec"`
	}
	err := c.do(ctx, http.MethodGet, "/apis/storage.k8s.io/v1/csinodes/"+c.name, "", nil, &csiNode)
	if errors.Is(err, ErrNotFound) {
		return fmt.Errorf("there is no CSINode %s yet: its kubelet has not registered the driver", c.name)
	}
	if err != nil {
		return err
	}
	for _, owner := range csiNode.Metadata.OwnerReferences {
		if owner.UID != node.Metadata.UID {
			return fmt.Errorf("the CSINode %s is of an earlier Node of that name", c.name)
		}
	}
	for _, entry := range csiNode.Spec.Drivers {
		switch {
		case entry.Name != driver:
		case entry.NodeID != nodeID:
			return fmt.Errorf("the CSINode %s has the driver under the node ID %s, which is %s here", c.name, entry.NodeID, nodeID)
		case entry.Allocatable.Count == nil:
			return fmt.Errorf("the CSINode %s does not tell yet how many volumes the node can have", c.name)
		default:
			return nil
		}
	}
	return fmt.Errorf("the CSINode %s does not have the driver yet: its kubelet has not registered it", c.name)
}
