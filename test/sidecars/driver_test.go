package sidecars

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// account is the driver's controller on a simulated account.
type account struct {
	sim        *simulatortest.Server
	endpoint   string
	controller csi.ControllerClient
}

// startDriver serves the driver until the test ends.
func startDriver(t *testing.T, cfg simulator.Config) *account {
	t.Helper()
	sim := simulatortest.Start(t, cfg)
	upcloud, err := cloud.New(cloud.Config{Token: sim.Token, BaseURL: sim.URL, ClusterID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(upcloud.Close)
	dir, err := os.MkdirTemp("", "csi") // short: it is part of a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	quiet := logr.Discard()
	d, err := driver.New(driver.Config{
		Endpoint: socketOf(dir), Mode: driver.ModeController, Cloud: upcloud, Zone: zone, Version: "v1.2.3", Logger: &quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	listener, err := d.Listen(ctx)
	if err != nil {
		stop()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func(listener net.Listener) { ended <- d.Serve(ctx, listener) }(listener)
	conn, err := grpc.NewClient(socketOf(dir), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &account{sim: sim, endpoint: socketOf(dir), controller: csi.NewControllerClient(conn)}
}

// create makes a volume, and returns its ID.
func (a *account) create(t *testing.T, sizeGiB int64) string {
	t.Helper()
	made, err := a.controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name: "pvc-1", CapacityRange: &csi.CapacityRange{RequiredBytes: sizeGiB << 30},
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return made.GetVolume().GetVolumeId()
}

// size is the size of a storage in GiB, as the API has it.
func (a *account) size(t *testing.T, id string) int {
	t.Helper()
	var answer struct{ Storage struct{ Size int } }
	a.sim.Do(t, "GET", "/storage/"+id, "", &answer)
	return answer.Storage.Size
}

// refusals is how many changes of storages the API refused.
func (a *account) refusals() (failed int) {
	for operation, count := range a.sim.Requests() {
		if strings.HasPrefix(operation, "PUT /storage") {
			failed += count.Failed
		}
	}
	return failed
}
