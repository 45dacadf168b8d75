package instances

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// AnnotationServerID names a Node's server before the Node has a provider ID. Cluster API's provider for UpCloud sets it.
const AnnotationServerID = "infrastructure.cluster.x-k8s.io/upcloud-vm-uuid"

const (
	// metadataAge is how old the list of servers may be for Nodes that are initialized already.
	metadataAge = 30 * time.Second
	// nameAge is how old the list may be when a name decides: a second server of that name must not be overlooked.
	nameAge = 2 * time.Second
)

// errNotListed says that a node's server is known by its UUID, and not in the list of all servers. That does not tell
// whether it exists.
var errNotListed = errors.New("not in the list of servers")

// listed finds the node's server in the list of all servers, which many nodes share. Errors: errNotOurs, errNotListed.
func (i *Instances) listed(ctx context.Context, node *v1.Node, age time.Duration) (*cloud.Server, error) {
	id, err := i.serverID(ctx, node)
	if err != nil {
		return nil, err
	}
	set, err := i.cloud.ServersSince(ctx, time.Now().Add(-age))
	if err != nil {
		return nil, err
	}
	server, ok := set.Server(id)
	if !ok {
		return nil, errNotListed
	}
	i.vanished.found(id)
	return server, nil
}

// own asks the node's server itself. Errors: errNotOurs; cloud.ErrNotFound, which is the API's word on that very server.
func (i *Instances) own(ctx context.Context, node *v1.Node, age time.Duration) (*cloud.Server, error) {
	id, err := i.serverID(ctx, node)
	if err != nil {
		return nil, err
	}
	server, err := i.cloud.ServerSince(ctx, id, time.Now().Add(-age))
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node.Name, err)
	}
	return server, nil
}

// serverID finds out which server a node is: by provider ID, else by annotation, else by the system UUID that its kubelet reports, else by
// exactly its name, else by exactly one of its public addresses. What follows from it is written into the Node for good, so several
// candidates are none; and only a Node that waits for its initialization is looked for by more than the first two: what has neither
// provider ID nor taint is a machine elsewhere, whose kubelet asks for no cloud provider.
//
// A private address is no proof. The same ones are in use in many places, also on a machine of another cloud that waits for that cloud's
// own controller: it would get the identity of a server that is not a node at all, and go with that server.
func (i *Instances) serverID(ctx context.Context, node *v1.Node) (string, error) {
	if !i.config.Scope.Matches(labels.Set(node.Labels)) {
		return "", errNotOurs
	}
	id, err := namedServer(node)
	if err != nil || id != "" {
		return id, err
	}
	if !initializing(node) {
		return "", errNotOurs
	}
	set, err := i.cloud.ServersSince(ctx, time.Now().Add(-nameAge))
	if err != nil {
		return "", err
	}
	if server := reportedServer(set, node); server != nil {
		return server.ID, nil
	}
	var candidates []string
	for _, server := range set.Named(node.Name) {
		candidates = append(candidates, server.ID)
	}
	by := "have this host name or title"
	if len(candidates) == 0 {
		by = "have its public address"
		if candidates, err = i.serversAt(ctx, node); err != nil {
			return "", err
		}
	}
	switch len(candidates) {
	case 1:
		return candidates[0], nil
	case 0:
		return "", fmt.Errorf("node %s: no server of the account has this host name or title, the node's system UUID or a public address "+
			"of its (private addresses prove nothing, as machines elsewhere have the same): rename the server, or start the kubelet with "+
			"--provider-id=%s", node.Name, providerid.New("SERVER_UUID"))
	}
	return "", fmt.Errorf("node %s: %d servers %s (%s): rename all but one, or start the kubelet with --provider-id=%s",
		node.Name, len(candidates), by, strings.Join(candidates, ", "), providerid.New("SERVER_UUID"))
}

// reportedServer is the server whose UUID the node's kubelet reports as its machine's, as UpCloud's firmware has it; nil: no
// server of the account.
func reportedServer(set *cloud.ServerSet, node *v1.Node) *cloud.Server {
	server, _ := set.Server(strings.ToLower(node.Status.NodeInfo.SystemUUID))
	return server
}

// namedServer is the UUID that the Node itself gives, if it does.
func namedServer(node *v1.Node) (string, error) {
	if node.Spec.ProviderID != "" {
		id, err := providerid.Parse(node.Spec.ProviderID)
		var foreign *providerid.ForeignError
		if errors.As(err, &foreign) {
			return "", errNotOurs
		}
		if err != nil {
			return "", fmt.Errorf("node %s: %w", node.Name, err)
		}
		return id, nil
	}
	annotation := node.Annotations[AnnotationServerID]
	if annotation == "" {
		return "", nil
	}
	id, err := uuid.Parse(annotation)
	if err != nil {
		return "", fmt.Errorf("node %s: annotation %s=%q: want the server's UUID", node.Name, AnnotationServerID, annotation)
	}
	return id.String(), nil
}

// serversAt finds the servers that have a public address which the kubelet was given, or found itself.
func (i *Instances) serversAt(ctx context.Context, node *v1.Node) (ids []string, err error) {
	ips, err := providedNodeIPs(node)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node.Name, err)
	}
	for _, address := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(address.Address); err == nil && address.Type != v1.NodeHostName {
			ips = append(ips, ip.Unmap())
		}
	}
	for _, ip := range ips {
		found, err := i.cloud.ServersWithPublicAddress(ctx, ip)
		if err != nil {
			return nil, err
		}
		ids = append(ids, found...)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
