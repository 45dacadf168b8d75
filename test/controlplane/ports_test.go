package controlplane

import (
	"net"
	"testing"
)

// A port that was handed out is nobody else's before it is listened on: not of whoever asks for free ports, nor of whoever leaves
// the choice to the kernel.
func TestFreePortsAreGivenOutOnce(t *testing.T) {
	seen := map[int]bool{}
	for range 500 {
		ports, err := FreePorts(2)
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range ports {
			if seen[port] {
				t.Fatalf("port %d is given out twice", port)
			}
			seen[port] = true
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		if chosen := listener.Addr().(*net.TCPAddr).Port; seen[chosen] {
			t.Fatalf("the kernel gave out port %d as well", chosen)
		}
	}
}
