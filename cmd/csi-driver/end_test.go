package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/loopdisk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// runMainVariable makes a run of this test's own program be csi-driver.
const runMainVariable = "CSI_DRIVER_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMainVariable) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// server is a simulated server with one real disk, on which node plugins are run as processes.
type server struct {
	dir, id, byID string
	metadata      string
	volume        string
	mkfs          string // folder of an mkfs that waits
}

func newServer(t *testing.T) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make loop devices and to mount")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("needs loop devices: no /dev/loop-control")
	}
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip(err)
	}
	s := &server{dir: filepath.Dir(socketPath(t))}
	disks, err := loopdisk.New(filepath.Join(s.dir, "sim"))
	if err != nil {
		t.Fatal(err)
	}
	sim := simulatortest.Start(t, simulator.Config{Disks: disks})
	s.id = sim.CreateServer(t, "worker-1", zone)
	s.metadata = sim.Metadata(t, s.id)
	s.byID = filepath.Join(s.dir, "sim", "servers", s.id, "by-id")
	var made struct{ Storage struct{ UUID string } }
	sim.Do(t, "POST", "/storage", `{"storage":{"size":1,"tier":"maxiops","title":"data","zone":"`+zone+`"}}`, &made)
	s.volume = made.Storage.UUID
	sim.Do(t, "POST", "/server/"+s.id+"/storage/attach", `{"storage_device":{"type":"disk","address":"virtio","storage":"`+s.volume+`"}}`, nil)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", s.staging()).CombinedOutput(); err != nil && !strings.Contains(string(out), "not mounted") &&
			!strings.Contains(string(out), "no mount point") {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	s.mkfs = filepath.Join(s.dir, "bin")
	script := fmt.Sprintf("#!/bin/sh\n: >%[1]s/started\nwhile [ ! -e %[1]s/go ]; do sleep 0.01; done\nexec %[2]s \"$@\"\n", s.mkfs, mkfs)
	if err := errors.Join(os.Mkdir(s.mkfs, 0o700), os.WriteFile(filepath.Join(s.mkfs, "mkfs.ext4"), []byte(script), 0o700)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.letMkfsGo(t) })
	return s
}

func (s *server) staging() string { return filepath.Join(s.dir, "staging") }
func (s *server) socket() string  { return filepath.Join(s.dir, "csi.sock") }

func (s *server) letMkfsGo(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.mkfs, "go"), nil, 0o600); err != nil {
		t.Error(err)
	}
}

func (s *server) awaitMkfs(t *testing.T) {
	t.Helper()
	await(t, "mkfs is started", func() bool {
		_, err := os.Stat(filepath.Join(s.mkfs, "started"))
		return err == nil
	})
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true: %s", what)
		}
	}
}

// plugin is a process of the node plugin.
type plugin struct {
	process *exec.Cmd
	log     *bytes.Buffer
	web     string
	node    csi.NodeClient
	ended   chan error
}

func (s *server) start(t *testing.T, args ...string) *plugin {
	t.Helper()
	address := freeAddress(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &plugin{log: &bytes.Buffer{}, web: "http://" + address, ended: make(chan error, 1)}
	p.process = exec.Command(program, append([]string{"--mode", "node", "--endpoint", "unix://" + s.socket(), "--device-dir", s.byID,
		"--metadata-url", s.metadata, "--metrics-address", address}, args...)...)
	p.process.Env = append(os.Environ(), runMainVariable+"=1", "PATH="+s.mkfs+":"+os.Getenv("PATH"))
	p.process.Stdout, p.process.Stderr = p.log, p.log
	if err := p.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.process.Wait() }()
	t.Cleanup(func() { _ = p.process.Process.Kill() })
	conn, err := grpc.NewClient("unix://"+s.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p.node = csi.NewNodeClient(conn)
	if body := waitFor(t, p.ended, p.web+"/readyz"); body != "ok\n" {
		t.Fatalf("/readyz says %q", body)
	}
	return p
}

func (s *server) stage(p *plugin) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := p.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: s.volume, StagingTargetPath: s.staging(), VolumeCapability: &csi.VolumeCapability{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
		},
	})
	return err
}

func (p *plugin) terminate(t *testing.T) {
	t.Helper()
	if err := p.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// awaitEnd waits until the process has ended well.
func (p *plugin) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case err := <-p.ended:
		if err != nil {
			t.Fatalf("it ended with %v\n%s", err, p.log)
		}
	case <-time.After(time.Minute):
		t.Fatal("it did not end")
	}
}

// A plugin that is asked to end while it formats lets the call finish, is not ready meanwhile, and takes its socket along.
func TestEndFinishesTheCallInFlight(t *testing.T) {
	s := newServer(t)
	p := s.start(t)
	staged := make(chan error, 1)
	go func() { staged <- s.stage(p) }()
	s.awaitMkfs(t)
	p.terminate(t)
	await(t, "it is not ready any more", func() bool {
		response, err := http.Get(p.web + "/readyz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusServiceUnavailable
	})
	select {
	case err := <-staged:
		t.Fatalf("the call was cut off: %v", err)
	case err := <-p.ended:
		t.Fatalf("it ended during a call: %v", err)
	default:
	}
	s.letMkfsGo(t)
	if err := <-staged; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	p.awaitEnd(t)
	if _, err := os.Lstat(s.socket()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// Where a call does not end in time, the process does, and the next one goes on with what it left.
func TestEndIsBounded(t *testing.T) {
	s := newServer(t)
	p := s.start(t, "--stop-timeout", "100ms")
	staged := make(chan error, 1)
	go func() { staged <- s.stage(p) }()
	s.awaitMkfs(t)
	p.terminate(t)
	if err := <-staged; status.Code(err) != codes.Unavailable {
		t.Errorf("the call in flight: %v, want UNAVAILABLE", err)
	}
	p.awaitEnd(t)
	s.letMkfsGo(t)
	next := s.start(t)
	await(t, "the next process finishes the work", func() bool { return s.stage(next) == nil })
	next.terminate(t)
	next.awaitEnd(t)
}
