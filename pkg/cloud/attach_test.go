package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// disksOf are the storages of a server in the order of their slots, its system disk left out.
func disksOf(t *testing.T, sim *simulatortest.Server, server string) []string {
	t.Helper()
	var details upcloud.ServerDetails
	sim.Do(t, "GET", "/server/"+server, "", &details)
	devices := slices.Clone(details.StorageDevices)
	slices.SortFunc(devices, func(a, b upcloud.ServerStorageDevice) int { return slot(a) - slot(b) })
	var ids []string
	for _, device := range devices[1:] {
		ids = append(ids, device.UUID)
	}
	return ids
}

func slot(device upcloud.ServerStorageDevice) int {
	var n int
	_, _ = fmt.Sscanf(device.Address, "virtio:%d", &n)
	return n
}

func stateOf(t *testing.T, sim *simulatortest.Server, server string) string {
	t.Helper()
	var details upcloud.ServerDetails
	sim.Do(t, "GET", "/server/"+server, "", &details)
	return details.State
}

func stop(t *testing.T, sim *simulatortest.Server, server string) {
	t.Helper()
	sim.Do(t, "POST", "/server/"+server+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
	eventually(t, "the server is stopped", func() bool { return stateOf(t, sim, server) == "stopped" })
}

func TestAttachTakesOneCallAndDetachTwo(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	volume := mustCreate(t, c, "pvc-1")

	sim.ResetRequests()
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, sim, map[string]int{"POST /server/{uuid}/storage/attach": 1})
	if got := disksOf(t, sim, server); !slices.Equal(got, []string{volume.ID}) {
		t.Errorf("disks are %v", got)
	}
	if read, err := c.Volume(t.Context(), volume.ID); err != nil || !slices.Equal(read.ServerIDs, []string{server}) {
		t.Errorf("the volume is %+v, %v", read, err)
	}

	sim.ResetRequests()
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Errorf("already attached there: %v", err)
	}
	wantCalls(t, sim, map[string]int{"POST /server/{uuid}/storage/attach": 1, "GET /storage/{uuid}": 1})

	sim.ResetRequests()
	if err := c.Detach(t.Context(), volume.ID, server); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, sim, map[string]int{"GET /server/{uuid}": 1, "POST /server/{uuid}/storage/detach": 1})
	if got := disksOf(t, sim, server); len(got) != 0 {
		t.Errorf("disks are %v", got)
	}
	if err := c.Detach(t.Context(), volume.ID, server); err != nil {
		t.Errorf("not attached: %v", err)
	}
}

func TestCostDoesNotGrowWithTheAccount(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	for i := range 5000 {
		sim.Do(t, "POST", "/storage", fmt.Sprintf(`{"storage":{"size":"10","tier":"maxiops","title":"other","zone":%q,
			"labels":[{"key":"csi-name","value":"other-%d"}]}}`, testZone, i), nil)
	}
	sim.ResetRequests()
	volume := mustCreate(t, c, "pvc-1")
	for _, err := range []error{
		c.Attach(t.Context(), volume.ID, server),
		c.Detach(t.Context(), volume.ID, server),
		c.DeleteVolume(t.Context(), volume.ID),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	wantCalls(t, sim, map[string]int{
		"GET /storage": 2, "POST /storage": 1, // one for its name, and one a minute for what becomes of backups
		"POST /server/{uuid}/storage/attach": 1,
		"GET /server/{uuid}":                 1, "POST /server/{uuid}/storage/detach": 1,
		"DELETE /storage/{uuid}": 1,
	})
	var bytes int64
	for _, count := range sim.Requests() {
		bytes += count.BytesOut
	}
	if bytes > 64<<10 {
		t.Errorf("six calls brought %d bytes: something lists the account", bytes)
	}
}

func TestAttachedElsewhereNamesTheServer(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	here, there := sim.CreateServer(t, "here", testZone), sim.CreateServer(t, "there", testZone)
	volume := mustCreate(t, c, "pvc-1")
	if err := c.Attach(t.Context(), volume.ID, there); err != nil {
		t.Fatal(err)
	}
	sim.ResetRequests()
	wantKind(t, c.Attach(t.Context(), volume.ID, here), ErrAttachedElsewhere, volume.ID, here, there)
	wantCalls(t, sim, map[string]int{"POST /server/{uuid}/storage/attach": 1, "GET /storage/{uuid}": 1})
	// Detaching from where it is not leaves it where it is.
	if err := c.Detach(t.Context(), volume.ID, here); err != nil {
		t.Error(err)
	}
	if got := disksOf(t, sim, there); !slices.Equal(got, []string{volume.ID}) {
		t.Errorf("disks there are %v", got)
	}
}

func TestAttachSaysWhatIsGone(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	volume := mustCreate(t, c, "pvc-1")
	const noServer = "00a5568f-4766-4ce7-abf5-7d257892a5c5"
	wantKind(t, c.Attach(t.Context(), volume.ID, noServer), ErrNotFound, "server "+noServer+" does not exist")
	wantKind(t, c.Attach(t.Context(), unknownID, server), ErrNotFound, "storage "+unknownID+" does not exist")
	wantKind(t, c.Attach(t.Context(), volume.ID, "node-1"), ErrNotFound, "node-1", "UUID")
	wantKind(t, c.Attach(t.Context(), "pvc-1", server), ErrNotFound, "pvc-1", "UUID")
}

func TestAFullServerIsExhausted(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	for i := range 15 { // with the system disk 16
		if err := c.Attach(t.Context(), mustCreate(t, c, fmt.Sprint("pvc-", i)).ID, server); err != nil {
			t.Fatal(err)
		}
	}
	err := c.Attach(t.Context(), mustCreate(t, c, "pvc-15").ID, server)
	wantKind(t, err, ErrExhausted, server, "STORAGE_DEVICE_LIMIT_REACHED", "detach a volume")
}

func TestLostAnswersOfAttachAndDetachAreLookedInto(t *testing.T) {
	for name, fault := range map[string]simulator.Fault{
		"dropped before the effect": {Drop: true},
		"dropped after the effect":  {Drop: true, AfterEffect: true},
		"error before the effect":   {Status: 500},
		"error after the effect":    {Status: 503, AfterEffect: true},
		"throttled":                 {Status: 429},
		"failed hot-plug":           {Status: 409, Code: "HOTPLUG_FAILED"},
	} {
		t.Run(name, func(t *testing.T) {
			c, sim := startCloud(t, simulator.Config{})
			server := sim.CreateServer(t, "node-1", testZone)
			volume, other := mustCreate(t, c, "pvc-1"), mustCreate(t, c, "other")
			if err := c.Attach(t.Context(), other.ID, server); err != nil {
				t.Fatal(err)
			}

			fault.Count, fault.Operation = 1, "POST /server/{uuid}/storage/attach"
			sim.Inject(fault)
			if err := c.Attach(t.Context(), volume.ID, server); err != nil {
				t.Errorf("attach: %v", err)
			}
			if got := disksOf(t, sim, server); !slices.Equal(got, []string{other.ID, volume.ID}) {
				t.Errorf("disks after attach are %v", got)
			}

			fault.Operation = "POST /server/{uuid}/storage/detach"
			sim.Inject(fault)
			if err := c.Detach(t.Context(), volume.ID, server); err != nil {
				t.Errorf("detach: %v", err)
			}
			if got := disksOf(t, sim, server); !slices.Equal(got, []string{other.ID}) {
				t.Errorf("disks after detach are %v", got)
			}
		})
	}
}

func TestVolumesComeAndGoOnAStoppedServer(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	volume := mustCreate(t, c, "pvc-1")
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Fatal(err)
	}
	stop(t, sim, server)
	if err := c.Detach(t.Context(), volume.ID, server); err != nil {
		t.Errorf("detach: %v", err)
	}
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Errorf("attach: %v", err)
	}
}

func TestTwentyIdenticalAttachmentsAreOne(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{Profile: simulator.Fast})
	server := sim.CreateServer(t, "node-1", testZone)
	volume := mustCreate(t, c, "pvc-1")
	outcome := make(chan error)
	for range 20 {
		go func() { outcome <- c.Attach(t.Context(), volume.ID, server) }()
	}
	for range 20 {
		if err := <-outcome; err != nil {
			t.Error(err)
		}
	}
	if got := disksOf(t, sim, server); !slices.Equal(got, []string{volume.ID}) {
		t.Errorf("disks are %v", got)
	}
}

func TestCancelledBeforeItBegan(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Attach(ctx, unknownID, unknownID); !errors.Is(err, context.Canceled) {
		t.Errorf("attach: %v", err)
	}
	if err := c.DeleteVolume(ctx, unknownID); !errors.Is(err, context.Canceled) {
		t.Errorf("delete: %v", err)
	}
	if n := sim.Requests().Of("DELETE /storage/{uuid}"); n != 0 {
		t.Errorf("%d requests went out", n)
	}
}
