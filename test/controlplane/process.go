package controlplane

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// stopTimeout is how long a process may take to end when it is asked to.
const stopTimeout = 10 * time.Second

// Process is a program that runs until it is stopped, and ends with this one in any case.
type Process struct {
	Log  string // file with its output
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	stop sync.Once
}

// StartProcess runs a program with its output in a file.
func StartProcess(name, log string, env []string, program string, args ...string) (*Process, error) {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &Process{Log: log, name: name, cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = output, output
	p.cmd.Env = env
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal at the parent's death comes at the death of the thread that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		defer func() { _ = output.Close() }()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	return p, <-started
}

// Signal sends a signal.
func (p *Process) Signal(signal os.Signal) error { return p.cmd.Process.Signal(signal) }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.done }

// ExitCode is that of a process that has ended.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Stop ends the process, and waits until it has.
func (p *Process) Stop() {
	p.stop.Do(func() {
		_ = p.Signal(syscall.SIGTERM)
		_ = p.Signal(syscall.SIGCONT)
		select {
		case <-p.done:
		case <-time.After(stopTimeout):
			_ = p.Signal(syscall.SIGKILL)
			<-p.done
		}
	})
}

// Failure tells why the process has ended, with the end of its output.
func (p *Process) Failure() error {
	text, err := os.ReadFile(p.Log)
	if len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	return fmt.Errorf("%s has ended: %w\n%s", p.name, errors.Join(p.err, err), text)
}
