// Package instances tells Kubernetes about the servers behind its Nodes: whether they exist and run, and their addresses,
// zone and plan. It implements cloudprovider.InstancesV2 and knows nothing of how the API is called.
//
// Its first rule: a Node is deleted at once when InstanceExists answers false, and a kubelet does not register again
// until it restarts. So false is said only after the API itself said "not found" to that very server's UUID; everything
// that is in doubt is an error, which changes nothing.
package instances

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// AnnotationServerID names a Node's server before the Node has a provider ID. Cluster API's provider for UpCloud sets it.
const AnnotationServerID = "infrastructure.cluster.x-k8s.io/upcloud-vm-uuid"

// Instances implements cloudprovider.InstancesV2.
type Instances struct {
	cloud *cloud.Cloud
	scope labels.Selector
}

var _ cloudprovider.InstancesV2 = (*Instances)(nil)

// New returns the Instances of an account. Nodes that scope does not select are left alone: they exist, run, and are
// initialized by somebody else. A nil scope selects every node.
func New(c *cloud.Cloud, scope labels.Selector) *Instances {
	if scope == nil {
		scope = labels.Everything()
	}
	return &Instances{cloud: c, scope: scope}
}

// errNotOurs says that a node is out of scope, or belongs to another cloud.
var errNotOurs = errors.New("not a node of this cloud")

// InstanceExists says whether the node's server exists. See the package's first rule.
func (i *Instances) InstanceExists(ctx context.Context, node *v1.Node) (bool, error) {
	_, err := i.server(ctx, node)
	switch {
	case errors.Is(err, errNotOurs):
		return true, nil
	case errors.Is(err, cloud.ErrNotFound):
		klog.FromContext(ctx).Info("Server is gone", "node", node.Name, "providerID", node.Spec.ProviderID)
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}

// InstanceShutdown says whether the node's server is stopped. One in maintenance or error is not: its disks may still be
// in use.
func (i *Instances) InstanceShutdown(ctx context.Context, node *v1.Node) (bool, error) {
	server, err := i.server(ctx, node)
	if errors.Is(err, errNotOurs) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return server.State == "stopped", nil
}

// InstanceMetadata returns what Kubernetes writes into the Node.
func (i *Instances) InstanceMetadata(ctx context.Context, node *v1.Node) (*cloudprovider.InstanceMetadata, error) {
	server, err := i.server(ctx, node)
	if errors.Is(err, errNotOurs) {
		return notOursMetadata(node), nil
	}
	if err != nil {
		return nil, err
	}
	addresses, err := i.addresses(ctx, node, server)
	if err != nil {
		return nil, err
	}
	return &cloudprovider.InstanceMetadata{
		ProviderID:    providerid.New(server.ID),
		InstanceType:  server.Plan,
		NodeAddresses: addresses,
		Zone:          server.Zone,
		Region:        server.Zone, // UpCloud has nothing above the zone
	}, nil
}

// addresses are the Node's. They come from lists, of which one that lags or shows less than there is must not take away an
// address that the Node has: that is done on the server's own word only.
func (i *Instances) addresses(ctx context.Context, node *v1.Node, server *cloud.Server) ([]v1.NodeAddress, error) {
	found, err := i.cloud.ServerAddresses(ctx, server)
	if err != nil {
		return nil, err
	}
	addresses, err := nodeAddresses(node, found)
	if err == nil && !loses(node, addresses) {
		return addresses, nil
	}
	detailed, err := i.cloud.Server(ctx, server.ID)
	if err != nil {
		return nil, err
	}
	if addresses, err = nodeAddresses(node, detailed.Addresses); err != nil {
		return nil, fmt.Errorf("server %s: %w", server.ID, err)
	}
	return addresses, nil
}

// notOursMetadata is what the node controller takes as "leave it alone": nothing for a node that waits for its
// initialization, and for others, where it does not expect nothing, no more than they have.
func notOursMetadata(node *v1.Node) *cloudprovider.InstanceMetadata {
	for _, taint := range node.Spec.Taints {
		if taint.Key == "node.cloudprovider.kubernetes.io/uninitialized" {
			return nil
		}
	}
	return &cloudprovider.InstanceMetadata{ProviderID: node.Spec.ProviderID}
}

// NodeAddresses returns the addresses that the node has or is about to get, for whoever cannot wait until they are in its
// status.
func (i *Instances) NodeAddresses(ctx context.Context, node *v1.Node) ([]v1.NodeAddress, error) {
	metadata, err := i.InstanceMetadata(ctx, node)
	if err != nil || metadata == nil {
		return nil, err
	}
	return metadata.NodeAddresses, nil
}

// server finds the node's server: by provider ID, else by annotation, else by name. Only the first two can end with
// cloud.ErrNotFound, because only they name one server.
func (i *Instances) server(ctx context.Context, node *v1.Node) (*cloud.Server, error) {
	if !i.scope.Matches(labels.Set(node.Labels)) {
		return nil, errNotOurs
	}
	if node.Spec.ProviderID != "" {
		id, err := providerid.Parse(node.Spec.ProviderID)
		var foreign *providerid.ForeignError
		if errors.As(err, &foreign) {
			return nil, errNotOurs
		}
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", node.Name, err)
		}
		return i.serverByID(ctx, id)
	}
	if annotation := node.Annotations[AnnotationServerID]; annotation != "" {
		id, err := uuid.Parse(annotation)
		if err != nil {
			return nil, fmt.Errorf("node %s: annotation %s=%q: want the server's UUID", node.Name, AnnotationServerID, annotation)
		}
		return i.serverByID(ctx, id.String())
	}
	return i.serverByName(ctx, node.Name)
}

// serverByID answers from the shared list where it can; what that lacks is asked of the API by its UUID.
func (i *Instances) serverByID(ctx context.Context, id string) (*cloud.Server, error) {
	set, err := i.cloud.Servers(ctx)
	if err != nil {
		return nil, err
	}
	if server, ok := set.Server(id); ok {
		return server, nil
	}
	set, err = i.cloud.ServersSince(ctx, set.Taken.Add(time.Nanosecond))
	if err != nil {
		return nil, err
	}
	if server, ok := set.Server(id); ok {
		return server, nil
	}
	return i.cloud.Server(ctx, id)
}

// serverByName finds the one server whose host name or title is the node's name. The provider ID that follows from it can
// never be changed, so two candidates are no match, and neither is a part of a name.
func (i *Instances) serverByName(ctx context.Context, name string) (*cloud.Server, error) {
	set, err := i.cloud.Servers(ctx)
	if err != nil {
		return nil, err
	}
	named := set.Named(name)
	if len(named) == 0 {
		if set, err = i.cloud.ServersSince(ctx, set.Taken.Add(time.Nanosecond)); err != nil {
			return nil, err
		}
		named = set.Named(name)
	}
	switch len(named) {
	case 1:
		return named[0], nil
	case 0:
		return nil, fmt.Errorf("node %s: no server of the account has this host name or title: rename the server, or start "+
			"the kubelet with --provider-id=%s", name, providerid.New("SERVER_UUID"))
	}
	var candidates []string
	for _, server := range named {
		candidates = append(candidates, server.ID+" in "+server.Zone)
	}
	return nil, fmt.Errorf("node %s: %d servers have this host name or title (%s): rename all but one, or start the kubelet "+
		"with --provider-id=%s", name, len(named), strings.Join(candidates, ", "), providerid.New("SERVER_UUID"))
}
