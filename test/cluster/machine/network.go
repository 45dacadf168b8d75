package machine

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

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

// Forward makes the namespace pass packets on, as a router does. It keeps to itself that there may be a shorter way.
func (n *Namespace) Forward() error {
	err := n.Do(func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			setEverywhere("/proc/sys/net/ipv4/conf", "send_redirects", "0"))
	})
	if err != nil {
		return fmt.Errorf("make the namespace a router: %w", err)
	}
	return nil
}

// setEverywhere writes a setting of all interfaces, those there are and those to come.
func setEverywhere(dir, setting, value string) error {
	interfaces, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var failed error
	for _, entry := range interfaces {
		failed = errors.Join(failed, os.WriteFile(filepath.Join(dir, entry.Name(), setting), []byte(value), 0))
	}
	return failed
}

// Masquerade gives what leaves the network for elsewhere the namespace's own address. What stays in the network, on another
// machine too, keeps the sender's.
func (n *Namespace) Masquerade(network netip.Prefix) error {
	rules := fmt.Sprintf(`table ip leaving {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr %[1]s ip daddr != %[1]s ip daddr != 224.0.0.0/4 masquerade
	}
}
`, network)
	return n.Do(func() error {
		nft := exec.Command("nft", "-f", "-") // begun on this thread, so in the namespace
		nft.Stdin = strings.NewReader(rules)
		if output, err := nft.CombinedOutput(); err != nil {
			return fmt.Errorf("masquerade %s: %w: %s", network, err, bytes.TrimSpace(output))
		}
		return nil
	})
}

// Refuse answers traffic for destination that arrives to be passed on (see Forward) with "unreachable", as a gateway does;
// without it a namespace says nothing, and whoever asks waits for an answer until a timeout.
func (n *Namespace) Refuse(destination netip.Prefix) error {
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
