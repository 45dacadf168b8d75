package sidecars

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
)

// refusing is a CSI driver that answers every call of its controller with the same kind of error, as ours words it.
type refusing struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	kind error

	mu       sync.Mutex
	requests []any
}

// startRefusing serves such a driver until the test ends.
func startRefusing(t *testing.T, kind error) (*refusing, *grpc.ClientConn) {
	t.Helper()
	r := &refusing{kind: kind}
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, r)
	csi.RegisterControllerServer(server, r)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///refusing", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r, conn
}

func (r *refusing) refuse(rpc string, req any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, req)
	return answer(rpc, r.kind)
}

// asked is how many calls came.
func (r *refusing) asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.requests)
}

func (r *refusing) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driver.Name, VendorVersion: "test"}, nil
}

func (r *refusing) CreateVolume(_ context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	return nil, r.refuse("CreateVolume", req)
}

func (r *refusing) ControllerPublishVolume(_ context.Context, req *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	return nil, r.refuse("ControllerPublishVolume", req)
}

func (r *refusing) CreateSnapshot(_ context.Context, req *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	return nil, r.refuse("CreateSnapshot", req)
}
