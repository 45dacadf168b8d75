package steps

import (
	"context"
	"errors"
	"fmt"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LoadBalancer is what a Service of type LoadBalancer has in the account.
type LoadBalancer struct {
	upcloud.LoadBalancer
	Service *corev1.Service
	IP      string // that a host on the internet reaches it at
}

// LoadBalancer finds a Service's load balancer by what the Service publishes.
func (r *Runner) LoadBalancer(ctx context.Context, namespace, name string) (*LoadBalancer, error) {
	service, err := r.Client.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if len(service.Status.LoadBalancer.Ingress) == 0 {
		return nil, errors.New("the Service " + name + " has no address yet")
	}
	balancers, err := r.Account.GetLoadBalancers(ctx, &request.GetLoadBalancersRequest{})
	if err != nil {
		return nil, err
	}
	ingress := service.Status.LoadBalancer.Ingress[0]
	for _, balancer := range balancers {
		if ip := resolve(balancer, ingress.Hostname); ip != "" {
			return &LoadBalancer{LoadBalancer: balancer, Service: service, IP: ip}, nil
		}
	}
	return nil, fmt.Errorf("no node of the account's %d load balancers listens for %q yet", len(balancers), ingress.Hostname)
}

// resolve does what the Internet's name servers do for the host names of UpCloud's load balancers: it finds the address
// that the load balancer's nodes listen on in the network of that name.
func resolve(balancer upcloud.LoadBalancer, hostname string) string {
	for _, network := range balancer.Networks {
		if network.DNSName != hostname {
			continue
		}
		for _, node := range balancer.Nodes {
			for _, connected := range node.Networks {
				for _, address := range connected.IPAddresses {
					if connected.Name == network.Name && address.Listen {
						return address.Address
					}
				}
			}
		}
	}
	return ""
}
