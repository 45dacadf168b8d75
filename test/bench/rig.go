package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"
	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const (
	zone = "fi-hel1"
	gib  = int64(1) << 30
)

// rig is a simulated account with the driver's controller on it, asked over its socket as Kubernetes' sidecars do.
type rig struct {
	simulator  *simulator.Simulator
	url        string
	account    *service.Service // an administrator's way past the driver
	network    string           // private network of the servers; empty: none
	controller csi.ControllerClient
	close      []func()
}

func newRig(ctx context.Context, config simulator.Config) (*rig, error) {
	return newRigAt(ctx, config, time.Now)
}

// newRigAt makes a rig whose driver goes by that clock where it judges how old an answer of the API is.
func newRigAt(ctx context.Context, config simulator.Config, now func() time.Time) (*rig, error) {
	r := &rig{}
	sim, err := simulator.New(config)
	if err != nil {
		return nil, err
	}
	r.simulator = sim
	api := httptest.NewServer(sim.Handler())
	r.close = append(r.close, func() { _ = sim.Close() }, api.Close)
	r.url = api.URL
	r.account = service.New(client.New(simulator.DefaultUsername, simulator.DefaultPassword, client.WithBaseURL(api.URL)))
	// The driver's own limits on requests are for the real API's sake; what is measured here is the driver.
	own, err := cloud.New(cloud.Config{Username: simulator.DefaultUsername, Password: simulator.DefaultPassword, BaseURL: api.URL,
		ClusterID: "bench", RequestsPerSecond: 1000, Burst: 1000, Concurrency: 256, Now: now})
	if err != nil {
		r.Close()
		return nil, err
	}
	r.close = append(r.close, own.Close)
	if err := r.serve(ctx, own); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *rig) serve(ctx context.Context, account *cloud.Cloud) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	r.close = append(r.close, func() { _ = os.RemoveAll(dir) })
	endpoint := "unix://" + filepath.Join(dir, "csi.sock")
	program, err := driver.New(driver.Config{Mode: driver.ModeController, Cloud: account, Endpoint: endpoint, Zone: zone, Version: "bench"})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	listener, err := program.Listen(ctx)
	if err != nil {
		cancel()
		return err
	}
	served := make(chan error, 1)
	go func() { served <- program.Serve(ctx, listener) }()
	r.close = append(r.close, func() {
		cancel()
		if err := <-served; err != nil {
			fmt.Fprintln(os.Stderr, "the driver ended:", err)
		}
	})
	connection, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	r.close = append(r.close, func() { _ = connection.Close() })
	r.controller = csi.NewControllerClient(connection)
	return nil
}

// Close ends the driver and the simulator.
func (r *rig) Close() {
	for i := len(r.close) - 1; i >= 0; i-- {
		r.close[i]()
	}
}

// servers makes so many servers and waits until they have started.
func (r *rig) servers(ctx context.Context, count int) ([]string, error) {
	ids := make([]string, count)
	making, ctx := errgroup.WithContext(ctx)
	for i := range ids {
		making.Go(func() (err error) {
			ids[i], err = r.server(ctx, fmt.Sprintf("node-%d", i+1))
			return err
		})
	}
	return ids, making.Wait()
}

// server makes one, and waits until it has started.
func (r *rig) server(ctx context.Context, name string) (id string, err error) {
	interfaces := request.CreateServerInterfaceSlice{{Type: upcloud.NetworkTypePublic,
		IPAddresses: request.CreateServerIPAddressSlice{{Family: upcloud.IPAddressFamilyIPv4}}}}
	if r.network != "" {
		interfaces = append(interfaces, request.CreateServerInterface{Type: upcloud.NetworkTypePrivate, Network: r.network,
			IPAddresses: request.CreateServerIPAddressSlice{{Family: upcloud.IPAddressFamilyIPv4}}})
	}
	server, err := r.account.CreateServer(ctx, &request.CreateServerRequest{Hostname: name, Title: name, Zone: zone, Plan: "2xCPU-4GB",
		StorageDevices: request.CreateServerStorageDeviceSlice{{Action: request.CreateServerStorageDeviceActionCreate, Title: name, Size: 10}},
		Networking:     &request.CreateServerNetworking{Interfaces: interfaces}})
	if err != nil {
		return "", err
	}
	return server.UUID, r.awaitStarted(ctx, server.UUID)
}

func (r *rig) awaitStarted(ctx context.Context, server string) error {
	return poll(ctx, 50*time.Millisecond, func() (bool, error) {
		details, err := r.account.GetServerDetails(ctx, &request.GetServerDetailsRequest{UUID: server})
		return err == nil && details.State == upcloud.ServerStateStarted, err
	})
}

var singleWriter = &csi.VolumeCapability{
	AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
}

// claimName is a name as external-provisioner makes it.
func claimName(n int) string { return fmt.Sprintf("pvc-00000000-0000-4000-8000-%012d", n) }

func (r *rig) createVolume(ctx context.Context, name string) (string, error) {
	answer, err := r.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: name,
		CapacityRange: &csi.CapacityRange{RequiredBytes: gib}, VolumeCapabilities: []*csi.VolumeCapability{singleWriter}})
	return answer.GetVolume().GetVolumeId(), err
}

func (r *rig) publish(ctx context.Context, volume, server string) error {
	_, err := r.controller.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{VolumeId: volume, NodeId: server,
		VolumeCapability: singleWriter})
	return err
}

func (r *rig) unpublish(ctx context.Context, volume, server string) error {
	_, err := r.controller.ControllerUnpublishVolume(ctx, &csi.ControllerUnpublishVolumeRequest{VolumeId: volume, NodeId: server})
	return err
}
