package haproxy

import "syscall"

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
