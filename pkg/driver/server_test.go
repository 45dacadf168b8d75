package driver_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func TestIdentity(t *testing.T) {
	r := newController(t, simulator.Config{})
	info, err := r.identity.GetPluginInfo(callContext(t), &csi.GetPluginInfoRequest{})
	if err != nil || info.GetName() != "storage.csi.upcloud.com" || info.GetVendorVersion() != "v1.2.3" {
		t.Errorf("plugin info %v, %v", info, err)
	}
	capabilities, err := r.identity.GetPluginCapabilities(callContext(t), &csi.GetPluginCapabilitiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var services []csi.PluginCapability_Service_Type
	for _, c := range capabilities.GetCapabilities() {
		services = append(services, c.GetService().GetType())
	}
	for _, want := range []csi.PluginCapability_Service_Type{
		csi.PluginCapability_Service_CONTROLLER_SERVICE, csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
	} {
		if !slices.Contains(services, want) {
			t.Errorf("capabilities %v, want %s among them", services, want)
		}
	}
}

func TestProbeIsReadyWhileTheAPIIsDown(t *testing.T) {
	r := newController(t, simulator.Config{})
	r.sim.Inject(simulator.Fault{Status: 503})
	probe, err := r.identity.Probe(callContext(t), &csi.ProbeRequest{})
	if err != nil || !probe.GetReady().GetValue() {
		t.Errorf("probe: %v, %v", probe, err)
	}
	if err := driver.CheckLive(callContext(t), r.endpoint); err != nil {
		t.Errorf("health: %v", err)
	}
}

func TestAPIErrorsHaveTheirCodes(t *testing.T) {
	r := newController(t, simulator.Config{})
	for status, want := range map[int]codes.Code{401: codes.Unauthenticated, 403: codes.PermissionDenied} {
		remove := r.sim.Inject(simulator.Fault{Status: status})
		_, err := r.controller.ListVolumes(callContext(t), &csi.ListVolumesRequest{})
		remove()
		wantCode(t, err, want)
	}
	// An outage must not be a final answer, which would let the provisioner forget the volume.
	remove := r.sim.Inject(simulator.Fault{Status: 503})
	defer remove()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err := r.controller.CreateVolume(ctx, createRequest("pvc-1"))
	if code := codeOf(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
		t.Errorf("outage: %v", err)
	}
}

func TestListenTakesOverOnlyAStaleSocket(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "csi.sock")
	sim := simulatortest.Start(t, simulator.Config{})
	account := newCloud(t, sim)
	listen := func() (net.Listener, error) {
		d, err := driver.New(driver.Config{Endpoint: "unix://" + path, Mode: driver.ModeController, Cloud: account})
		if err != nil {
			t.Fatal(err)
		}
		return d.Listen(context.Background())
	}
	first, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	_, err = listen()
	want := "--endpoint: " + path + " is in use by another csi-driver; stop it or choose another path"
	if err == nil || err.Error() != want {
		t.Errorf("a live server there: %v, want %s", err, want)
	}
	// A server that was killed leaves its socket behind.
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	second, err := listen()
	if err != nil {
		t.Fatalf("a stale socket there: %v", err)
	}
	second.Close()

	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = listen(); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file there: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "data" {
		t.Errorf("the file was touched: %q, %v", data, err)
	}
}

// Of many that start at once where a killed driver left its socket, one gets it, and keeps it.
func TestOneOfManyTakesOverAStaleSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "csi.sock")
	account := newCloud(t, simulatortest.Start(t, simulator.Config{}))
	for range 20 {
		stale, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		stale.(*net.UnixListener).SetUnlinkOnClose(false)
		stale.Close()
		var wg sync.WaitGroup
		got := make(chan net.Listener, 8)
		for range cap(got) {
			wg.Go(func() {
				d, err := driver.New(driver.Config{Endpoint: path, Mode: driver.ModeController, Cloud: account})
				if err != nil {
					t.Error(err)
					return
				}
				if listener, err := d.Listen(context.Background()); err == nil {
					got <- listener
				}
			})
		}
		wg.Wait()
		close(got)
		if len(got) != 1 {
			t.Errorf("%d took the socket over", len(got))
		}
		for listener := range got {
			listener.Close()
		}
	}
}

func TestBadEndpoints(t *testing.T) {
	for _, endpoint := range []string{"", "csi.sock", "unix://csi.sock", "tcp://127.0.0.1:1", "http:///csi.sock",
		"unix:///" + strings.Repeat("a", 120)} {
		_, err := driver.New(driver.Config{Endpoint: endpoint, Mode: driver.ModeController})
		if err == nil || !strings.HasPrefix(err.Error(), "--endpoint: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

func TestStopFinishesCallsInFlight(t *testing.T) {
	served := make(chan struct{})
	var once sync.Once
	r := newController(t, simulator.Config{})
	r.sim.Inject(simulator.Fault{Operation: "POST /storage", Count: 1, Latency: 500 * time.Millisecond})
	created := make(chan error, 1)
	go func() {
		_, err := r.controller.CreateVolume(context.Background(), createRequest("pvc-1"))
		created <- err
	}()
	go func() { // the first of its requests has been answered: the call is in flight
		for r.sim.Requests().Total() == 0 {
			time.Sleep(time.Millisecond)
		}
		once.Do(func() { close(served) })
	}()
	<-served
	if err := r.stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := <-created; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if _, err := os.Stat(strings.TrimPrefix(r.endpoint, "unix://")); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// safeBuffer is a log that many goroutines write to.
type safeBuffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *safeBuffer) add(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data.WriteString(text + "\n")
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}

// A caller whose time is over learns nothing but that; the log has to tell what took it.
func TestTheLogTellsWhatATimeoutWaitedFor(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Clock: clock})
	var log safeBuffer
	logger := funcr.New(func(prefix, args string) { log.add(prefix + " " + args) }, funcr.Options{})
	r := serve(t, sim, driver.Config{Mode: driver.ModeController, Cloud: newCloud(t, sim), Logger: &logger})
	server := sim.CreateServer(t, "worker-1", zone)
	id := r.create(t, createRequest("pvc-1")).GetVolumeId()
	sim.Inject(simulator.Fault{Operation: "POST /server/{uuid}/storage/attach", Latency: time.Minute, Count: 1})
	before := clock.Pending()
	held := func() bool { return clock.Pending() > before }
	err := leaveWhen(t, "the attachment is on its way", held, func(ctx context.Context) error {
		_, err := r.controller.ControllerPublishVolume(ctx, &csi.ControllerPublishVolumeRequest{
			VolumeId: id, NodeId: server, VolumeCapability: writer(),
		})
		return err
	})
	wantCode(t, err, codes.Canceled)
	eventually(t, "the log tells", func() bool { return strings.Contains(log.String(), "the API has not answered yet") })
}

func TestLogsAndMetrics(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	var log safeBuffer
	logger := funcr.New(func(prefix, args string) { log.add(prefix + " " + args) }, funcr.Options{Verbosity: 10})
	registry := prometheus.NewPedanticRegistry()
	r := serve(t, sim, driver.Config{
		Mode: driver.ModeController, Cloud: newCloud(t, sim), Logger: &logger, Registerer: registry,
	})
	req := createRequest("pvc-1")
	req.Secrets = map[string]string{"passphrase": "hunter2"}
	r.create(t, req)
	if _, err := r.publish(t, "no-such-volume", "no-such-node"); err == nil {
		t.Fatal("publishing a volume that is not there")
	}
	text := log.String()
	if strings.Contains(text, "hunter2") {
		t.Error("a secret is in the log")
	}
	for _, want := range []string{"requestID", `"method"="CreateVolume"`, `"name"="pvc-1"`, `"volume"="no-such-volume"`, `"node"="no-such-node"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log has no %s", want)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := make(map[string]uint64)
	for _, family := range families {
		if family.GetName() != "upcloud_csi_rpc_duration_seconds" {
			continue
		}
		for _, metric := range family.GetMetric() {
			var key []string
			for _, label := range metric.GetLabel() {
				key = append(key, label.GetValue())
			}
			slices.Sort(key)
			counted[strings.Join(key, " ")] = metric.GetHistogram().GetSampleCount()
		}
	}
	for key, want := range map[string]uint64{"CreateVolume OK": 1, "ControllerPublishVolume NotFound": 1} {
		if counted[key] != want {
			t.Errorf("%s was counted %d times, want %d: %v", key, counted[key], want, counted)
		}
	}
}
