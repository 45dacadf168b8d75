package simulatortest_test

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func TestAttachThroughTheSDK(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	uuid := sim.CreateServer(t, "node-1", "fi-hel1")
	svc := service.New(client.New(sim.Username, sim.Password, client.WithBaseURL(sim.URL)))
	ctx := t.Context()

	disk, err := svc.CreateStorage(ctx, &request.CreateStorageRequest{
		Size: 10, Tier: upcloud.StorageTierMaxIOPS, Title: "data", Zone: "fi-hel1",
		Labels: []upcloud.Label{{Key: "csi-name", Value: "pvc-1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	server, err := svc.AttachStorage(ctx, &request.AttachStorageRequest{ServerUUID: uuid, StorageUUID: disk.UUID,
		Type: "disk", Address: "virtio"})
	if err != nil {
		t.Fatal(err)
	}
	dev := server.StorageDevice(disk.UUID)
	if dev == nil || dev.Address != "virtio:1" || server.State != "started" {
		t.Fatalf("after the attach: state %s, device %+v", server.State, dev)
	}
	if _, err := svc.DetachStorage(ctx, &request.DetachStorageRequest{ServerUUID: uuid, Address: dev.Address}); err != nil {
		t.Fatal(err)
	}
	if err := svc.DeleteStorage(ctx, &request.DeleteStorageRequest{UUID: disk.UUID}); err != nil {
		t.Fatal(err)
	}
	if n := sim.Requests().Of("POST /server/{uuid}/storage/attach"); n != 1 {
		t.Errorf("%d attaches counted, want 1", n)
	}
}

func TestMetadataOfOneServer(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	uuid := sim.CreateServer(t, "node-1", "de-fra1")
	url := sim.Metadata(t, uuid)
	for path, want := range map[string]string{"instance_id": uuid, "hostname": "node-1", "region": "de-fra1"} {
		resp, err := http.Get(url + "/metadata/v1/" + path)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(got) != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// Nothing between a client and a simulator in memory is a network, so that time passes for both in a bubble.
func TestSimulatorInMemoryServesInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := simulatortest.StartInMemory(t, simulator.Config{Profile: simulator.Realistic})
		uuid := sim.CreateServer(t, "node-1", "fi-hel1")
		svc := service.New(client.New(sim.Username, sim.Password, client.WithBaseURL(sim.URL),
			client.WithHTTPClient(&http.Client{Transport: sim.Transport()})))
		details, err := svc.GetServerDetails(t.Context(), &request.GetServerDetailsRequest{UUID: uuid})
		if err != nil || details.State != upcloud.ServerStateStarted {
			t.Errorf("got %+v, %v; want a started server", details, err)
		}
		sim.Inject(simulator.Fault{Drop: true, Count: 1})
		if _, err := svc.GetAccount(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a dropped request returned %v, want %v", err, io.ErrUnexpectedEOF)
		}
	})
}
