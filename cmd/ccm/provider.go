package main

import (
	"context"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/routes"
)

// provider is UpCloud as k8s.io/cloud-provider wants it.
type provider struct {
	cloud         *cloud.Cloud
	instances     *instances.Instances
	loadBalancers *loadbalancer.LoadBalancers
	routes        *routes.Routes // nil without --configure-cloud-routes
	leadership    *leadership
	namespace     string // of the lease
	close         sync.Once
	stop          <-chan struct{}
	// secrets is a client of its own, so that looking at many Secrets takes nothing from the others' limit.
	secrets typedv1.SecretsGetter
}

var (
	_ cloudprovider.Interface    = (*provider)(nil)
	_ cloudprovider.InformerUser = (*provider)(nil)
)

func newProvider(client *cloud.Cloud, config config) (*provider, error) {
	nodes := config.instances
	nodes.Cloud = client
	p := &provider{cloud: client}
	var err error
	if p.instances, err = instances.New(nodes); err != nil {
		return nil, err
	}
	balancers := config.loadBalancer
	balancers.Cloud, balancers.NodeAddresses, balancers.Scope = client, p.instances.NodeAddresses, nodes.Scope
	p.loadBalancers = loadbalancer.New(balancers)
	if config.routes != nil {
		config.routes.Cloud, config.routes.Metadata = client, p.instances.Metadata
		p.routes = routes.New(*config.routes)
	}
	return p, nil
}

// Initialize is called when the controllers start, which is when the election is won. It gives what writing to Nodes and
// Services needs.
func (p *provider) Initialize(builder cloudprovider.ControllerClientBuilder, stop <-chan struct{}) {
	p.stop = stop
	client := builder.ClientOrDie("service-controller")
	if p.leadership != nil {
		p.leadership.begin(context.Background(), client.CoordinationV1().Leases(p.namespace))
	}
	p.secrets = builder.ClientOrDie("service-controller").CoreV1()
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	go func() {
		<-stop
		broadcaster.Shutdown()
	}()
	recorder := broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "upcloud-ccm"})
	p.instances.Start(client, recorder)
	p.loadBalancers.Start(client, recorder)
	if p.routes != nil {
		p.routes.Start(client, recorder)
	}
}

// SetInformers is called after Initialize.
func (p *provider) SetInformers(shared informers.SharedInformerFactory) {
	services, nodes := shared.Core().V1().Services().Lister(), shared.Core().V1().Nodes().Lister()
	p.instances.SetNodes(nodes)
	if p.routes != nil {
		p.routes.SetNodes(nodes)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-p.stop
		cancel()
	}()
	go p.loadBalancers.FollowSecrets(ctx, p.secrets, services, nodes)
	go p.loadBalancers.FollowShared(ctx, services, nodes)
	go p.loadBalancers.FollowDrift(ctx, services, nodes)
	go p.loadBalancers.FollowJoining(ctx, services)
	go p.loadBalancers.FollowPods(ctx, services, nodes)
	go p.loadBalancers.FollowEndpoints(ctx, services, nodes)
	go p.loadBalancers.FollowNodeLabels(ctx, services, shared.Core().V1().Nodes())
}

// Close ends what the provider does by itself.
func (p *provider) Close() {
	p.close.Do(func() {
		if p.routes != nil {
			p.routes.Close()
		}
		p.cloud.Close()
	})
}

func (p *provider) ProviderName() string { return providerid.Scheme }

// HasClusterID answers the question whether two clusters of one account can be told apart. They always can: load balancers
// are recognized by the UID of their Service, which no two clusters share.
func (p *provider) HasClusterID() bool { return true }

func (p *provider) InstancesV2() (cloudprovider.InstancesV2, bool)   { return p.instances, true }
func (p *provider) LoadBalancer() (cloudprovider.LoadBalancer, bool) { return p.loadBalancers, true }

func (p *provider) Instances() (cloudprovider.Instances, bool) { return nil, false }
func (p *provider) Zones() (cloudprovider.Zones, bool)         { return nil, false }
func (p *provider) Clusters() (cloudprovider.Clusters, bool)   { return nil, false }

// Routes are there when they are asked for.
func (p *provider) Routes() (cloudprovider.Routes, bool) {
	if p.routes == nil {
		return nil, false
	}
	return p.routes, true
}
