//go:build !linux

package haproxy

import (
	"io"
	"net/netip"
	"syscall"
)

func processAttributes() *syscall.SysProcAttr { return nil }

// mostSessions is how many sessions a process can have here.
func mostSessions() int { return 2000 }

// claim claims nothing: simulators that run at once must not have load balancers of the same port.
func claim(netip.Addr) (io.Closer, error) { return nothing{}, nil }
