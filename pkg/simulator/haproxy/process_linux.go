package haproxy

import (
	"io"
	"net"
	"net/netip"
	"syscall"
)

// processAttributes: Ctrl-C in a terminal reaches the process through this program alone, and should this program be
// killed, the process ends too.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// sparedFiles are for what is not a session: listeners, health checks, logs.
const sparedFiles = 500

// mostSessions is how many sessions a process can have here: each takes two files, and HAProxy does not start where it
// could not open enough of them.
func mostSessions() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Max > 1<<20 {
		return 1 << 19
	}
	return max(100, (int(limit.Max)-sparedFiles)/2)
}

// claim makes an address of the loopback network this program's own until it is closed or the program ends; that another one has
// it is syscall.EADDRINUSE. HAProxy would listen on the same port of it beside another simulator's, and the kernel would give
// each of them a part of the connections. The name is one of the network namespace, as the addresses are.
func claim(a netip.Addr) (io.Closer, error) {
	return net.Listen("unix", "@upcloud-haproxy-"+a.String())
}
