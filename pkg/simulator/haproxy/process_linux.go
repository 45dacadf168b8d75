package haproxy

import "syscall"

// processAttributes: Ctrl-C in a terminal reaches the process through this program alone, and should this program be
// killed, the process ends too.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
