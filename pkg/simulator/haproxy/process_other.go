//go:build !linux

package haproxy

import "syscall"

func processAttributes() *syscall.SysProcAttr { return nil }
