package loadbalancer

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	servicehelpers "k8s.io/cloud-provider/service/helpers"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Names of the networks that load balancers are attached to, as UpCloud's own CCM has them.
const (
	networkPublic  = "public-IPv4"
	networkPrivate = "private-IPv4"
)

// Timeouts and health checks of new frontends and backends. UpCloud's defaults, and those of UpCloud's own CCM, are made for
// short HTTP requests: a quiet TCP connection ends after ten seconds, and a dead node gets traffic for thirty.
const (
	timeoutClient       = 60   // seconds a client may be silent before it is connected through
	timeoutServer       = 60   // the same of a member
	timeoutTunnel       = 3600 // seconds without a byte either way on an established connection
	healthCheckInterval = 3    // seconds
	healthCheckFall     = 2    // failures until a member gets no more connections
	healthCheckRise     = 2    // successes until it gets them again
)

// localHealthCheckPrefix begins the URL of a health check on a port of its own: that on which kube-proxy tells whether the
// node has a ready endpoint of a Service with externalTrafficPolicy Local. The form is that of UpCloud's own CCM.
const localHealthCheckPrefix = "http://:"

// Desired is what a Service's load balancer shall be like.
type Desired struct {
	Identity Identity
	Labels   cloud.Labels // but for LabelComponents, which follows from the ports
	Ports    []Port       // ordered by name
	Targets  []Target
	// HealthCheckPort, if not zero, is where nodes tell whether they have an endpoint of the Service.
	HealthCheckPort int
}

// Port is a Service port: a frontend, and a backend of the same name.
type Port struct {
	Name           string
	Port, NodePort int
}

// DesiredState says what a Service's load balancer shall be like with these nodes behind it. Ports that have a Problem are
// left out.
func DesiredState(identity Identity, service *v1.Service, targets []Target, maxMembers int) Desired {
	desired := Desired{
		Identity: identity,
		Labels:   identity.labels(service),
		Targets:  Limit(targets, maxMembers, identity.ServiceUID),
	}
	for _, port := range service.Spec.Ports {
		if (port.Protocol == v1.ProtocolTCP || port.Protocol == "") && port.NodePort != 0 && validName(portName(port)) {
			desired.Ports = append(desired.Ports, Port{
				Name: portName(port), Port: int(port.Port), NodePort: int(port.NodePort),
			})
		}
	}
	slices.SortFunc(desired.Ports, func(a, b Port) int { return strings.Compare(a.Name, b.Name) })
	if servicehelpers.NeedsHealthCheck(service) {
		desired.HealthCheckPort = int(service.Spec.HealthCheckNodePort)
	}
	return desired
}

// Create returns the load balancer to be made. sessions is the most that a member may have at one time.
func (d Desired) Create(place Placement, plan string, sessions int) cloud.LoadBalancer {
	lb := cloud.LoadBalancer{
		Name: d.Identity.Name, Zone: place.Zone, Plan: plan, ConfiguredStatus: "started",
		Networks: []cloud.LoadBalancerNetwork{
			{Name: networkPublic, Type: "public", Family: "IPv4"},
			{Name: networkPrivate, Type: "private", Family: "IPv4", ID: place.NetworkID},
		},
		Labels:    cloud.Labels{},
		Frontends: []cloud.Frontend{}, Backends: []cloud.Backend{},
	}
	for key, value := range d.Labels {
		lb.Labels[key] = value
	}
	for key, value := range (componentSet{}).with(d.portNames()).labels() {
		lb.Labels[key] = value
	}
	for _, port := range d.Ports {
		lb.Backends = append(lb.Backends, d.backend(port, sessions))
		lb.Frontends = append(lb.Frontends, d.frontend(port, []string{networkPublic, networkPrivate}))
	}
	return lb
}

// without leaves out the ports of these names.
func (d Desired) without(names []string) Desired {
	d.Ports = slices.DeleteFunc(slices.Clone(d.Ports), func(port Port) bool { return slices.Contains(names, port.Name) })
	return d
}

func (d Desired) portNames() []string {
	var names []string
	for _, port := range d.Ports {
		names = append(names, port.Name)
	}
	return names
}

// frontend is a new frontend. Those that exist keep their mode and timeouts: a load balancer taken over from UpCloud's own
// CCM stays http if it was, and what somebody tuned by hand stays tuned.
func (d Desired) frontend(port Port, networks []string) cloud.Frontend {
	frontend := cloud.Frontend{
		Name: port.Name, Mode: "tcp", Port: port.Port, DefaultBackend: port.Name,
		Properties: cloud.Properties{"timeout_client": timeoutClient},
	}
	for _, network := range networks {
		frontend.Networks = append(frontend.Networks, cloud.FrontendNetwork{Name: network})
	}
	return frontend
}

// backend is a new backend.
func (d Desired) backend(port Port, sessions int) cloud.Backend {
	properties := cloud.Properties{
		"timeout_server":        timeoutServer,
		"timeout_tunnel":        timeoutTunnel,
		"health_check_interval": healthCheckInterval,
		"health_check_fall":     healthCheckFall,
		"health_check_rise":     healthCheckRise,
	}
	properties, _ = properties.With(d.healthCheck())
	backend := cloud.Backend{Name: port.Name, Members: []cloud.Member{}, Properties: properties}
	if all, changed := members(nil, d.Targets, port.NodePort, sessions); changed {
		backend.Members = all
	}
	return backend
}

// healthCheck is the kind of health check that follows from the Service's externalTrafficPolicy.
func (d Desired) healthCheck() cloud.Properties {
	if d.HealthCheckPort == 0 {
		return cloud.Properties{"health_check_type": "tcp", "health_check_url": "/"}
	}
	return cloud.Properties{
		"health_check_type":            "http",
		"health_check_url":             fmt.Sprintf("%s%d", localHealthCheckPrefix, d.HealthCheckPort),
		"health_check_expected_status": 200,
	}
}
