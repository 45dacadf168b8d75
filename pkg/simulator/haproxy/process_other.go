//go:build !linux

package haproxy

import "syscall"

func processAttributes() *syscall.SysProcAttr { return nil }

// mostSessions is how many sessions a process can have here.
func mostSessions() int { return 2000 }
