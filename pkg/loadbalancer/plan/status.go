package plan

import (
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// StatusOf returns what is published of a load balancer; without any ingress when there is nothing to publish yet.
func StatusOf(lb *cloud.LoadBalancer, mode settings.StatusMode) *v1.LoadBalancerStatus {
	status := &v1.LoadBalancerStatus{}
	network, ok := PublishedNetwork(lb)
	if !ok {
		return status
	}
	hostname := network.DNSName
	if hostname == "" && network.Type == "public" {
		hostname = lb.DNSName
	}
	if mode == settings.StatusHostname {
		if hostname != "" {
			status.Ingress = []v1.LoadBalancerIngress{{Hostname: hostname}}
		}
		return status
	}
	if mode == settings.StatusIP {
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

// PublishedNetwork is the public network, or on a load balancer without one the first.
func PublishedNetwork(lb *cloud.LoadBalancer) (cloud.LoadBalancerNetwork, bool) {
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
