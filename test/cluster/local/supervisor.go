package local

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// The supervisor is a process of its own, so that a cluster can outlive the command that started it. It talks with that
// command over its standard streams: it reads its Config, a line of JSON; it writes a line for each step, then a line
// "ready" or "failed: …". When its input ends without a line "keep" it takes the cluster down.
const (
	wordReady  = "ready"
	wordFailed = "failed: "
	wordKeep   = "keep"
)

// Supervise runs the supervisor's side until it is told to end (SIGTERM, the starter's end, or a broken cluster).
func Supervise(input io.Reader, output io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGPIPE) // the starter may have ended; what it started must still be taken down in order
	lines := bufio.NewReader(input)
	text, err := lines.ReadString('\n')
	if err != nil {
		return err
	}
	var config Config
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	ctx, abandon := context.WithCancel(ctx)
	defer abandon()
	go func() { // ends with the process at the latest
		if line, _ := lines.ReadString('\n'); strings.TrimSpace(line) != wordKeep {
			abandon()
		}
	}()
	cluster, err := Start(ctx, config, func(step string, took time.Duration) {
		fmt.Fprintf(output, "%s (%.1f s)\n", step, took.Seconds())
	})
	if err != nil {
		fmt.Fprintln(output, wordFailed+strings.ReplaceAll(err.Error(), "\n", "; "))
		return err
	}
	fmt.Fprintln(output, wordReady)
	select {
	case <-ctx.Done():
	case err = <-cluster.Ended():
		fmt.Fprintln(os.Stderr, "the cluster is broken:", err)
	}
	return errors.Join(err, cluster.Close())
}

// Handle is the starter's side of a supervisor.
type Handle struct {
	command *exec.Cmd
	input   io.WriteCloser
}

// Launch starts a supervisor with the config and waits until the cluster is ready, passing the steps on to report. The
// cluster ends with this process unless Keep is called.
func Launch(ctx context.Context, config Config, report func(line string)) (*Handle, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, "supervise")
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C at the terminal reaches the starter alone
	if command.Stderr, err = supervisorLog(config); err != nil {
		return nil, err
	}
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	h := &Handle{command: command, input: input}
	if err := json.NewEncoder(input).Encode(config); err != nil {
		return nil, errors.Join(err, h.Down())
	}
	stop := context.AfterFunc(ctx, func() { _ = input.Close() })
	defer stop()
	if err := readSteps(output, report); err != nil {
		_ = h.Down() // its exit status says nothing that its last words have not said
		return nil, err
	}
	return h, nil
}

func supervisorLog(config Config) (*os.File, error) {
	if err := os.MkdirAll(config.OutputDir, 0o755); err != nil {
		return nil, err
	}
	return os.Create(config.OutputDir + "/supervisor.log")
}

func readSteps(output io.Reader, report func(string)) error {
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		line := lines.Text()
		if line == wordReady {
			return nil
		}
		if reason, failed := strings.CutPrefix(line, wordFailed); failed {
			return errors.New(reason)
		}
		report(line)
	}
	return errors.Join(errors.New("the supervisor ended before the cluster was ready; see supervisor.log"), lines.Err())
}

// Keep lets the cluster run on when this process ends.
func (h *Handle) Keep() error {
	_, err := io.WriteString(h.input, wordKeep+"\n")
	return err
}

// Down takes the cluster down and returns when nothing of it is left.
func (h *Handle) Down() error {
	_ = h.input.Close()
	return h.command.Wait()
}

// Down ends the cluster that runs on this machine, whoever started it, and removes what a killed one left.
func Down(ctx context.Context) error {
	if own, err := lock(); err == nil {
		return errors.Join(sweep(), own.Close())
	}
	if status, err := ReadStatus(); err == nil { // the lock is held, so the process ID is the supervisor's
		if err := syscall.Kill(status.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end the supervisor, process %d: %w", status.PID, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if own, err := lock(); err == nil { // nobody has it: the supervisor has ended
			return errors.Join(sweep(), own.Close())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the cluster is still going down; see its logs: %w", ctx.Err())
		}
	}
}
