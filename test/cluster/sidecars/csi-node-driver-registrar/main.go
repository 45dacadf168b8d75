// Command csi-node-driver-registrar stands in for the Kubernetes project's program of that name in the local cluster,
// because that one cannot be had as a Go module. It takes the flags that the shipped manifests use and does the same:
// it serves the kubelet's plugin registration API (k8s.io/kubelet/pkg/apis/pluginregistration/v1) for a CSI driver.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const registrationDir = "/registration"

func main() {
	csiAddress := flag.String("csi-address", "/run/csi/socket", "socket of the CSI driver")
	kubeletPath := flag.String("kubelet-registration-path", "", "path of that socket as the kubelet sees it")
	klog.InitFlags(nil)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *csiAddress, *kubeletPath); err != nil {
		klog.ErrorS(err, "Cannot register the driver")
		os.Exit(1)
	}
}

func run(ctx context.Context, csiAddress, kubeletPath string) error {
	if kubeletPath == "" {
		return errors.New("--kubelet-registration-path is not set")
	}
	name, err := driverName(ctx, csiAddress)
	if err != nil {
		return err
	}
	klog.InfoS("Found the driver", "name", name)
	socket := filepath.Join(registrationDir, name+"-reg.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	registrar := &registrar{info: &registerapi.PluginInfo{
		Type: registerapi.CSIPlugin, Name: name, Endpoint: kubeletPath, SupportedVersions: []string{"1.0.0"}},
		failed: make(chan error, 1)}
	registerapi.RegisterRegistrationServer(server, registrar)
	go func() {
		select {
		case <-ctx.Done():
		case err := <-registrar.failed: // the container's restart is the retry, as in the original
			klog.ErrorS(err, "The kubelet refused the driver")
		}
		server.GracefulStop()
	}()
	return server.Serve(listener)
}

// driverName waits for the driver, which may start after this program, and asks its name.
func driverName(ctx context.Context, address string) (string, error) {
	connection, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	answer, err := csi.NewIdentityClient(connection).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return "", fmt.Errorf("ask the CSI driver at %s for its name: %w", address, err)
	}
	return answer.GetName(), nil
}

// registrar answers the kubelet.
type registrar struct {
	registerapi.UnimplementedRegistrationServer
	info   *registerapi.PluginInfo
	failed chan error
}

func (r *registrar) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return r.info, nil
}

func (r *registrar) NotifyRegistrationStatus(_ context.Context, status *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	if !status.GetPluginRegistered() {
		r.failed <- errors.New(status.GetError())
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}
