// Package routes leads what is for a node's Pods to that node, without an overlay network: it keeps each node's Pod CIDRs as
// static routes on the UpCloud router of the nodes' private network. It implements cloudprovider.Routes.
//
// It knows which route a node needs, whose a route is (by its name) and how to change a router that others change, too: one
// writer in this process, which collects changes, puts them on top of what it has just read, and reads them back. What it
// must not do: touch a route that this cluster did not make, or keep a memory of its own. What the router has is asked of the
// API, what the nodes need of Kubernetes.
package routes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

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

	life    context.Context // ends the writers
	end     context.CancelFunc
	running sync.WaitGroup

	creating sync.Mutex // held while a router is made
	finding  sync.Mutex // held while one is looked for; guards found
	found    foundDomain

	mu      sync.Mutex
	owner   Owner
	writers map[string]*writer // by router
	told    map[string]string  // last warning, by node
}

var _ cloudprovider.Routes = (*Routes)(nil)

// New returns the Routes of a cluster. Start and SetNodes must be called before any other method, and Close at the end.
func New(config Config) *Routes {
	if config.Scope == nil {
		config.Scope = labels.Everything()
	}
	r := &Routes{config: config, metrics: newMetrics(config.Registerer), writers: map[string]*writer{}, told: map[string]string{}}
	r.life, r.end = context.WithCancel(context.Background())
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
		r.writers[router] = newWriter(r.config.Cloud, router, owner, r.metrics, r.life, &r.running)
	}
	return r.writers[router]
}

// ListRoutes returns this cluster's routes, from one reading of the router. The route controller deletes what it cannot match
// with a node, so others' routes are not among them. Nor is a route of ours that leads to an address which its node does not
// have: the controller then asks for it again, and it is replaced at once, without a moment in which there is none. A route
// whose node is gone is called a black hole, which the controller deletes.
func (r *Routes) ListRoutes(ctx context.Context, _ string) ([]*cloudprovider.Route, error) {
	owner, err := r.ownerOf(ctx)
	if err != nil {
		return nil, err
	}
	in, err := r.routerDomain(ctx, nil, false)
	var none *noRouterError
	if errors.As(err, &none) {
		return nil, nil // CreateRoute tells each node about it
	}
	if err != nil {
		return nil, err
	}
	router, err := r.config.Cloud.Router(ctx, in.router)
	if err != nil {
		return nil, err
	}
	r.metrics.observe(owner, router.Routes)
	nodes, err := r.nodes.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	byHash := make(map[string]*v1.Node, len(nodes))
	for _, node := range nodes {
		byHash[nodeHash(node.Name)] = node
	}
	var listed []*cloudprovider.Route
	for _, route := range router.Routes {
		if !owner.owns(route.Name) {
			continue
		}
		if shown := show(route, byHash[owner.nodeOf(route.Name)]); shown != nil {
			listed = append(listed, shown)
		}
	}
	return listed, nil
}

// show is what the controller gets to see of one of this cluster's routes; nil: nothing, as it is to be made anew.
func show(route cloud.StaticRoute, node *v1.Node) *cloudprovider.Route {
	shown := &cloudprovider.Route{Name: route.Name, DestinationCIDR: route.Prefix}
	if node == nil {
		shown.Blackhole = true
		return shown
	}
	shown.TargetNode = nodeName(node)
	for _, cidr := range node.Spec.PodCIDRs {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil || !route.IsTo(prefix) {
			continue
		}
		internal := internalIPs(node.Status.Addresses)
		leads := slices.ContainsFunc(internal, func(ip netip.Addr) bool { return route.Leads(prefix, ip) })
		if !leads && len(internal) > 0 {
			return nil
		}
		shown.DestinationCIDR = cidr // as the Node writes it, which is what the controller compares
	}
	return shown
}

// DeleteRoute removes one of this cluster's routes. Already gone: nil.
func (r *Routes) DeleteRoute(ctx context.Context, _ string, route *cloudprovider.Route) error {
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
	err = r.writerOf(in.router, owner).do(ctx, newChange(route.Name, prefix, netip.Addr{}))
	if errors.Is(err, cloud.ErrNotFound) {
		return nil // the router is gone, and the route with it
	}
	return err
}
