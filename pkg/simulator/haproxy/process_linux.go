package haproxy

import "syscall"

// processAttributes: the process gets a terminal's Ctrl-C through us alone. (No Pdeathsig: it is tied to the thread
// that started the process, and Go ends threads.)
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
