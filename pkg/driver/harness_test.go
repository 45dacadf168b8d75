package driver_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const (
	zone = "fi-hel1"
	gib  = int64(1) << 30
)

// rig is a driver that serves over a socket, on a simulated account.
type rig struct {
	sim        *simulatortest.Server
	endpoint   string
	driver     *driver.Driver
	conn       *grpc.ClientConn
	identity   csi.IdentityClient
	controller csi.ControllerClient
	node       csi.NodeClient
	stop       func() error // ends the driver and waits for it
}

// newController runs a controller on an account of its own.
func newController(t *testing.T, cfg simulator.Config) *rig {
	t.Helper()
	sim := simulatortest.Start(t, cfg)
	return serve(t, sim, driver.Config{Mode: driver.ModeController, Cloud: newCloud(t, sim)})
}

func newCloud(t *testing.T, sim *simulatortest.Server) *cloud.Cloud {
	t.Helper()
	return newCloudOf(t, sim, "test")
}

func newCloudOf(t *testing.T, sim *simulatortest.Server, cluster string) *cloud.Cloud {
	t.Helper()
	account, err := cloud.New(cloud.Config{
		Username: sim.Username, Password: sim.Password, BaseURL: sim.URL, ClusterID: cluster,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	return account
}

// serve runs a driver until the test ends, or until rig.stop.
func serve(t *testing.T, sim *simulatortest.Server, cfg driver.Config) *rig {
	t.Helper()
	cfg.Endpoint = "unix://" + filepath.Join(shortDir(t), "csi.sock")
	cfg.Version = "v1.2.3"
	cfg.Zone = zone
	if cfg.Logger == nil {
		quiet := logr.Discard()
		cfg.Logger = &quiet
	}
	d, err := driver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	listener, err := d.Listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var served error
	go func() {
		defer close(ended)
		served = d.Serve(ctx, listener)
	}()
	conn, err := grpc.NewClient(cfg.Endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		sim: sim, endpoint: cfg.Endpoint, driver: d, conn: conn,
		identity:   csi.NewIdentityClient(conn),
		controller: csi.NewControllerClient(conn),
		node:       csi.NewNodeClient(conn),
		stop: func() error {
			cancel()
			<-ended
			return served
		},
	}
	t.Cleanup(func() {
		conn.Close()
		if err := r.stop(); err != nil {
			t.Errorf("the driver ended with %v", err)
		}
	})
	return r
}

// shortDir is a folder whose name leaves room for a socket in the 107 bytes that its path can have.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "csi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func callContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// leaveWhen makes the call with a context that ends as soon as the condition is true, and returns the call's error.
func leaveWhen(t *testing.T, what string, condition func() bool, call func(context.Context) error) error {
	t.Helper()
	ctx, leave := context.WithCancel(callContext(t))
	defer leave()
	outcome := make(chan error, 1)
	go func() { outcome <- call(ctx) }()
	eventually(t, what, condition)
	leave()
	return <-outcome
}

// advanceUntil lets simulated time pass until there is an outcome.
func advanceUntil(t *testing.T, clock *simulator.ManualClock, outcome <-chan error) error {
	pause := simulatortest.PassTime(t, clock, 100*time.Millisecond)
	defer pause()
	return <-outcome
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
}

func mountCapability(mode csi.VolumeCapability_AccessMode_Mode, fsType string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType}},
	}
}

func blockCapability(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
}

func writer() *csi.VolumeCapability {
	return mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "ext4")
}

// createRequest asks for a volume of 1 GiB.
// claimName is a name as external-provisioner makes it.
func claimName(n int) string { return fmt.Sprintf("pvc-00000000-0000-4000-8000-%012d", n) }

func createRequest(name string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name:               name,
		CapacityRange:      &csi.CapacityRange{RequiredBytes: gib},
		VolumeCapabilities: []*csi.VolumeCapability{writer()},
	}
}

func (r *rig) create(t *testing.T, req *csi.CreateVolumeRequest) *csi.Volume {
	t.Helper()
	resp, err := r.controller.CreateVolume(callContext(t), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetVolume()
}

func (r *rig) publish(t *testing.T, volumeID, nodeID string) (map[string]string, error) {
	t.Helper()
	resp, err := r.controller.ControllerPublishVolume(callContext(t), &csi.ControllerPublishVolumeRequest{
		VolumeId: volumeID, NodeId: nodeID, VolumeCapability: writer(),
	})
	return resp.GetPublishContext(), err
}

func (r *rig) unpublish(t *testing.T, volumeID, nodeID string) error {
	t.Helper()
	_, err := r.controller.ControllerUnpublishVolume(callContext(t), &csi.ControllerUnpublishVolumeRequest{
		VolumeId: volumeID, NodeId: nodeID,
	})
	return err
}

// storage is a storage as the API shows it.
type storage struct {
	UUID, Title, Tier, Zone, Encrypted string
	Size                               int
	Labels                             []struct{ Key, Value string }
	Servers                            struct{ Server []string }
}

func (s storage) labels() map[string]string {
	found := make(map[string]string)
	for _, label := range s.Labels {
		found[label.Key] = label.Value
	}
	return found
}

func (r *rig) storage(t *testing.T, id string) storage {
	t.Helper()
	var answer struct{ Storage storage }
	r.sim.Do(t, "GET", "/storage/"+id, "", &answer)
	return answer.Storage
}

// storagesNamed lists the storages of that title.
func (r *rig) storagesNamed(t *testing.T, title string) (found []storage) {
	t.Helper()
	var answer struct{ Storages struct{ Storage []storage } }
	r.sim.Do(t, "GET", "/storage/private", "", &answer)
	for _, s := range answer.Storages.Storage {
		if s.Title == title {
			found = append(found, s)
		}
	}
	return found
}
