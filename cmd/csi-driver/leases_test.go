package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/rest"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// leaseServer is an API server that has nothing but leases.
type leaseServer struct {
	mu      sync.Mutex
	leases  map[string]map[string]any // spec by name
	refusal int                       // answered to everything; 0: nothing is wrong
}

func (s *leaseServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	spec, found := s.leases[path.Base(r.URL.Path)]
	switch {
	case s.refusal != 0:
		w.WriteHeader(s.refusal)
	case !found || path.Dir(r.URL.Path) != "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases":
		w.WriteHeader(http.StatusNotFound)
	default:
		_ = json.NewEncoder(w).Encode(map[string]any{"spec": spec})
	}
}

// hold makes a Pod have renewed a lease so long ago.
func (s *leaseServer) hold(lease, pod string, ago time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases[lease] = map[string]any{
		"holderIdentity": pod, "leaseDurationSeconds": 15, "renewTime": time.Now().Add(-ago).UTC().Format("2006-01-02T15:04:05.000000Z"),
	}
}

func (s *leaseServer) refuse(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = code
}

const ownPod, otherPod = "upcloud-csi-controller-1", "upcloud-csi-controller-2"

func startLeases(t *testing.T) (*leaseServer, *sidecarLeases, *httptest.Server) {
	t.Helper()
	server := &leaseServer{leases: map[string]map[string]any{}}
	web := httptest.NewServer(server)
	t.Cleanup(web.Close)
	leases, err := sidecarLeasesOf(&rest.Config{Host: web.URL}, "kube-system", ownPod)
	if err != nil {
		t.Fatal(err)
	}
	return server, leases, web
}

// callOf is the context of a call, as gRPC makes it.
type callOf struct{ grpc.ServerTransportStream }

func (callOf) Method() string { return "/csi.v1.Controller/ControllerPublishVolume" }

func (s *sidecarLeases) checkAnew(t *testing.T) error {
	t.Helper()
	for _, guard := range s.fences {
		guard.Forget()
	}
	return s.check(grpc.NewContextWithServerTransportStream(t.Context(), callOf{}))
}

func TestLeasesAreNamedAsTheSidecarsNameThem(t *testing.T) {
	for got, want := range map[string]string{
		provisionerLease: "storage-csi-upcloud-com",
		attacherLease:    "external-attacher-leader-storage-csi-upcloud-com",
		resizerLease:     "external-resizer-storage-csi-upcloud-com",
		snapshotterLease: "external-snapshotter-leader-storage-csi-upcloud-com",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestChangesDependOnTheLeaseOfTheirSidecar(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(*leaseServer)
		want string // in the error; empty: permitted
	}{
		"ours":                        {func(s *leaseServer) { s.hold(attacherLease, ownPod, time.Second) }, ""},
		"another's":                   {func(s *leaseServer) { s.hold(attacherLease, otherPod, time.Second) }, otherPod},
		"given back":                  {func(s *leaseServer) { s.hold(attacherLease, "", time.Second) }, "no Pod"},
		"ours, about to end":          {func(s *leaseServer) { s.hold(attacherLease, ownPod, 11*time.Second) }, "renewed"},
		"no election":                 {func(*leaseServer) {}, ""},
		"no election any more":        {func(s *leaseServer) { s.hold(attacherLease, otherPod, time.Hour) }, ""},
		"another sidecar's elsewhere": {func(s *leaseServer) { s.hold(provisionerLease, otherPod, time.Second) }, ""},
		"not allowed to read leases":  {func(s *leaseServer) { s.refuse(http.StatusForbidden) }, ""},
		"API server failing":          {func(s *leaseServer) { s.refuse(http.StatusServiceUnavailable) }, "503"},
	} {
		t.Run(name, func(t *testing.T) {
			server, leases, _ := startLeases(t)
			test.set(server)
			err := leases.checkAnew(t)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("error %v, want one that mentions %q", err, test.want)
			}
		})
	}
}

func TestChangesAreRefusedWhileTheAPIServerIsOutOfReach(t *testing.T) {
	server, leases, web := startLeases(t)
	server.hold(attacherLease, ownPod, 0)
	if err := leases.checkAnew(t); err != nil {
		t.Fatal(err)
	}
	web.Close()
	if err := leases.checkAnew(t); err == nil || !strings.Contains(err.Error(), attacherLease) {
		t.Errorf("error %v, want one that names the lease", err)
	}
}

// serveWithLeases serves the controller on an account that it may change by the leases only.
func serveWithLeases(t *testing.T, leases *sidecarLeases) (csi.ControllerClient, *simulatortest.Server) {
	t.Helper()
	sim := simulatortest.Start(t, simulator.Config{})
	clearEnvironment(t)
	account, err := cloud.New(cloud.Config{Token: sim.Token, BaseURL: sim.URL, BeforeChange: leases.check})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	endpoint := "unix://" + socketPath(t)
	program, err := driver.New(driver.Config{Endpoint: endpoint, Mode: driver.ModeController, Zone: zone, Cloud: account})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := program.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- program.Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return csi.NewControllerClient(conn), sim
}

// Each sidecar has its own leader: one that leads may act here while another one may not.
func TestTheControllerChangesTheAccountForSidecarsThatLeadOnly(t *testing.T) {
	server, leases, _ := startLeases(t)
	server.hold(provisionerLease, ownPod, 0)
	server.hold(attacherLease, otherPod, 0)
	controller, sim := serveWithLeases(t, leases)
	node := sim.CreateServer(t, "worker-1", zone)
	capability := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
	made, err := controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name: "pvc-0e5c2f8a-7d1b-4c3e-9a6f-2b4d6e8f0a1c", VolumeCapabilities: []*csi.VolumeCapability{capability},
	})
	if err != nil {
		t.Fatalf("create, for the provisioner that leads: %v", err)
	}
	publish := func() error {
		_, err := controller.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{
			VolumeId: made.GetVolume().GetVolumeId(), NodeId: node, VolumeCapability: capability,
		})
		return err
	}
	sim.ResetRequests()
	err = publish()
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), otherPod) {
		t.Errorf("publish, for an attacher that does not lead: %v", err)
	}
	if n := sim.Requests().Of("POST /server/{uuid}/storage/attach"); n != 0 {
		t.Errorf("%d attachments were asked for", n)
	}
	server.hold(attacherLease, ownPod, 0)
	if err := publish(); err != nil {
		t.Errorf("publish, for the attacher that leads now: %v", err)
	}
	server.hold(attacherLease, otherPod, 0)
	leases.fences[attacherLease].Forget()
	_, err = controller.ControllerUnpublishVolume(t.Context(), &csi.ControllerUnpublishVolumeRequest{
		VolumeId: made.GetVolume().GetVolumeId(), NodeId: node,
	})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("unpublish, for an attacher that leads no more: %v", err)
	}
	if n := sim.Requests().Of("POST /server/{uuid}/storage/detach"); n != 0 {
		t.Errorf("%d detachments were asked for", n)
	}
}
