package local

import (
	"fmt"
	"net/netip"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
)

// The addresses of the simulated world. All of it lies in namespaces of its own: the host sees none of these addresses.
var (
	publicNetwork  = netip.MustParsePrefix("198.18.0.0/15") // RFC 2544; the simulator hands out from its beginning
	publicGateway  = netip.MustParsePrefix("198.19.255.254/15")
	internetHost   = netip.MustParsePrefix("198.19.255.253/15")
	workstation    = netip.MustParsePrefix("198.19.255.252/15")
	privateNetwork = netip.MustParsePrefix("172.16.0.0/24")
	privateGateway = netip.MustParsePrefix("172.16.0.1/24")
	metadata       = netip.MustParsePrefix("169.254.169.254/32")
	serviceNetwork = netip.MustParsePrefix("10.128.0.0/16")
	podNetwork     = netip.MustParsePrefix("10.244.0.0/16")
)

const (
	publicBridge  = "public"
	privateBridge = "private"
	apiServerPort = 6443
	simulatorPort = 8100
)

func apiServerURL() string { return fmt.Sprintf("https://%s:%d", privateGateway.Addr(), apiServerPort) }

func simulatorAddress() string {
	return netip.AddrPortFrom(privateGateway.Addr(), simulatorPort).String()
}

// nodeAddress is the private address of node number i, counted from 0.
func nodeAddress(i int) netip.Prefix {
	base := privateNetwork.Addr().As4()
	base[3] = byte(11 + i)
	return netip.PrefixFrom(netip.AddrFrom4(base), privateNetwork.Bits())
}

// makeFabric makes the network that joins the machines: a public and a private switch, with the control plane, the
// simulator and its load balancers on both, and the metadata address on the private one. It is the private network's router,
// too: the simulator puts the router's static routes into its routing table.
func makeFabric() (*machine.Namespace, error) {
	fabric, err := machine.NewNamespace()
	if err != nil {
		return nil, err
	}
	if err := fabric.AddBridge(publicBridge, publicGateway); err != nil {
		return nil, err
	}
	if err := fabric.AddBridge(privateBridge, privateGateway); err != nil {
		return nil, err
	}
	// A router that tells a sender of a shorter way is left out of the next packet's way.
	if err := fabric.Forward(); err != nil {
		return nil, err
	}
	// A program that asks for a Service before its node's kube-proxy is ready must hear at once that it is too early.
	if err := fabric.Refuse(serviceNetwork); err != nil {
		return nil, err
	}
	return fabric, fabric.AddAddress(privateBridge, metadata)
}

// plugIn connects a node to both switches: eth0 public, eth1 private, as UpCloud numbers them.
func plugIn(fabric, node *machine.Namespace, i int, public netip.Addr) error {
	port := fmt.Sprintf("node-%d", i+1)
	if err := fabric.Connect(publicBridge, node, "eth0", port+"-pub", netip.PrefixFrom(public, publicNetwork.Bits())); err != nil {
		return err
	}
	if err := fabric.Connect(privateBridge, node, "eth1", port+"-priv", nodeAddress(i)); err != nil {
		return err
	}
	if err := node.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), publicGateway.Addr()); err != nil {
		return err
	}
	if err := node.AddRoute(metadata, privateGateway.Addr()); err != nil {
		return err
	}
	// What is for a Pod goes to the router, which alone knows on which node it is.
	if err := node.AddRoute(podNetwork, privateGateway.Addr()); err != nil {
		return err
	}
	return node.Masquerade(podNetwork)
}
