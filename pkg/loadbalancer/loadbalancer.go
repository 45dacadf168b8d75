package loadbalancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
)

// Config says how load balancers are made.
type Config struct {
	Cloud *cloud.Cloud

	// ClusterID and ClusterName mark the load balancers and begin their names. ClusterName, if empty, is what the
	// controller manager's --cluster-name says.
	ClusterID, ClusterName string
	// Plan of new load balancers; empty: DefaultPlan.
	Plan string
	// MaxMembers bounds the members of one backend; zero: DefaultMaxMembers.
	MaxMembers int
	// Status says what is published of a load balancer; empty: StatusHostname.
	Status settings.StatusMode
	// DefaultMode of new frontends, tcp or http; empty: tcp. UpCloud's own CCM has http.
	DefaultMode string
	// Scope selects the nodes that may be members; nil: all.
	Scope labels.Selector
	// NodeAddresses finds the addresses that the account shows at the server of a node: members get no others. Nil: what the status of
	// a node says is believed.
	NodeAddresses func(ctx context.Context, node *v1.Node) ([]v1.NodeAddress, error)
	// Shared says who may use load balancers that this program did not make.
	Shared []settings.SharedAccess
	// Adoptable says which load balancers Services may take as their own.
	Adoptable []settings.Adoptable
	// Tenants says what the Services of each namespace may ask for; nil: what there is.
	Tenants *tenants.Config
	// PodMembers lets Services have no node ports (spec.allocateLoadBalancerNodePorts is false): their Pods are the members. Load
	// balancers must reach the Pods' addresses.
	PodMembers bool
	// CheckInterval is how often load balancers are looked at without a reason; zero: DefaultCheckInterval; negative: never.
	CheckInterval time.Duration
	// StepTime is for how long changes of one Service's load balancer are made at one go; zero: DefaultStepTime.
	StepTime time.Duration
}

const (
	// DefaultPlan is UpCloud's smallest plan, and the default of UpCloud's own CCM.
	DefaultPlan = "development"
	// DefaultMaxMembers is the default of UpCloud's own CCM.
	DefaultMaxMembers = 100
)

// operationLimit bounds one call of the controller, which sets no limit of its own: an API that asks for patience, or that does
// not answer, must not hold a worker. The controller calls again.
const operationLimit = 2 * time.Minute

// LoadBalancers implements cloudprovider.LoadBalancer.
type LoadBalancers struct {
	config Config
	client kubernetes.Interface
	events record.EventRecorder
	locks  keyedLocks
	said   said
	// membership is what members were last brought to be.
	membership membership
	sought     sought
	proven     provenAddresses
	pods       podReader
	local      *localReader

	secretUse   secretUse
	sharing     sharing
	tending     tending
	records     *records // said, membership and conditions are parts of them
	joinings    joinings
	unfinished  unfinished
	conditions  conditions
	clusterName atomic.Pointer[string] // as the controller last called it
	clusterUID  clusterUID
	namespaces  namespaceLabels
	made        madeLately

	deleteWait, operationLimit, secretPause time.Duration

	now func() time.Time
}

var _ cloudprovider.LoadBalancer = (*LoadBalancers)(nil)

// New returns the LoadBalancers of a cluster. Start must be called before any other method.
func New(config Config) *LoadBalancers {
	if config.Plan == "" {
		config.Plan = DefaultPlan
	}
	if config.MaxMembers <= 0 {
		config.MaxMembers = DefaultMaxMembers
	}
	if config.Status == "" {
		config.Status = settings.StatusHostname
	}
	if config.CheckInterval == 0 {
		config.CheckInterval = DefaultCheckInterval
	}
	if config.StepTime == 0 {
		config.StepTime = DefaultStepTime
	}
	records := &records{}
	return &LoadBalancers{config: config, records: records, said: said{records}, membership: membership{records}, conditions: conditions{records},
		deleteWait: deleteWait, operationLimit: operationLimit, secretPause: secretPause, now: time.Now,
		secretUse: secretUse{changed: make(chan struct{}, 1)}, pods: podReader{ready: make(chan struct{}), wait: podsWait},
		local: newLocalReader()}
}

// Start gives what exists only once the controller manager runs: the client that writes annotations, and the recorder of
// events on Services.
func (l *LoadBalancers) Start(client kubernetes.Interface, events record.EventRecorder) {
	l.client, l.events = client, events
}

// GetLoadBalancerName returns the name that a Service's load balancer gets.
func (l *LoadBalancers) GetLoadBalancerName(ctx context.Context, clusterName string, service *v1.Service) string {
	return l.identity(ctx, clusterName, service).Name
}

// GetLoadBalancer returns a Service's status, and whether anything of the Service's is left in the account: as long as that
// is so, the controller does not let the Service go.
func (l *LoadBalancers) GetLoadBalancer(
	ctx context.Context, clusterName string, service *v1.Service,
) (status *v1.LoadBalancerStatus, exists bool, err error) {
	defer recoverTo(&err, service)
	if service.DeletionTimestamp != nil || service.Spec.Type != v1.ServiceTypeLoadBalancer {
		caller, leaving := ctx, service
		defer func() {
			if err != nil { // the controller gets no further
				l.reportLeaving(caller, leaving, err)
			}
		}()
	}
	ctx, cancel := l.operation(ctx, service.Namespace)
	defer cancel()
	identity := l.identity(ctx, clusterName, service)
	asked, _ := settings.Parse(service)
	service, shared, err := l.shares(ctx, identity, service, asked)
	if err != nil {
		return nil, false, err
	}
	lb := shared
	if lb == nil {
		lb, err = l.find(ctx, service, identity)
	}
	var leftover *sharesError
	if errors.As(err, &leftover) {
		return &v1.LoadBalancerStatus{}, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	if lb == nil {
		bundles, err := serviceBundles(ctx, l.config.Cloud, identity)
		return &v1.LoadBalancerStatus{}, len(bundles) > 0, err
	}
	return plan.StatusOf(lb, cmp.Or(asked.Status, l.config.Status)), true, nil
}

// EnsureLoadBalancer makes the Service's load balancer be as desired, and returns its status once it serves. Until then it
// returns an api.RetryError, so that no worker waits.
func (l *LoadBalancers) EnsureLoadBalancer(
	ctx context.Context, clusterName string, service *v1.Service, nodes []*v1.Node,
) (status *v1.LoadBalancerStatus, err error) {
	defer recoverTo(&err, service)
	caller := ctx
	ctx, done, err := l.begin(ctx, service.Namespace, service.UID)
	if err != nil {
		return nil, err
	}
	defer done()
	identity := l.identity(ctx, clusterName, service)
	status, err = l.ensure(ctx, identity, service, nodes)
	l.reportOutcome(caller, service, err)
	return status, err
}

// UpdateLoadBalancer changes the members of the Service's backends, and nothing else.
func (l *LoadBalancers) UpdateLoadBalancer(
	ctx context.Context, clusterName string, service *v1.Service, nodes []*v1.Node,
) (err error) {
	defer recoverTo(&err, service)
	ctx, done, err := l.begin(ctx, service.Namespace, service.UID)
	if err != nil {
		return err
	}
	defer done()
	return l.update(ctx, l.identity(ctx, clusterName, service), service, nodes)
}

// EnsureLoadBalancerDeleted deletes the Service's load balancer, and returns nil once it is gone, which takes UpCloud up to
// three minutes. Until then it returns an error that says so; each call waits a little itself.
func (l *LoadBalancers) EnsureLoadBalancerDeleted(
	ctx context.Context, clusterName string, service *v1.Service,
) (err error) {
	defer recoverTo(&err, service)
	caller := ctx
	ctx, done, err := l.begin(ctx, service.Namespace, service.UID)
	if err != nil {
		return err
	}
	defer done()
	if vanished, err := l.vanished(ctx, service); vanished || err != nil {
		return err
	}
	if err := l.delete(ctx, l.identity(ctx, clusterName, service), service); err != nil {
		l.reportLeaving(caller, service, err)
		return err
	}
	l.unreport(caller, service)
	return nil
}

// begin bounds the time of an operation on a Service's load balancer, and keeps every other one from it until done is called.
func (l *LoadBalancers) begin(
	ctx context.Context, namespace string, service types.UID,
) (_ context.Context, done func(), err error) {
	ctx, cancel := l.operation(ctx, namespace)
	unlock, err := l.locks.lock(ctx, string(service))
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return l.inSteps(ctx), func() {
		unlock()
		cancel()
	}, nil
}

// identity is what makes a load balancer this Service's.
func (l *LoadBalancers) identity(ctx context.Context, clusterName string, service *v1.Service) plan.Identity {
	l.clusterName.Store(&clusterName)
	if l.config.ClusterName != "" {
		clusterName = l.config.ClusterName
	}
	identity := plan.NewIdentity(l.config.ClusterID, clusterName, service).InCluster(l.clusterUID.get(ctx, l.client, l.now()))
	if l.config.Tenants != nil {
		identity.Namespace = service.Namespace
	}
	return identity
}

// lastClusterName is the cluster's name as the controller last told it.
func (l *LoadBalancers) lastClusterName() string {
	if name := l.clusterName.Load(); name != nil {
		return *name
	}
	return ""
}

// tell puts a normal event on the Service.
func (l *LoadBalancers) tell(service runtime.Object, reason, format string, args ...any) {
	if l.events != nil {
		l.events.Eventf(service, v1.EventTypeNormal, reason, format, args...)
	}
}

// warn puts a Warning on the Service.
func (l *LoadBalancers) warn(service runtime.Object, reason, format string, args ...any) {
	if l.events != nil {
		l.events.Eventf(service, v1.EventTypeWarning, reason, format, args...)
	}
}

// recoverTo turns a panic into an error on this one Service. Without it, one Service that some user made could take the
// controllers of the whole cluster down, again and again.
func recoverTo(err *error, service *v1.Service) {
	if panicked := recover(); panicked != nil {
		klog.ErrorS(nil, "Panic", "service", klog.KObj(service), "panic", panicked, "stack", string(debug.Stack()))
		*err = errors.Join(*err, fmt.Errorf("internal error (this is a bug): %v", panicked))
	}
}
