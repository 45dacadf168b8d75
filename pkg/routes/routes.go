// Package routes leads what is for a node's Pods to that node, without an overlay network: it keeps each node's Pod CIDRs as
// static routes on the UpCloud router of the nodes' private network. It implements cloudprovider.Routes.
//
// It knows which route a node needs, whose a route is (by its name and by the server that it leads to) and how to change a router that others change, too: one
// writer in this process, which collects changes, puts them on top of what it has just read, and reads them back. What it
// must not do: touch a route that is not this cluster's, or keep a memory of its own. What the router has is asked of the
// API, what the nodes need of Kubernetes.
package routes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// Config says where routes are kept.
type Config struct {
	Cloud *cloud.Cloud
	// ClusterID tells this cluster's routes from others'. Empty: the UID of the namespace kube-system does.
	ClusterID string
	// Scope selects the nodes that are this cloud's; nil: all.
	Scope labels.Selector
	// ClusterCIDRs are the Pod network, --cluster-cidr: no Pod CIDR outside gets a route. Empty: every one does.
	ClusterCIDRs []netip.Prefix
	// RouterID is the router's UUID; empty: the one that the nodes' private network is on.
	RouterID string
	// CreateRouter allows to make one if the nodes' private network is on none.
	CreateRouter bool
	// ManageSourceFilter allows to switch off a node's source IP filtering, which drops the packets of Pods.
	ManageSourceFilter bool
	// Metadata tells provider ID and addresses of a node that is not initialized yet, and changes nothing. Nil: such nodes wait.
	Metadata func(ctx context.Context, node *v1.Node) (*cloudprovider.InstanceMetadata, error)
	// Registerer gets the metrics; nil: none.
	Registerer prometheus.Registerer
}

// Routes implements cloudprovider.Routes.
type Routes struct {
	config  Config
	client  kubernetes.Interface
	events  record.EventRecorder
	nodes   corelisters.NodeLister
	metrics *metrics
	watch   watch
	claims  *claims

	life    context.Context // ends the writers
	end     context.CancelFunc
	running sync.WaitGroup

	creating sync.Mutex // held while a router is made
	finding  sync.Mutex // held while one is looked for; guards found and moved
	found    foundDomain
	moved    move // the last one

	mu           sync.Mutex
	owner        Owner
	writers      map[string]*writer // by router
	leftovers    leftovers
	podCIDRs     *podCIDRs
	podCIDRsRead time.Time
	warned       map[string]string // last warning, by node
}

var _ cloudprovider.Routes = (*Routes)(nil)

// New returns the Routes of a cluster. Start and SetNodes must be called before any other method, and Close at the end.
func New(config Config) *Routes {
	if config.Scope == nil {
		config.Scope = labels.Everything()
	}
	r := &Routes{config: config, metrics: newMetrics(config.Registerer), watch: watch{since: time.Now()}, claims: newClaims(), writers: map[string]*writer{},
		warned: map[string]string{}}
	r.life, r.end = context.WithCancel(shareOfRoutes(context.Background()))
	return r
}

// Start gives what exists only once the controller manager runs.
func (r *Routes) Start(client kubernetes.Interface, events record.EventRecorder) {
	r.client, r.events = client, events
}

// SetNodes gives the cluster's nodes. They must be complete before the route controller begins.
func (r *Routes) SetNodes(nodes corelisters.NodeLister) { r.nodes = nodes }

// Close ends what is being written, and waits until it has ended.
func (r *Routes) Close() {
	r.end()
	r.running.Wait()
}

// allNodes are this cloud's nodes, and known if it is not nil.
func (r *Routes) allNodes(known *v1.Node) ([]*v1.Node, error) {
	nodes, err := r.nodes.List(labels.Everything())
	nodes = slices.DeleteFunc(nodes, func(node *v1.Node) bool { return !r.inScope(node) })
	if known != nil {
		nodes = append(nodes, known)
	}
	return nodes, err
}

// inScope says whether a node is this cloud's.
func (r *Routes) inScope(node *v1.Node) bool {
	if !r.config.Scope.Matches(labels.Set(node.Labels)) {
		return false
	}
	if node.Spec.ProviderID == "" {
		return true // not initialized yet
	}
	_, err := providerid.Parse(node.Spec.ProviderID)
	var foreign *providerid.ForeignError
	return !errors.As(err, &foreign)
}

// ownerOf is the beginning of the names of this cluster's routes.
func (r *Routes) ownerOf(ctx context.Context) (Owner, error) {
	r.mu.Lock()
	owner := r.owner
	r.mu.Unlock()
	if owner != "" {
		return owner, nil
	}
	cluster := r.config.ClusterID
	if cluster == "" {
		namespace, err := r.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		if err != nil {
			return "", fmt.Errorf("find out what tells this cluster's routes from others': %w; set clusterID in the configuration file, "+
				"or let the CCM read that namespace", err)
		}
		cluster = string(namespace.UID)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owner = NewOwner(cluster)
	return r.owner, nil
}

// writerOf returns the one writer of a router.
func (r *Routes) writerOf(router string, owner Owner) *writer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writers[router] == nil {
		r.writers[router] = r.newWriter(router, owner)
	}
	return r.writers[router]
}

// shareOfRoutes has requests counted as this package's where the API's limits are shared out.
func shareOfRoutes(ctx context.Context) context.Context {
	return cloud.WithShare(ctx, cloud.Share{Group: "routes"})
}

// DeleteRoute removes one of this cluster's routes. Already gone: nil.
func (r *Routes) DeleteRoute(ctx context.Context, _ string, route *cloudprovider.Route) error {
	ctx = shareOfRoutes(ctx)
	owner, err := r.ownerOf(ctx)
	if err != nil {
		return err
	}
	if !owner.owns(route.Name) {
		return fmt.Errorf("route %q to %s is not this cluster's, whose routes' names begin with %s", route.Name, route.DestinationCIDR, owner)
	}
	prefix, err := netip.ParsePrefix(route.DestinationCIDR)
	if err != nil {
		return fmt.Errorf("route %s: %w", route.Name, err)
	}
	in, err := r.routerDomain(ctx, nil, false)
	if err != nil {
		return err
	}
	err = r.writerOf(in.router, owner).do(ctx, newChange(route.Name, prefix.Masked(), netip.Addr{}))
	if errors.Is(err, cloud.ErrNotFound) {
		return nil // the router is gone, and the route with it
	}
	return err
}
