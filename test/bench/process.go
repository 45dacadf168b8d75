package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// process is the real csi-driver, built as it is shipped and run as a process of its own.
type process struct {
	command  *exec.Cmd
	output   *bytes.Buffer // its log
	folder   string
	conn     *grpc.ClientConn
	identity csi.IdentityClient
}

// buildDriver builds csi-driver as `make build` does.
func buildDriver(ctx context.Context) (path string, remove func(), err error) {
	folder, err := os.MkdirTemp("", "bench")
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(folder, "csi-driver")
	command := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/csi-driver")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return "", nil, errors.Join(fmt.Errorf("building csi-driver: %w: %s", err, output), os.RemoveAll(folder))
	}
	return path, func() { _ = os.RemoveAll(folder) }, nil
}

// startDriver runs csi-driver with a socket of its own, and waits until it answers.
func startDriver(ctx context.Context, program string, environment []string, args ...string) (*process, error) {
	folder, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	endpoint := "unix://" + filepath.Join(folder, "csi.sock")
	p := &process{folder: folder, output: &bytes.Buffer{}}
	p.command = exec.Command(program, append([]string{"--endpoint", endpoint}, args...)...)
	p.command.Env = append(os.Environ(), environment...)
	p.command.Stdout, p.command.Stderr = p.output, p.output
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.command.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	if p.conn, err = grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	p.identity = csi.NewIdentityClient(p.conn)
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := p.identity.Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true)); err != nil {
		return nil, errors.Join(fmt.Errorf("csi-driver does not answer: %w", err), p.stop())
	}
	return p, nil
}

// stop ends the process as Kubernetes does, and tells its log if it ended badly.
func (p *process) stop() error {
	if p.conn != nil {
		_ = p.conn.Close()
	}
	err := p.command.Process.Signal(syscall.SIGTERM)
	if waitErr := p.command.Wait(); waitErr != nil {
		err = errors.Join(err, fmt.Errorf("csi-driver: %w\n%s", waitErr, p.output))
	}
	return errors.Join(err, os.RemoveAll(p.folder))
}

// residentMB is the process's resident memory in units of 1,000,000 bytes.
func (p *process) residentMB() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			return kib * 1024 / 1e6, nil
		}
	}
	return 0, errors.New("the kernel does not tell the process's resident memory")
}
