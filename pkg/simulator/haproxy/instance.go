package haproxy

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// instance is one HAProxy: a master process that replaces its worker at each change, and lets the old worker finish the
// connections it has.
type instance struct {
	program, dir string
	rules        RuleEvaluation
	ended        func(error)  // is called when the process ends without having been told to
	addresses    []netip.Addr // guarded by the plane's lock

	mu      sync.Mutex
	applied [sha256.Size]byte // fingerprint of what runs
	serving bool              // until the process ends
	master  *exec.Cmd
	exited  chan struct{}
	output  *tail
}

const (
	reloadTimeout = time.Minute // a machine may have much else to do
	stopTimeout   = 5 * time.Second
)

func newInstance(program, dir string, rules RuleEvaluation, ended func(error)) *instance {
	return &instance{program: program, dir: dir, rules: rules, ended: ended}
}

func (i *instance) configPath() string { return filepath.Join(i.dir, "haproxy.cfg") }
func (i *instance) socketPath() string { return filepath.Join(i.dir, "master.sock") }

// apply makes the process run as described. A configuration that HAProxy refuses leaves the former one running.
func (i *instance) apply(ctx context.Context, spec simulator.LoadBalancerSpec) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := os.MkdirAll(i.dir, 0o755); err != nil {
		return err
	}
	next, err := render(spec, i.dir, i.rules)
	if err != nil {
		return err
	}
	if next.fingerprint() == i.applied && i.running() {
		return nil
	}
	if err := next.write(); err != nil {
		return err
	}
	if err := i.check(ctx, next.config); err != nil {
		return err
	}
	if err := os.WriteFile(i.configPath(), next.config, 0o600); err != nil {
		return err
	}
	if i.running() {
		err = i.reload(ctx, next.config)
	} else {
		err = errors.Join(i.forgetHealth(), i.start(ctx))
	}
	if err == nil {
		i.applied, i.serving = next.fingerprint(), true
	}
	return err
}

func (i *instance) running() bool {
	if i.master == nil {
		return false
	}
	select {
	case <-i.exited:
		return false
	default:
		return true
	}
}

// check has HAProxy read the configuration without running it.
func (i *instance) check(ctx context.Context, config []byte) error {
	path := i.configPath() + ".new"
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return err
	}
	defer os.Remove(path)
	cmd := exec.CommandContext(ctx, i.program, "-c", "-f", filepath.Base(path))
	cmd.Dir = i.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("haproxy refuses the configuration: %s", strings.TrimSpace(string(out)))
	}
	return nil
}

func (i *instance) start(ctx context.Context) error {
	if err := os.Remove(i.socketPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// relative, for a socket's path has at most 107 bytes
	cmd := exec.Command(i.program, "-W", "-S", "unix@master.sock", "-f", "haproxy.cfg")
	cmd.Dir = i.dir
	cmd.SysProcAttr = processAttributes()
	i.output = &tail{}
	cmd.Stdout, cmd.Stderr = i.output, i.output
	started, exited := make(chan error), make(chan struct{})
	go func() { // ends with the process, which stop ends
		runtime.LockOSThread() // the kernel ends the process with the thread that started it: with this program, so
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(exited)
		i.hasEnded(cmd)
	}()
	if err := <-started; err != nil {
		return err
	}
	i.master, i.exited = cmd, exited
	return i.awaitWorker(ctx, "")
}

// hasEnded tells about a process that served, and was not told to end.
func (i *instance) hasEnded(cmd *exec.Cmd) {
	i.mu.Lock()
	unexpected := i.serving && i.master == cmd
	if unexpected {
		i.serving = false
	}
	i.mu.Unlock()
	if unexpected {
		i.ended(fmt.Errorf("haproxy ended: %s: %s", cmd.ProcessState, i.output.last()))
	}
}

// reload has the master start a new worker, and returns when that one serves. The master hands it the
// former one's sockets, so that no connection is lost, and it knows what that one knew of the members' health.
func (i *instance) reload(ctx context.Context, config []byte) error {
	before, err := i.workers(ctx)
	if err != nil {
		return err
	}
	if err := i.keepHealth(ctx, config); err != nil {
		return err
	}
	i.output.forget()
	if err := i.master.Process.Signal(syscall.SIGUSR2); err != nil {
		return err
	}
	return i.awaitWorker(ctx, current(before))
}

// awaitWorker waits until the master has a worker other than the one with that process ID.
func (i *instance) awaitWorker(ctx context.Context, former string) error {
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	for {
		if !i.running() {
			return fmt.Errorf("haproxy ended: %s", i.output.last())
		}
		status, err := i.workers(ctx)
		if pid := current(status); err == nil && pid != "" && pid != former {
			return nil
		}
		if strings.Contains(i.output.last(), "Loading failure") {
			return fmt.Errorf("haproxy did not take the new configuration: %s", i.output.last())
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-i.exited:
		case <-ctx.Done():
			return fmt.Errorf("haproxy did not take the new configuration: %s", i.output.last())
		}
	}
}

// workers asks the master for its processes.
func (i *instance) workers(ctx context.Context) (string, error) {
	fd, err := os.Open(i.dir)
	if err != nil {
		return "", err
	}
	defer fd.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/master.sock", fd.Fd()) // short, whatever the folder is called
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(stopTimeout))
	if _, err := io.WriteString(conn, "show proc\n"); err != nil {
		return "", err
	}
	var status strings.Builder
	for lines := bufio.NewScanner(conn); lines.Scan(); { // the master leaves the connection open
		if lines.Text() == "# programs" {
			return status.String(), nil
		}
		status.WriteString(lines.Text() + "\n")
	}
	return "", errors.New("the master process breaks its answer off")
}

// current returns the process ID of the worker that serves, of what `show proc` says.
func current(status string) string {
	_, rest, found := strings.Cut(status, "# workers\n")
	if !found {
		return ""
	}
	line, _, _ := strings.Cut(rest, "\n")
	fields := strings.Fields(line)
	if len(fields) < 2 || strings.HasPrefix(line, "#") || fields[1] != "worker" {
		return ""
	}
	return fields[0]
}

// stop ends the process and its connections, and removes its files.
func (i *instance) stop() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.serving = false
	if i.running() {
		_ = i.master.Process.Signal(syscall.SIGTERM)
		select {
		case <-i.exited:
		case <-time.After(stopTimeout):
			_ = i.master.Process.Kill()
			<-i.exited
		}
	}
	i.master = nil
	return os.RemoveAll(i.dir)
}

// tail keeps the last of what a process writes.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 4096

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - tailSize; over > 0 {
		t.text = append([]byte(nil), t.text[over:]...)
	}
	return len(b), nil
}

func (t *tail) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = nil
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
