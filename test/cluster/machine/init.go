package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// InitConfig is what the first process of a machine does: it mounts, then starts the services in order.
type InitConfig struct {
	Hostname string
	LogDir   string
	Mounts   []Mount
	Services []Service
}

// Mount is one file system of a machine. Source is bound to Target; an empty Source asks for an empty file system in memory.
type Mount struct{ Source, Target string }

// Service is a program of a machine.
type Service struct {
	Name string
	Args []string
	Env  []string
	Once bool   // wait for it to end well before the next one starts
	Wait string // file (a socket) that exists when it is ready
	// Restart has it started anew when it ends, as systemd does, unless it ended as soon as it had started: a service that
	// cannot run ends the machine.
	Restart bool
}

// settled is how long a service must have run for its end to be one that a restart mends.
const settled = 2 * time.Second

// InitClone are the namespaces that a machine has for itself.
const InitClone = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET

// RunInit is the machine's first process: process 1 of a PID namespace started with InitClone. It waits for a line on
// standard input (the owner has plugged in the network by then), runs the configured services, takes in orphans, and
// ends with an error when a service ends that is not to be restarted. Ending it ends every process of the machine.
func RunInit(configPath string) error {
	text, err := os.ReadFile(configPath)
	if err != nil {
		return err
	}
	var config InitConfig
	if err := json.Unmarshal(text, &config); err != nil {
		return fmt.Errorf("read %s: %w", configPath, err)
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("the owner ended before the network was ready: %w", err)
	}
	if err := syscall.Sethostname([]byte(config.Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := mountAll(config.Mounts); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return runServices(ctx, config)
}

// mountAll cuts the machine off from the host's mounts, mounts its own, and shares those with the containers to come.
func mountAll(mounts []Mount) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("part from the host's mounts: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, m := range mounts {
		if err := m.mount(); err != nil {
			return err
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("share the mounts with containers: %w", err)
	}
	return nil
}

func (m Mount) mount() error {
	if err := os.MkdirAll(m.Target, 0o755); err != nil {
		return fmt.Errorf("make the mount point: %w", err)
	}
	if m.Source == "" {
		if err := unix.Mount("tmpfs", m.Target, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", m.Target, err)
		}
		return nil
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.Source, m.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", m.Source, m.Target, err)
	}
	return nil
}

func runServices(ctx context.Context, config InitConfig) error {
	children := newReaper()
	ended := make(chan error, len(config.Services))
	for _, service := range config.Services {
		wait, err := children.start(service, config.LogDir)
		if err != nil {
			return err
		}
		if service.Once {
			if err := wait(); err != nil {
				return err
			}
			continue
		}
		go func() { ended <- children.keep(service, config.LogDir, wait) }()
		if err := waitForFile(ctx, service.Wait); err != nil {
			return fmt.Errorf("%s is not ready: %w", service.Name, err)
		}
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// keep waits for the service's end, and as often as it asks for it starts it anew.
func (r *reaper) keep(service Service, logDir string, wait func() error) error {
	for {
		begin := time.Now()
		err := wait()
		if !service.Restart || time.Since(begin) < settled {
			return errors.Join(err, fmt.Errorf("%s ended", service.Name))
		}
		if wait, err = r.start(service, logDir); err != nil {
			return err
		}
	}
}

func waitForFile(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s did not appear: %w", path, ctx.Err())
		}
	}
}

// reaper waits for all children of process 1: the services, whose ends are told to those who wait, and orphans of
// containers, which nobody else would take in.
type reaper struct {
	started chan childStarted
}

type childStarted struct {
	run  func() (pid int, err error)
	err  chan error
	exit chan syscall.WaitStatus
}

func newReaper() *reaper {
	r := &reaper{started: make(chan childStarted)}
	go r.run()
	return r
}

// run starts children and collects them in one goroutine, so that no child can end unseen before it is known.
func (r *reaper) run() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	waiting := map[int]chan syscall.WaitStatus{}
	for {
		select {
		case child := <-r.started:
			pid, err := child.run()
			if err == nil {
				waiting[pid] = child.exit
			}
			child.err <- err
		case <-signals:
			for {
				var status syscall.WaitStatus
				pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
				if err != nil || pid <= 0 {
					break
				}
				if exit, ok := waiting[pid]; ok {
					exit <- status
					delete(waiting, pid)
				}
			}
		}
	}
}

// start starts the service; wait returns when it has ended, with an error unless it ended well.
func (r *reaper) start(service Service, logDir string) (wait func() error, err error) {
	// Appended to, so that a restart does not hide why it was necessary.
	log, err := os.OpenFile(filepath.Join(logDir, service.Name+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := exec.Command(service.Args[0], service.Args[1:]...)
	command.Env = append(os.Environ(), service.Env...)
	command.Stdout, command.Stderr = log, log
	child := childStarted{err: make(chan error, 1), exit: make(chan syscall.WaitStatus, 1)}
	child.run = func() (int, error) {
		if err := command.Start(); err != nil {
			return 0, err
		}
		return command.Process.Pid, nil
	}
	r.started <- child
	if err := <-child.err; err != nil {
		return nil, fmt.Errorf("start %s: %w", service.Name, err)
	}
	return func() error {
		if status := <-child.exit; status.ExitStatus() != 0 {
			return fmt.Errorf("%s: exit status %d; see %s", service.Name, status.ExitStatus(), log.Name())
		}
		return nil
	}, nil
}
