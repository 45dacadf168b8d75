package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/loopdisk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// Secrets of a run: what the account and the node are given, and must not appear in any line of the log.
const (
	passphrase      = "correct-horse-battery-staple"
	wrongPassphrase = "tr0ub4dor-and-three"
	wrongToken      = "ucat_WRONG0TOKEN0THAT0IS0REFUSED"
)

// A log of the highest level is what people attach to bug reports. It was the controller's and the node's, with every way to
// authenticate, right and refused, and an encrypted volume.
func TestLogsOfEveryLevelHoldNoSecrets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make loop devices and to mount")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("needs loop devices: no /dev/loop-control")
	}
	for name, credentials := range map[string]func(sim *simulatortest.Server) (environment []string, files map[string]string){
		"token": func(sim *simulatortest.Server) ([]string, map[string]string) {
			return []string{"UPCLOUD_TOKEN=" + sim.Token}, nil
		},
		"user": func(sim *simulatortest.Server) ([]string, map[string]string) {
			return []string{"UPCLOUD_USERNAME=" + sim.Username, "UPCLOUD_PASSWORD=" + sim.Password}, nil
		},
		"folder": func(sim *simulatortest.Server) ([]string, map[string]string) {
			return nil, map[string]string{"token": sim.Token}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Dir(socketPath(t))
			disks, err := loopdisk.New(filepath.Join(dir, "sim"))
			if err != nil {
				t.Fatal(err)
			}
			sim := simulatortest.Start(t, simulator.Config{
				Disks: disks, Username: "kubernetes", Password: "pass-word-0f-the-account", Token: "ucat_01SECRET0TOKEN0OF0THE0ACCOUNT",
			})
			server := sim.CreateServer(t, "worker-1", zone)
			environment, files := credentials(sim)
			credentialsDir := ""
			if files != nil {
				credentialsDir = filepath.Join(dir, "credentials")
				if err := os.Mkdir(credentialsDir, 0o700); err != nil {
					t.Fatal(err)
				}
				writeFiles(t, credentialsDir, files)
			}
			log := runAll(t, sim, dir, server, credentialsDir, environment, func(conn *grpc.ClientConn) {
				exercise(t, conn, server, dir)
				if credentialsDir != "" { // credentials that are replaced, and refused
					writeFiles(t, credentialsDir, map[string]string{"token": wrongToken})
				}
				sim.Inject(simulator.Fault{Status: 401, Count: 3})
				exercise(t, conn, server, dir)
			})
			basic := base64.StdEncoding.EncodeToString([]byte(sim.Username + ":" + sim.Password))
			for _, secret := range []string{
				sim.Token, sim.Password, basic, wrongToken, passphrase, wrongPassphrase,
				base64.StdEncoding.EncodeToString([]byte(passphrase)), base64.StdEncoding.EncodeToString([]byte(wrongPassphrase)),
			} {
				for line := range strings.Lines(log) {
					if strings.Contains(line, secret) {
						t.Errorf("the log holds %q: %s", secret, line)
					}
				}
			}
			for _, said := range []string{"CreateVolume", "NodeStageVolume", "***stripped***"} {
				if !strings.Contains(log, said) {
					t.Errorf("the log does not tell of %s: it is not of the highest level", said)
				}
			}
		})
	}
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// runAll runs controller and node as one process at -v=10, and returns all that it printed.
func runAll(t *testing.T, sim *simulatortest.Server, dir, server, credentialsDir string, environment []string, do func(*grpc.ClientConn)) string {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	socket, address := filepath.Join(dir, "csi.sock"), freeAddress(t)
	process := exec.Command(program, "--mode", "all", "--endpoint", "unix://"+socket, "--node-id", server, "--zone", zone, "-v", "10",
		"--device-dir", filepath.Join(dir, "sim", "servers", server, "by-id"), "--metadata-url", sim.Metadata(t, server),
		"--credentials-dir", credentialsDir, "--metrics-address", address)
	clearEnvironment(t)
	process.Env = append(os.Environ(), append(environment, runMainVariable+"=1", "UPCLOUD_DEBUG_API_BASE_URL="+sim.URL)...)
	var log bytes.Buffer
	process.Stdout, process.Stderr = &log, &log
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	waitFor(t, ended, "http://"+address+"/readyz")
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	do(conn)
	if err := errors.Join(conn.Close(), process.Process.Signal(os.Interrupt), <-ended); err != nil {
		t.Errorf("it ended with %v", err)
	}
	return log.String()
}

// exercise makes, publishes and stages an encrypted volume, also with a wrong passphrase. Whether the calls succeed depends on the
// kernel and on the credentials: what counts is what they log.
func exercise(t *testing.T, conn *grpc.ClientConn, server, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	secrets := map[string]string{"encryptionPassphrase": passphrase}
	capability := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
	controller, node := csi.NewControllerClient(conn), csi.NewNodeClient(conn)
	made, err := controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: "pvc-00000000-0000-4000-8000-000000000001", VolumeCapabilities: []*csi.VolumeCapability{capability},
		Parameters: map[string]string{"nodeEncryption": "luks2"}, Secrets: secrets,
	})
	if err != nil {
		t.Logf("CreateVolume: %v", err)
		return
	}
	volume := made.GetVolume()
	published, err := controller.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
		VolumeId: volume.GetVolumeId(), NodeId: server, VolumeCapability: capability, VolumeContext: volume.GetVolumeContext(), Secrets: secrets,
	})
	if err != nil {
		t.Logf("ControllerPublishVolume: %v", err)
	}
	staging := filepath.Join(dir, "staging")
	for _, key := range []string{passphrase, wrongPassphrase} {
		_, err := node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: volume.GetVolumeId(), StagingTargetPath: staging, VolumeCapability: capability, VolumeContext: volume.GetVolumeContext(),
			PublishContext: published.GetPublishContext(), Secrets: map[string]string{"encryptionPassphrase": key},
		})
		t.Logf("NodeStageVolume: %v", err)
		if err != nil && strings.Contains(err.Error(), key) {
			t.Errorf("the error holds the passphrase: %v", err)
		}
		_, err = node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: volume.GetVolumeId(), StagingTargetPath: staging})
		t.Logf("NodeUnstageVolume: %v", err)
	}
	_, err = controller.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{
		VolumeId: volume.GetVolumeId(), NodeId: server, Secrets: secrets,
	})
	t.Logf("ControllerUnpublishVolume: %v", err)
}
