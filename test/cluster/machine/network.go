package machine

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func (n *Namespace) netlink() (*netlink.Handle, error) {
	handle, err := netlink.NewHandleAt(netns.NsHandle(n.file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open netlink in the namespace: %w", err)
	}
	return handle, nil
}

// UpLoopback makes the loopback interface of a new namespace work.
func (n *Namespace) UpLoopback() error { return n.up("lo") }

func (n *Namespace) up(name string) error {
	handle, err := n.netlink()
	if err != nil {
		return err
	}
	defer handle.Close()
	link, err := handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	return handle.LinkSetUp(link)
}

// AddBridge makes a switch named name in the namespace; address is the namespace's own on it.
func (n *Namespace) AddBridge(name string, address netip.Prefix) error {
	handle, err := n.netlink()
	if err != nil {
		return err
	}
	defer handle.Close()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
	if err := handle.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	if err := handle.AddrAdd(bridge, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
		return fmt.Errorf("give bridge %s the address %s: %w", name, address, err)
	}
	return handle.LinkSetUp(bridge)
}

// Connect plugs a new interface of the namespace to into the named bridge of the namespace n, with the given address.
func (n *Namespace) Connect(bridge string, to *Namespace, interfaceName, portName string, address netip.Prefix) error {
	handle, err := n.netlink()
	if err != nil {
		return err
	}
	defer handle.Close()
	master, err := handle.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", bridge, err)
	}
	port := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: portName, MasterIndex: master.Attrs().Index},
		PeerName:      interfaceName,
		PeerNamespace: netlink.NsFd(int(to.file.Fd())),
	}
	if err := handle.LinkAdd(port); err != nil {
		return fmt.Errorf("add the cable %s: %w", portName, err)
	}
	if err := handle.LinkSetUp(port); err != nil {
		return err
	}
	return to.configure(interfaceName, address)
}

func (n *Namespace) configure(interfaceName string, address netip.Prefix) error {
	handle, err := n.netlink()
	if err != nil {
		return err
	}
	defer handle.Close()
	link, err := handle.LinkByName(interfaceName)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", interfaceName, err)
	}
	if err := handle.AddrAdd(link, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", interfaceName, address, err)
	}
	return handle.LinkSetUp(link)
}

// AddAddress gives an interface of the namespace a further address.
func (n *Namespace) AddAddress(interfaceName string, address netip.Prefix) error {
	return n.configure(interfaceName, address)
}

// AddRoute sends traffic for destination to the gateway via.
func (n *Namespace) AddRoute(destination netip.Prefix, via netip.Addr) error {
	handle, err := n.netlink()
	if err != nil {
		return err
	}
	defer handle.Close()
	if err := handle.RouteAdd(&netlink.Route{Dst: ipNet(destination), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("route %s via %s: %w", destination, via, err)
	}
	return nil
}

// Refuse answers traffic for destination that arrives to be passed on with "unreachable", as a gateway does; without it
// a namespace says nothing, and whoever asks waits for an answer until a timeout.
func (n *Namespace) Refuse(destination netip.Prefix) error {
	if err := n.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }); err != nil {
		return fmt.Errorf("make the namespace a gateway: %w", err)
	}
	handle, err := n.netlink()
	if err != nil {
		return err
	}
	defer handle.Close()
	if err := handle.RouteAdd(&netlink.Route{Dst: ipNet(destination), Type: unix.RTN_UNREACHABLE}); err != nil {
		return fmt.Errorf("refuse %s: %w", destination, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
