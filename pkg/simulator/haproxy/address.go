package haproxy

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
)

func checkInterface(name string) error {
	if _, err := net.InterfaceByName(name); err != nil {
		return fmt.Errorf("network interface %q: %w: name one of this network namespace, or none to listen on loopback addresses", name, err)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("the program ip is missing: install the package iproute2: %w", err)
	}
	return nil
}

// addAddress makes the machine accept traffic for the address.
func addAddress(device string, a netip.Addr) error {
	out, err := exec.Command("ip", "address", "add", single(a), "dev", device).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "File exists") && !strings.Contains(string(out), "already assigned") {
		return fmt.Errorf("add %s to %s: %s", a, device, strings.TrimSpace(string(out)))
	}
	return nil
}

func removeAddress(device string, a netip.Addr) error {
	out, err := exec.Command("ip", "address", "del", single(a), "dev", device).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "Cannot assign") {
		return fmt.Errorf("remove %s from %s: %s", a, device, strings.TrimSpace(string(out)))
	}
	return nil
}

func single(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }

// nothing is the claim on an address that needs none.
type nothing struct{}

func (nothing) Close() error { return nil }
