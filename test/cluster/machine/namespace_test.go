package machine

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("not root: namespaces cannot be made")
	}
}

func newNamespace(t *testing.T) *Namespace {
	t.Helper()
	needRoot(t)
	namespace, err := NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = namespace.Close() })
	return namespace
}

func TestNamespacesReachEachOtherOverABridgeAndNothingElseDoes(t *testing.T) {
	fabric, node := newNamespace(t), newNamespace(t)
	if err := fabric.AddBridge("lan", netip.MustParsePrefix("198.51.100.1/24")); err != nil {
		t.Fatal(err)
	}
	if err := fabric.Connect("lan", node, "eth0", "port-1", netip.MustParsePrefix("198.51.100.2/24")); err != nil {
		t.Fatal(err)
	}
	var listener net.Listener
	if err := node.Do(func() (err error) {
		listener, err = net.Listen("tcp", "198.51.100.2:80")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	conn, err := fabric.Dial(context.Background(), "tcp", "198.51.100.2:80")
	if err != nil {
		t.Fatalf("from the other namespace: %v", err)
	}
	_ = conn.Close()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if netip.MustParsePrefix(address.String()).Masked() == netip.MustParsePrefix("198.51.100.0/24") {
			t.Errorf("the host has the address %s of a namespace", address)
		}
	}
}

func TestDoLeavesOtherThreadsAlone(t *testing.T) {
	namespace := newNamespace(t)
	before, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var inside string
	if err := namespace.Do(func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if inside == before {
		t.Error("Do ran outside the namespace")
	}
	for range 100 { // whatever thread this goroutine is on
		if now, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || now != before {
			t.Fatalf("a thread is in %s, want %s (%v)", now, before, err)
		}
	}
}

func TestRefusedTrafficHearsSoAtOnce(t *testing.T) {
	gateway, node := newNamespace(t), newNamespace(t)
	if err := gateway.AddBridge("lan", netip.MustParsePrefix("198.51.100.1/24")); err != nil {
		t.Fatal(err)
	}
	if err := gateway.Connect("lan", node, "eth0", "port-1", netip.MustParsePrefix("198.51.100.2/24")); err != nil {
		t.Fatal(err)
	}
	if err := node.AddRoute(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("198.51.100.1")); err != nil {
		t.Fatal(err)
	}
	if err := gateway.Forward(); err != nil {
		t.Fatal(err)
	}
	if err := gateway.Refuse(netip.MustParsePrefix("203.0.113.0/24")); err != nil {
		t.Fatal(err)
	}
	_, err := node.Dial(t.Context(), "tcp", "203.0.113.1:80")
	if !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("dialling a refused address: %v, want %v", err, syscall.EHOSTUNREACH)
	}
}

// What stays in the network keeps the sender's address, what leaves it does not.
func TestMasquerade(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nftables is not installed")
	}
	inside, outside := newNamespace(t), newNamespace(t)
	if err := outside.AddBridge("lan", netip.MustParsePrefix("198.51.100.1/24")); err != nil {
		t.Fatal(err)
	}
	if err := outside.Connect("lan", inside, "eth0", "port-1", netip.MustParsePrefix("198.51.100.2/24")); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		inside.AddAddress("lo", netip.MustParsePrefix("10.244.0.5/32")), outside.AddAddress("lo", netip.MustParsePrefix("10.244.1.5/32")),
		inside.AddRoute(netip.MustParsePrefix("10.244.1.0/24"), netip.MustParseAddr("198.51.100.1")),
		outside.AddRoute(netip.MustParsePrefix("10.244.0.0/24"), netip.MustParseAddr("198.51.100.2")),
		inside.Masquerade(netip.MustParsePrefix("10.244.0.0/16")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for to, want := range map[string]string{"10.244.1.5": "10.244.0.5", "198.51.100.1": "198.51.100.2"} {
		var listener net.Listener
		if err := outside.Do(func() (err error) {
			listener, err = net.Listen("tcp", to+":80")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := inside.Do(func() error {
			from := &net.TCPAddr{IP: net.ParseIP("10.244.0.5")}
			conn, err := (&net.Dialer{LocalAddr: from, Timeout: 10 * time.Second}).Dial("tcp", to+":80")
			if err != nil {
				return err
			}
			return conn.Close()
		}); err != nil {
			t.Fatalf("to %s: %v", to, err)
		}
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr().String(); got != want {
			t.Errorf("%s hears from %s, want %s", to, got, want)
		}
		_, _ = conn.Close(), listener.Close()
	}
}
