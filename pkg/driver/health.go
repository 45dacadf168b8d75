package driver

import (
	"context"
	"errors"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// healthTimeout is less than the shortest timeout that Kubernetes gives a probe by habit.
const healthTimeout = 3 * time.Second

// CheckHealth calls Probe over the socket, as the container orchestrator would: it fails too when the socket is gone.
func CheckHealth(ctx context.Context, endpoint string) error {
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
