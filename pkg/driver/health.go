package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// healthTimeout is less than the shortest timeout that Kubernetes gives a probe by habit.
const healthTimeout = 3 * time.Second

// CheckLive tells whether the driver does its work: it calls Probe over the socket, as the container orchestrator would,
// so that it fails too when the socket is gone, or when calls get stuck. A driver that fails it is mended by a restart;
// what no restart mends (an outage of the API, a Node that is not registered) does not make it fail.
func CheckLive(ctx context.Context, endpoint string) error {
	sock, err := parseEndpoint(endpoint)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+sock.path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	response, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{})
	if err != nil {
		return err
	}
	if !response.GetReady().GetValue() {
		return errors.New("the driver is not ready")
	}
	return nil
}

// CheckReady tells whether the driver is of use to its cluster: it serves, is not about to end, and on a node of
// Kubernetes its kubelet has registered it and the Node's startup taint is off. The error says what is missing.
func (d *Driver) CheckReady(ctx context.Context) error {
	if d.stopping.Load() {
		return errors.New("the driver is stopping")
	}
	if err := CheckLive(ctx, d.socket.endpoint); err != nil {
		return err
	}
	if err := d.registration.ready(); err != nil {
		return fmt.Errorf("the node is not ready: %w", err)
	}
	return nil
}
