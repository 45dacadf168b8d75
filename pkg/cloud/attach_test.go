package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

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
		"GET /storage": 1, "POST /storage": 1,
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

func TestMaintenanceIsWaitedOut(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{Profile: simulator.Fast})
	server := sim.CreateServer(t, "node-1", testZone)
	volume := mustCreate(t, c, "pvc-1")
	restart := func() {
		sim.Do(t, "POST", "/server/"+server+"/restart",
			`{"restart_server":{"stop_type":"hard","timeout":"60","timeout_action":"destroy"}}`, nil)
		eventually(t, "the server is in maintenance", func() bool { return stateOf(t, sim, server) == "maintenance" })
	}
	restart()
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Errorf("attach: %v", err)
	}
	restart()
	if err := c.Detach(t.Context(), volume.ID, server); err != nil {
		t.Errorf("detach: %v", err)
	}
}

func TestWaitForMaintenanceEndsWithTheCaller(t *testing.T) {
	clock := simulator.NewManualClock()
	c, sim, server := realisticServer(t, clock)
	volume := mustCreate(t, c, "pvc-1")
	sim.Do(t, "POST", "/server/"+server+"/restart",
		`{"restart_server":{"stop_type":"hard","timeout":"60","timeout_action":"destroy"}}`, nil)
	eventually(t, "the server is in maintenance", func() bool {
		clock.Advance(10 * time.Millisecond)
		return stateOf(t, sim, server) == "maintenance"
	})

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := c.Attach(ctx, volume.ID, server)
	wantKind(t, err, context.DeadlineExceeded, volume.ID, server, "maintenance")

	// The retry finds the work going on, and its end.
	retried := make(chan error)
	go func() { retried <- c.Attach(t.Context(), volume.ID, server) }()
	if err := advanceUntil(clock, retried); err != nil {
		t.Error(err)
	}
}

// realisticServer is a server in a cloud whose time stands still but for clock.Advance.
func realisticServer(t *testing.T, clock *simulator.ManualClock) (*Cloud, *simulatortest.Server, string) {
	t.Helper()
	c, sim := startCloud(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	made := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-made:
				return
			case <-time.After(time.Millisecond):
				clock.Advance(time.Second)
			}
		}
	}()
	server := sim.CreateServer(t, "node", testZone)
	close(made)
	<-stopped
	return c, sim, server
}

// advanceUntil lets simulated time pass until there is an outcome.
func advanceUntil(clock *simulator.ManualClock, outcome <-chan error) error {
	for {
		select {
		case err := <-outcome:
			return err
		case <-time.After(time.Millisecond):
			clock.Advance(100 * time.Millisecond)
		}
	}
}

func TestOneChangeAtATimePerServerInOrderOfArrival(t *testing.T) {
	clock := simulator.NewManualClock()
	c, sim, server := realisticServer(t, clock)
	var want []string
	outcome := make(chan error)
	for i := range 6 {
		volume := mustCreate(t, c, fmt.Sprint("pvc-", i))
		want = append(want, volume.ID)
		go func() { outcome <- c.Attach(t.Context(), volume.ID, server) }()
		eventually(t, "it has arrived in the queue", func() bool {
			c.queues.mu.Lock()
			defer c.queues.mu.Unlock()
			own := c.queues.servers[server]
			return own != nil && own.users == i+1
		})
	}
	for range want {
		if err := advanceUntil(clock, outcome); err != nil {
			t.Error(err)
		}
	}
	if got := disksOf(t, sim, server); !slices.Equal(got, want) {
		t.Errorf("attached in the order %v, want %v", got, want)
	}
	if n := sim.Requests()["POST /server/{uuid}/storage/attach"]; n.Requests != 6 || n.Failed != 0 {
		t.Errorf("%+v, want 6 requests and no conflict", n)
	}
}

func TestServersDoNotWaitForEachOther(t *testing.T) {
	clock := simulator.NewManualClock()
	c, sim, a := realisticServer(t, clock)
	made := make(chan string)
	go func() { made <- sim.CreateServer(t, "other", testZone) }()
	var b string
	for b == "" {
		select {
		case b = <-made:
		case <-time.After(time.Millisecond):
			clock.Advance(time.Second)
		}
	}
	outcome := make(chan error)
	for i, server := range []string{a, b} {
		volume := mustCreate(t, c, fmt.Sprint("pvc-", i))
		go func() { outcome <- c.Attach(t.Context(), volume.ID, server) }()
	}
	// Time stands still, so that neither attachment can end before the other begins.
	eventually(t, "both servers are being changed", func() bool {
		return stateOf(t, sim, a) == "maintenance" && stateOf(t, sim, b) == "maintenance"
	})
	for range 2 {
		if err := advanceUntil(clock, outcome); err != nil {
			t.Error(err)
		}
	}
}

func TestCallersLeaveTheQueueAndTheRetryJoinsWhatHasBegun(t *testing.T) {
	clock := simulator.NewManualClock()
	c, sim, server := realisticServer(t, clock)
	begun, waiting := mustCreate(t, c, "begun"), mustCreate(t, c, "waiting")

	first, leaveFirst := context.WithCancel(t.Context())
	outcome := make(chan error)
	go func() { outcome <- c.Attach(first, begun.ID, server) }()
	eventually(t, "the first is being attached", func() bool { return stateOf(t, sim, server) == "maintenance" })
	second, leaveSecond := context.WithCancel(t.Context())
	go func() { outcome <- c.Attach(second, waiting.ID, server) }()
	eventually(t, "the second is in the queue", func() bool {
		c.queues.mu.Lock()
		defer c.queues.mu.Unlock()
		return c.queues.servers[server].users == 2
	})

	leaveSecond()
	wantKind(t, <-outcome, context.Canceled, waiting.ID, "other volumes")
	leaveFirst()
	wantKind(t, <-outcome, context.Canceled, begun.ID)

	retried := make(chan error)
	go func() { retried <- c.Attach(t.Context(), begun.ID, server) }()
	if err := advanceUntil(clock, retried); err != nil {
		t.Error(err)
	}
	if n := sim.Requests()["POST /server/{uuid}/storage/attach"]; n.Requests != 1 {
		t.Errorf("%d attachments were asked for, want the one that had begun", n.Requests)
	}
	if got := disksOf(t, sim, server); !slices.Equal(got, []string{begun.ID}) {
		t.Errorf("disks are %v, want none that nobody waits for", got)
	}
}

func TestABusyVolumeDoesNotHoldUpTheOthers(t *testing.T) {
	clock := simulator.NewManualClock()
	c, sim, server := realisticServer(t, clock)
	busy, other := mustCreate(t, c, "busy"), mustCreate(t, c, "other")
	sim.Do(t, "POST", "/storage/"+busy.ID+"/backup", `{"storage":{"title":"backup"}}`, nil)

	waiting := make(chan error, 1)
	go func() { waiting <- c.Attach(t.Context(), busy.ID, server) }()
	eventually(t, "the busy one was refused", func() bool {
		return sim.Requests()["POST /server/{uuid}/storage/attach"].Failed > 0
	})
	overtaking := make(chan error, 1)
	go func() { overtaking <- c.Attach(t.Context(), other.ID, server) }()
	eventually(t, "the other is being attached", func() bool { return stateOf(t, sim, server) == "maintenance" })
	for _, outcome := range []chan error{overtaking, waiting} {
		if err := advanceUntil(clock, outcome); err != nil {
			t.Error(err)
		}
	}
	if got := disksOf(t, sim, server); len(got) != 2 {
		t.Errorf("disks are %v", got)
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
