package driver_test

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// replica is one copy of the controller, with a client of its own for the account. Nothing of it needs a network, so that it can
// run in a bubble of testing/synctest, where waiting takes no time.
type replica struct {
	name       string
	controller csi.ControllerClient
	stop       func()
}

// startReplica runs a copy of the controller until stop is called, or the test ends. Its requests go through carry, and have
// its name as user agent.
func startReplica(t *testing.T, sim *simulatortest.Server, name string, carry http.RoundTripper, attempt time.Duration) *replica {
	t.Helper()
	account, err := cloud.New(cloud.Config{
		Token: sim.Token, BaseURL: sim.URL, ClusterID: "test", UserAgent: name, Transport: carry,
		RequestsPerSecond: 1e6, Burst: 1e6, AttemptTimeout: attempt,
	})
	if err != nil {
		t.Fatal(err)
	}
	quiet := logr.Discard()
	d, err := driver.New(driver.Config{
		Endpoint: "unix:///never-made/csi.sock", Mode: driver.ModeController, Cloud: account, Zone: zone, Version: "v1.2.3", Logger: &quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	listener := bufconn.Listen(1 << 16)
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx, listener) }()
	conn, err := grpc.NewClient("passthrough:///"+name, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		conn.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v", name, err)
		}
		account.Close()
	})
	t.Cleanup(stop)
	return &replica{name: name, controller: csi.NewControllerClient(conn), stop: stop}
}
