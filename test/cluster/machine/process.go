package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spawner starts processes that end with the process that owns it. The kernel ties such a child to the thread that
// started it, so one thread is kept for the Spawner's whole life.
type Spawner struct {
	requests chan func()
}

// NewSpawner starts the thread. It runs until the program ends, as its children must.
func NewSpawner() *Spawner {
	s := &Spawner{requests: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for request := range s.requests {
			request()
		}
	}()
	return s
}

// Program says what to run and where.
type Program struct {
	Name      string         // of the process, and of its log file
	Args      []string       // program and arguments
	Env       []string       // in addition to the caller's environment
	Dir       string         // working directory
	Namespace *Namespace     // network namespace to start in; nil: the caller's
	Clone     uintptr        // further namespaces of its own, CLONE_NEW* flags
	LogDir    string         // its output goes to LogDir/Name.log
	Signal    syscall.Signal // asks it to end; zero: SIGTERM
	Stdin     *os.File       // nil: none
}

// Process is a running Program.
type Process struct {
	Program
	LogPath string
	command *exec.Cmd
	done    chan struct{}
	err     error // valid once done is closed
}

// Start runs the program. It is killed when the Spawner's process ends, however that happens.
func (s *Spawner) Start(program Program) (*Process, error) {
	logPath := filepath.Join(program.LogDir, program.Name+".log")
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command(program.Args[0], program.Args[1:]...)
	command.Env = append(os.Environ(), program.Env...)
	command.Dir = program.Dir
	command.Stdout, command.Stderr = log, log
	if program.Stdin != nil {
		command.Stdin = program.Stdin
	}
	command.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a Ctrl-C at the terminal is for the owner, which ends its children in order
		Cloneflags: program.Clone,
	}
	started := make(chan error, 1)
	s.requests <- func() { started <- startIn(program.Namespace, command) }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program.Name, err)
	}
	p := &Process{Program: program, LogPath: logPath, command: command, done: make(chan struct{})}
	go func() {
		p.err = command.Wait()
		close(p.done)
	}()
	return p, nil
}

// startIn starts the command with the current thread inside the namespace, which a child inherits.
func startIn(namespace *Namespace, command *exec.Cmd) error {
	if namespace == nil {
		return command.Start()
	}
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := namespace.enter(); err != nil {
		return err
	}
	err = command.Start()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave the network namespace: %w", back))
	}
	return err
}

// PID is the process's ID on the host.
func (p *Process) PID() int { return p.command.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says why an ended process ended, and where to read more.
func (p *Process) Err() error {
	if p.err == nil {
		return fmt.Errorf("%s ended; see %s", p.Name, p.LogPath)
	}
	return fmt.Errorf("%s ended: %w; see %s", p.Name, p.err, p.LogPath)
}

// Stop asks the process to end, and kills it when ctx ends first or grace has passed.
func (p *Process) Stop(ctx context.Context, grace time.Duration) {
	signal := p.Signal
	if signal == 0 {
		signal = syscall.SIGTERM
	}
	_ = p.command.Process.Signal(signal)
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
	}
}

// Kill ends the process at once.
func (p *Process) Kill() {
	_ = p.command.Process.Kill()
	<-p.done
}
