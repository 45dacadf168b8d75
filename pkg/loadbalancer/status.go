package loadbalancer

import (
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// StatusMode says what a Service's status holds of its load balancer.
type StatusMode string

const (
	// StatusHostname publishes the DNS name, as UpCloud's own CCM does. It follows the load balancer through maintenance,
	// a change of plan, and the failure of one of its servers, all of which change addresses.
	StatusHostname StatusMode = "hostname"
	// StatusIP publishes the addresses that the load balancer listens on, for where its DNS name cannot be resolved. They
	// are read when the Service is reconciled and at each check (Config.CheckInterval), and so can be out of date for some minutes
	// after a maintenance; floating IP addresses, which
	// stay, are published alone.
	StatusIP StatusMode = "ip"
	// StatusBoth publishes addresses, each with the DNS name beside it. ExternalDNS, for one, then takes the addresses.
	StatusBoth StatusMode = "both"
)

// ParseStatusMode reads a StatusMode; an empty one is StatusHostname.
func ParseStatusMode(text string) (StatusMode, error) {
	switch mode := StatusMode(text); mode {
	case "":
		return StatusHostname, nil
	case StatusHostname, StatusIP, StatusBoth:
		return mode, nil
	}
	return "", fmt.Errorf("%q is none of %s, %s, %s", text, StatusHostname, StatusIP, StatusBoth)
}

// statusOf returns what is published of a load balancer; without any ingress when there is nothing to publish yet.
func statusOf(lb *cloud.LoadBalancer, mode StatusMode) *v1.LoadBalancerStatus {
	status := &v1.LoadBalancerStatus{}
	network, ok := publishedNetwork(lb)
	if !ok {
		return status
	}
	hostname := network.DNSName
	if hostname == "" && network.Type == "public" {
		hostname = lb.DNSName
	}
	if mode == StatusHostname {
		if hostname != "" {
			status.Ingress = []v1.LoadBalancerIngress{{Hostname: hostname}}
		}
		return status
	}
	if mode == StatusIP {
		hostname = ""
	}
	// The load balancer is a proxy: what a Pod sends to the address must go through it, and not, as kube-proxy
	// would have it otherwise, straight to an endpoint without the proxy's protocol or certificates.
	proxy := v1.LoadBalancerIPModeProxy
	for _, address := range listenAddresses(lb, network.Name) {
		status.Ingress = append(status.Ingress, v1.LoadBalancerIngress{IP: address, IPMode: &proxy, Hostname: hostname})
	}
	return status
}

// publishedNetwork is the public network, or on a load balancer without one the first.
func publishedNetwork(lb *cloud.LoadBalancer) (cloud.LoadBalancerNetwork, bool) {
	for _, network := range lb.Networks {
		if network.Type == "public" {
			return network, true
		}
	}
	if len(lb.Networks) == 0 {
		return cloud.LoadBalancerNetwork{}, false
	}
	return lb.Networks[0], true
}

func listenAddresses(lb *cloud.LoadBalancer, network string) []string {
	var addresses []string
	for _, floating := range lb.Addresses {
		if floating.Network == network {
			addresses = append(addresses, floating.Address)
		}
	}
	if len(addresses) > 0 {
		slices.Sort(addresses)
		return addresses
	}
	for _, node := range lb.Nodes {
		for _, nic := range node.Networks {
			for _, address := range nic.Addresses {
				if nic.Name == network && address.Listen {
					addresses = append(addresses, address.Address)
				}
			}
		}
	}
	slices.Sort(addresses)
	return slices.Compact(addresses)
}
