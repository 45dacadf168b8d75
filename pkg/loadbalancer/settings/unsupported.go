package settings

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Problems returns everything in a Service, its annotations apart, that UpCloud's load balancers, or this program, cannot do.
// Such a Service gets no load balancer, and one that it has is left as it is: what cannot be done right is not done halfway,
// and never in a way that opens more than was asked for.
func Problems(service *v1.Service) []Problem {
	var problems []Problem
	add := func(reason, format string, args ...any) {
		problems = append(problems, Problem{Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
	if problem := tooManyPorts(service); problem != nil {
		return []Problem{*problem}
	}
	for _, port := range service.Spec.Ports {
		if hasTwin(service, port) {
			continue // it is remarked upon
		}
		if !IsTCP(port) {
			add("UnsupportedProtocol", "port %d/%s (%s): UpCloud load balancers carry TCP only; "+
				"move the port to a Service of type NodePort", port.Port, port.Protocol, PortName(port))
		}
		if port.NodePort == 0 {
			add(ReasonNodePortMissing, "port %d (%s) has no node port, through which load balancers reach the nodes: "+
				"set spec.allocateLoadBalancerNodePorts to true, or have the CCM run with --load-balancer-pod-members", port.Port, PortName(port))
		}
		if !ValidName(PortName(port)) {
			add("InvalidPortName", "port %d: its name %q cannot be the name of a frontend: use at most %d letters, digits and dashes",
				port.Port, PortName(port), MaxName)
		}
	}
	if len(service.Spec.Ports) == 0 {
		add("NoPorts", "the Service has no ports: add one")
	}
	if _, err := SourceRanges(service); err != nil {
		add("UnsupportedSourceRanges", "%s", err)
	}
	if ip := service.Spec.LoadBalancerIP; ip != "" {
		if _, err := ipAddress.parse(ip); err != nil {
			add("UnsupportedLoadBalancerIP", "spec.loadBalancerIP %s: want %s, a floating one of the account", ip, ipAddress.allowed)
		}
	}
	if service.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal && service.Spec.HealthCheckNodePort == 0 {
		add("HealthCheckNodePortMissing", "spec.externalTrafficPolicy is Local, and spec.healthCheckNodePort is not set: by it the load "+
			"balancer learns which nodes have an endpoint; set it, or set the policy to Cluster")
	}
	families := service.Spec.IPFamilies
	if len(families) == 1 && families[0] == v1.IPv6Protocol {
		add("UnsupportedIPFamily", "spec.ipFamilies %s: UpCloud load balancers have IPv4 addresses: add IPv4, or use a Service "+
			"of type NodePort", families[0])
	}
	if policy := service.Spec.IPFamilyPolicy; policy != nil && *policy == v1.IPFamilyPolicyRequireDualStack {
		add("UnsupportedIPFamily", "spec.ipFamilyPolicy %s: UpCloud load balancers have IPv4 addresses only: use PreferDualStack, with "+
			"which the Service is published on IPv4", *policy)
	}
	return problems
}

// IsTCP says whether a port is of the one protocol that load balancers carry.
func IsTCP(port v1.ServicePort) bool { return port.Protocol == v1.ProtocolTCP || port.Protocol == "" }

// hasTwin says whether a port of another protocol stands beside a TCP port of the same number, as HTTP/3 does beside HTTP/2. Clients then
// use TCP, and nothing is lost but the other protocol.
func hasTwin(service *v1.Service, port v1.ServicePort) bool {
	return !IsTCP(port) && slices.ContainsFunc(service.Spec.Ports, func(p v1.ServicePort) bool { return p.Port == port.Port && IsTCP(p) })
}

// Remarks are what a Service asks for and does not get, without harm to the rest of it.
func Remarks(service *v1.Service, settings *Settings) []Problem {
	var remarks []Problem
	for _, port := range service.Spec.Ports {
		if hasTwin(service, port) {
			remarks = append(remarks, Problem{"UnsupportedProtocol", fmt.Sprintf("port %d/%s (%s) is not served: UpCloud load balancers carry TCP "+
				"only; clients reach port %[1]d/TCP", port.Port, port.Protocol, PortName(port))})
		}
	}
	remarks = append(remarks, unknownRemarks(settings)...)
	return append(remarks, affinityRemarks(service, settings)...)
}

// unknownRemarks tell of the fields of AnnotationConfig that do nothing.
func unknownRemarks(settings *Settings) []Problem {
	unknown, more := settings.unknown, ""
	if len(unknown) == 0 {
		return nil
	}
	if rest := len(unknown) - maxProblems; rest > 0 {
		unknown, more = unknown[:maxProblems], fmt.Sprintf(" and %d more", rest)
	}
	return fewProblems([]Problem{{ReasonUnknownField, fmt.Sprintf("annotation %s: %s%s: there are no such fields of a load balancer, and they "+
		"do nothing: remove them, or correct their names", AnnotationConfig, strings.Join(unknown, ", "), more)}})
}

// ReasonUnknownField is the reason of the remark on fields of AnnotationConfig that do not exist.
const ReasonUnknownField = "UnknownField"

func affinityRemarks(service *v1.Service, settings *Settings) []Problem {
	if service.Spec.SessionAffinity != v1.ServiceAffinityClientIP {
		return nil
	}
	for _, port := range settings.EveryPort() {
		if name, _ := port.Backend["sticky_session_cookie_name"].(string); name == "" {
			return []Problem{{"UnsupportedSessionAffinity", fmt.Sprintf("spec.sessionAffinity ClientIP: UpCloud load balancers cannot keep "+
				"clients at a node by their address, and kube-proxy sees the load balancer's; for ports of mode http set annotation %ssticky-cookie",
				AnnotationPrefix)}}
		}
	}
	return nil
}

// ReasonNodePortMissing is the reason of the problem that Pods as members solve.
const ReasonNodePortMissing = "NodePortMissing"
