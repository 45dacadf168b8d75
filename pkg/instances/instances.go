// Package instances tells Kubernetes about the servers behind its Nodes: whether they exist and run, and their addresses,
// zone, plan and labels. It implements cloudprovider.InstancesV2 and knows nothing of how the API is called.
//
// Its first rule: a Node is deleted at once when InstanceExists answers false, and a kubelet does not register again
// until it restarts. So false is the answer only after the API itself said "not found" to that very server's UUID, twice, with
// credentials that are proved to be those of the servers' account; everything that is in doubt is an error, which changes nothing.
package instances

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"
	cloudproviderapi "k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

const (
	// lifecycleAge is how old an answer may be for the node lifecycle controller, which asks every five seconds about Nodes
	// that are not ready. It is less, so that a deleted server is seen in the pass that comes next.
	lifecycleAge = 4 * time.Second
	// initialAge is how old what is written into a new Node may be: no more than the retries of one attempt take.
	initialAge = 5 * time.Second
)

// Config says which nodes are ours and what is told of them. Only Cloud is needed.
type Config struct {
	Cloud *cloud.Cloud
	// Scope selects the nodes that are looked after; nil: all. The others exist, run, and are initialized by somebody else.
	Scope labels.Selector
	// PrivateNetworks chooses a server's internal addresses: by the network's UUID or name, or by a prefix that they are in
	// (10.0.0.0/24). Empty: those of all its private networks.
	PrivateNetworks []string
	// ServerLabelPrefix is what the keys of server labels begin with that become labels of the Node, under
	// LabelServerDomain; empty: none.
	ServerLabelPrefix string
	// MaxMissing is a limit on top of the rules of vanished.keep: the share of all Nodes, in percent, whose servers may be missing
	// at once before Nodes are kept. Zero: no limit. 100: every Node may go, even with nothing to prove the account.
	MaxMissing int
	// BeforeGone is asked before a server is said to be gone, which deletes its Node; its error is returned instead. nil: nobody
	// is asked.
	BeforeGone func(context.Context) error
	// Registerer gets the metrics; nil: none.
	Registerer prometheus.Registerer
}

// Instances implements cloudprovider.InstancesV2.
type Instances struct {
	config   Config
	cloud    *cloud.Cloud
	networks networkChoice
	vanished *vanished
	outage   *outage
	events   teller

	replacements replacements

	client kubernetes.Interface // nil before Start
}

var _ cloudprovider.InstancesV2 = (*Instances)(nil)

// New returns the Instances of an account. Errors: a PrivateNetworks entry that cannot be one, metrics that are taken.
func New(config Config) (*Instances, error) {
	if config.Scope == nil {
		config.Scope = labels.Everything()
	}
	networks, err := parseNetworks(config.PrivateNetworks)
	if err != nil {
		return nil, err
	}
	i := &Instances{config: config, cloud: config.Cloud, networks: networks, outage: newOutage()}
	i.vanished, err = newVanished(i)
	return i, err
}

// Start gives what writing to Nodes and telling of them needs. Without it, neither is done.
func (i *Instances) Start(client kubernetes.Interface, recorder record.EventRecorder) {
	i.client = client
	i.events.start(recorder)
}

// SetNodes gives the list of all Nodes, whose servers prove that the credentials are those of their account. It comes before the
// controllers start.
func (i *Instances) SetNodes(nodes corelisters.NodeLister) { i.vanished.nodes = nodes }

// errNotOurs says that a node is out of scope, or belongs to another cloud.
var errNotOurs = errors.New("not a node of this cloud")

// InstanceExists says whether the node's server exists. See the package's first rule.
func (i *Instances) InstanceExists(ctx context.Context, node *v1.Node) (bool, error) {
	_, err := i.listed(ctx, node, lifecycleAge)
	if errors.Is(err, errNotListed) {
		return i.unlistedExists(ctx, node)
	}
	return err == nil || errors.Is(err, errNotOurs), ignore(err, errNotOurs)
}

func (i *Instances) unlistedExists(ctx context.Context, node *v1.Node) (bool, error) {
	if readiness(node) == v1.ConditionFalse { // its kubelet runs, on a server: the condition of one that is silent is Unknown
		if _, err := i.replacement(ctx, node); err == nil {
			return true, nil
		}
	}
	gone, err := i.vanished.confirm(ctx, node)
	if err != nil || !gone {
		return err == nil, err
	}
	if i.config.BeforeGone != nil {
		if err := i.config.BeforeGone(ctx); err != nil {
			return false, err
		}
	}
	if err := i.vanished.unchanged(node); err != nil {
		return false, err
	}
	klog.FromContext(ctx).Info("Server is gone", "node", node.Name, "providerID", node.Spec.ProviderID)
	return false, nil
}

// InstanceShutdown says whether the node's server is stopped. One in maintenance or error is not: its disks may still be
// in use.
func (i *Instances) InstanceShutdown(ctx context.Context, node *v1.Node) (bool, error) {
	server, err := i.listed(ctx, node, lifecycleAge)
	switch {
	case errors.Is(err, errNotOurs):
		return false, nil
	case errors.Is(err, errNotListed):
		server, err = i.unlisted(ctx, node, lifecycleAge)
	}
	if err != nil {
		return false, err
	}
	return server.State == "stopped", nil
}

// InstanceMetadata returns what Kubernetes writes into the Node when it initializes it, and of that the addresses at every
// --node-status-update-frequency. For a new node, it waits a while for an API that does not serve.
func (i *Instances) InstanceMetadata(ctx context.Context, node *v1.Node) (*cloudprovider.InstanceMetadata, error) {
	began := time.Now()
	server, metadata, err := i.metadata(ctx, node)
	for initializing(node) && isOutage(err) && i.outage.wait(ctx, time.Now(), i.cloud.Check) {
		if server, metadata, err = i.metadata(ctx, node); time.Since(began) > i.outage.patience {
			break
		}
	}
	switch {
	case err != nil && initializing(node):
		i.events.notInitialized(node, err)
	case err == nil && server != nil && !initializing(node):
		i.keepUp(ctx, node, server, metadata)
	}
	return metadata, err
}

// metadata of a node that is not ours has no server.
func (i *Instances) metadata(ctx context.Context, node *v1.Node) (*cloud.Server, *cloudprovider.InstanceMetadata, error) {
	server, err := i.described(ctx, node)
	if errors.Is(err, errNotOurs) {
		return nil, notOursMetadata(node), nil
	}
	if err != nil {
		return nil, nil, err
	}
	if err := i.ownServer(node, server); err != nil {
		i.events.warn(node, ReasonDuplicate, err.Error())
		return nil, nil, fmt.Errorf("node %s: %w", node.Name, err)
	}
	addresses, err := i.addresses(ctx, node, server)
	if err != nil {
		return nil, nil, err
	}
	return server, &cloudprovider.InstanceMetadata{
		ProviderID:       providerid.New(server.ID),
		InstanceType:     server.Plan,
		NodeAddresses:    addresses,
		Zone:             server.Zone,
		Region:           server.Zone, // UpCloud has nothing above the zone
		AdditionalLabels: i.labels(server),
	}, nil
}

// described finds the server of a node: a new node's by asking the server itself, as the provider ID, zone and addresses
// that follow may never be looked at again; else from the list.
func (i *Instances) described(ctx context.Context, node *v1.Node) (*cloud.Server, error) {
	if initializing(node) {
		return i.own(ctx, node, initialAge)
	}
	server, err := i.listed(ctx, node, metadataAge)
	if errors.Is(err, errNotListed) {
		return i.unlisted(ctx, node, metadataAge)
	}
	return server, err
}

// unlisted finds the server of a node whose own the list lacks: the server itself, or the one that took its place.
func (i *Instances) unlisted(ctx context.Context, node *v1.Node, age time.Duration) (*cloud.Server, error) {
	server, err := i.own(ctx, node, age)
	if !errors.Is(err, cloud.ErrNotFound) {
		return server, err
	}
	successor, replacedErr := i.replacement(ctx, node)
	if replacedErr != nil {
		return nil, err
	}
	return successor, nil
}

// notOursMetadata is what the node controller takes as "leave it alone": nothing for a node that waits for its
// initialization, and for others, where it does not expect nothing, no more than they have.
func notOursMetadata(node *v1.Node) *cloudprovider.InstanceMetadata {
	if initializing(node) {
		return nil
	}
	return &cloudprovider.InstanceMetadata{ProviderID: node.Spec.ProviderID}
}

func initializing(node *v1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(taint v1.Taint) bool {
		return taint.Key == cloudproviderapi.TaintExternalCloudProvider
	})
}

// Metadata returns what InstanceMetadata does, for whoever cannot wait until it is in the Node. It changes nothing.
func (i *Instances) Metadata(ctx context.Context, node *v1.Node) (*cloudprovider.InstanceMetadata, error) {
	_, metadata, err := i.metadata(ctx, node)
	return metadata, err
}

// NodeAddresses returns the addresses that the node has or is about to get. It changes nothing.
func (i *Instances) NodeAddresses(ctx context.Context, node *v1.Node) ([]v1.NodeAddress, error) {
	metadata, err := i.Metadata(ctx, node)
	if err != nil || metadata == nil {
		return nil, err
	}
	return metadata.NodeAddresses, nil
}

// ignore returns the error, unless it is the one that is none.
func ignore(err, none error) error {
	if errors.Is(err, none) {
		return nil
	}
	return err
}
