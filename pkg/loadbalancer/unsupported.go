package loadbalancer

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Problem is why a Service cannot have a load balancer as it is.
type Problem struct {
	Reason  string // of the event
	Message string // names the field, its value and the remedy
}

// Problems returns everything in a Service that UpCloud's load balancers, or this program, cannot do. Such a Service gets no
// load balancer, and one that it has is left as it is: what cannot be done right is not done halfway, and never in a
// way that opens more than was asked for.
func Problems(service *v1.Service) []Problem {
	var problems []Problem
	add := func(reason, format string, args ...any) {
		problems = append(problems, Problem{Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
	for _, port := range service.Spec.Ports {
		if port.Protocol != v1.ProtocolTCP && port.Protocol != "" {
			add("UnsupportedProtocol", "port %d/%s (%s): UpCloud load balancers carry TCP only; "+
				"move the port to a Service of type NodePort", port.Port, port.Protocol, portName(port))
		}
		if port.NodePort == 0 {
			add("NodePortMissing", "port %d (%s) has no node port, through which load balancers reach the nodes: "+
				"set spec.allocateLoadBalancerNodePorts to true", port.Port, portName(port))
		}
		if !validName(portName(port)) {
			add("InvalidPortName", "port %d: its name %q cannot be the name of a frontend: use at most %d letters, digits and dashes",
				port.Port, portName(port), maxName)
		}
	}
	if len(service.Spec.Ports) == 0 {
		add("NoPorts", "the Service has no ports: add one")
	}
	if ranges := service.Spec.LoadBalancerSourceRanges; len(ranges) > 0 {
		add("UnsupportedSourceRanges", "spec.loadBalancerSourceRanges %s cannot be enforced by this version: remove "+
			"the field to publish the Service to everybody", strings.Join(ranges, ","))
	}
	if ranges := strings.TrimSpace(service.Annotations[v1.AnnotationLoadBalancerSourceRangesKey]); ranges != "" {
		// The older way to say the same, which kube-proxy and other clouds still heed.
		add("UnsupportedSourceRanges", "annotation %s=%s cannot be enforced by this version: remove the annotation to publish "+
			"the Service to everybody", v1.AnnotationLoadBalancerSourceRangesKey, ranges)
	}
	if ip := service.Spec.LoadBalancerIP; ip != "" {
		add("UnsupportedLoadBalancerIP", "spec.loadBalancerIP %s is not supported by this version: remove the field", ip)
	}
	for _, annotation := range []string{AnnotationConfig, AnnotationNodeSelector} {
		if _, ok := service.Annotations[annotation]; ok {
			add("UnsupportedAnnotation", "annotation %s is not supported by this version, and to ignore it could publish more than "+
				"was meant: remove it", annotation)
		}
	}
	if families := service.Spec.IPFamilies; len(families) == 1 && families[0] == v1.IPv6Protocol {
		add("UnsupportedIPFamily", "spec.ipFamilies %s: UpCloud load balancers have IPv4 addresses: add IPv4, or use a Service "+
			"of type NodePort", families[0])
	}
	return problems
}
