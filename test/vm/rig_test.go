//go:build linux

package vm

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/qemudisk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/vm/guest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/vm/qemu"
)

const (
	zone = "fi-hel1"
	gib  = int64(1) << 30
	// bootTimeout and callTimeout are generous: without hardware acceleration, and beside other work, all takes its time.
	bootTimeout = 10 * time.Minute
	callTimeout = 10 * time.Minute
	pluginName  = "csi-driver"
)

// rig is a simulated account, the controller beside it, and a machine that runs one of the account's servers with the node
// plugin in it.
type rig struct {
	sim        *simulatortest.Server
	server     string // UUID
	disks      string // folder of the storages' images
	machine    *qemu.Machine
	guest      *guest.Client
	controller csi.ControllerClient
	node       csi.NodeClient
}

// start boots the machine, or skips the test.
func start(t *testing.T) *rig {
	t.Helper()
	guestDir, programs := os.Getenv("VM_GUEST"), os.Getenv("VM_PROGRAMS")
	if guestDir == "" || programs == "" {
		t.Skip("boots a virtual machine: make test-vm runs it")
	}
	dir := workFolder(t)
	plane, err := qemudisk.New(qemudisk.Config{Dir: filepath.Join(dir, "sim"), ErrorLog: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{disks: filepath.Join(dir, "sim", "disks"), sim: simulatortest.Start(t, simulator.Config{Disks: plane})}
	r.server = r.sim.CreateServer(t, "worker-1", zone)
	metadata, err := url.Parse(r.sim.Metadata(t, r.server))
	if err != nil {
		t.Fatal(err)
	}
	r.startController(t, dir, filepath.Join(programs, pluginName))
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	r.machine, err = qemu.Boot(ctx, qemu.Config{
		Guest: guestDir, Dir: dir, Disks: plane.Socket(r.server), Metadata: metadata.Host,
		Programs:    []string{filepath.Join(programs, "agent"), filepath.Join(programs, pluginName), filepath.Join(programs, "disk.test")},
		Accelerator: os.Getenv("VM_ACCEL"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.machine.Close()
		t.Logf("the machine was up for %s, and kept processors busy for %s", time.Since(began).Round(time.Second),
			r.machine.ProcessorTime().Round(time.Second))
	})
	t.Cleanup(func() { r.tellWhatWentWrong(t, programs) })
	r.guest = r.machine.Guest
	t.Logf("the machine is up after %s", time.Since(began).Round(100*time.Millisecond))
	r.node = csi.NewNodeClient(dial(t, "passthrough:///"+r.machine.CSI))
	r.startPlugin(t)
	return r
}

// workFolder is removed when the test ends, also by Ctrl-C.
func workFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "test-vm-")
	if err != nil {
		t.Fatal(err)
	}
	interrupted, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-interrupted: // what this process started dies with it
			os.RemoveAll(dir)
			os.Exit(130)
		case <-done:
		}
	}()
	t.Cleanup(func() {
		signal.Stop(interrupted)
		close(done)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// startController runs the controller on this side, as a process of its own.
func (r *rig) startController(t *testing.T, dir, program string) {
	t.Helper()
	socket := "unix://" + filepath.Join(dir, "controller.sock")
	log, err := os.Create(filepath.Join(dir, "controller.log"))
	if err != nil {
		t.Fatal(err)
	}
	controller := exec.Command(program, "--mode", "controller", "--zone", zone, "--cluster-id", "vm", "--endpoint", socket)
	controller.Env = append(os.Environ(), "UPCLOUD_DEBUG_API_BASE_URL="+r.sim.URL, "UPCLOUD_USERNAME="+r.sim.Username,
		"UPCLOUD_PASSWORD="+r.sim.Password)
	controller.Stdout, controller.Stderr = log, log
	controller.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := controller.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = controller.Process.Signal(syscall.SIGTERM) // if it has ended, Wait says how
		if err := controller.Wait(); err != nil {
			t.Errorf("the controller ended with %v", err)
		}
		log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the end of the controller's log:\n%s", text[max(0, len(text)-1000):])
		}
	})
	r.controller = csi.NewControllerClient(dial(t, socket))
}

func dial(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	again := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second},
		MinConnectTimeout: 5 * time.Second,
	}
	// Servers that are not up yet, or again, are waited for.
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(again),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// startPlugin runs the node plugin in the guest.
func (r *rig) startPlugin(t *testing.T) {
	t.Helper()
	err := r.guest.Start(callContext(t), pluginName, "/opt/csi-driver", "--mode", "node", "--endpoint", "unix://"+guest.CSISocket,
		"--metadata-url", qemu.MetadataURL, "--v", "4")
	if err != nil {
		t.Fatal(err)
	}
	ctx := callContext(t)
	info, err := r.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	for status.Code(err) == codes.Unavailable && ctx.Err() == nil { // the connections end that were made before it listened
		info, err = r.node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	}
	if err != nil {
		t.Fatalf("the node plugin does not serve: %v", err)
	}
	if info.GetNodeId() != r.server || info.GetAccessibleTopology().GetSegments()["region"] != zone {
		t.Fatalf("the node plugin takes itself for %v, and runs on %s in %s", info, r.server, zone)
	}
}

// killPlugin ends the node plugin with SIGKILL.
func (r *rig) killPlugin(t *testing.T) {
	t.Helper()
	if err := r.guest.Kill(callContext(t), pluginName); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) restartPlugin(t *testing.T) {
	t.Helper()
	r.killPlugin(t)
	r.startPlugin(t)
}

// tellWhatWentWrong shows the end of the logs of a failed test, and keeps the whole beside the programs.
func (r *rig) tellWhatWentWrong(t *testing.T, programs string) {
	t.Helper()
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := r.guest.Run(ctx, nil, nil, "sh", "-c", "cat "+guest.LogDir+"/"+pluginName+
		"; mount; ls -l /dev/disk/by-id /dev/mapper; dmesg | tail -n 40")
	text := fmt.Sprintf("%s\n%v\nconsole:\n%s", out, err, r.machine.Console())
	path := filepath.Join(programs, "failure.log")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Log(err)
	}
	t.Logf("the end of the guest's logs, of which all is in %s:\n%s", path, text[max(0, len(text)-2000):])
}

func callContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	t.Cleanup(cancel)
	return ctx
}

// sh has the guest's shell execute a script, and returns its output.
func (r *rig) sh(t *testing.T, format string, args ...any) string {
	t.Helper()
	out, err := r.try(t, format, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rig) try(t *testing.T, format string, args ...any) (string, error) {
	t.Helper()
	out, err := r.guest.Run(callContext(t), nil, nil, "sh", "-ec", fmt.Sprintf(format, args...))
	return strings.TrimSpace(out), err
}

func (r *rig) read(t *testing.T, path string) string {
	t.Helper()
	return r.sh(t, "cat %s", path)
}

// until waits for a condition in the guest.
func (r *rig) until(t *testing.T, what, format string, args ...any) {
	t.Helper()
	ctx := callContext(t)
	script := fmt.Sprintf(format, args...)
	// The guest itself looks again and again: each program that is executed from outside takes far longer.
	out, err := r.guest.Run(ctx, nil, nil, "timeout", "300", "sh", "-c", "until "+script+"; do sleep 0.05; done")
	if err != nil {
		t.Fatalf("waiting until %s: %v: %s", what, err, out)
	}
}

// running is a condition: a program runs in the guest whose arguments match the pattern.
func running(pattern string) string {
	// The brackets keep what looks from finding itself. One program looks at all processes: a program for each would take as long here
	// as what is waited for runs.
	return "grep -qsa '[" + pattern[:1] + "]" + pattern[1:] + "' /proc/[0-9]*/cmdline"
}
