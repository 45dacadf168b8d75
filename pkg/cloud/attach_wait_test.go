package cloud

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func TestMaintenanceIsWaitedOut(t *testing.T) {
	clock := simulator.NewManualClock()
	c, sim, server := realisticServer(t, clock)
	volume := mustCreate(t, c, "pvc-1")
	for _, step := range []struct {
		operation string
		change    func(context.Context, string, string) error
	}{
		{"POST /server/{uuid}/storage/attach", c.Attach},
		{"POST /server/{uuid}/storage/detach", c.Detach},
	} {
		restart(t, sim, clock, server)
		sim.ResetRequests()
		outcome := make(chan error)
		go func() { outcome <- step.change(t.Context(), volume.ID, server) }()
		eventually(t, "the server's state is polled", func() bool { return sim.Requests().Of("GET /server/{uuid}") > 3 })
		if n := sim.Requests()[step.operation]; n.Requests != 1 || n.Failed != 1 {
			t.Errorf("%s: %+v while in maintenance, want one refusal", step.operation, n)
		}
		if err := advanceUntil(t, clock, outcome); err != nil {
			t.Errorf("%s: %v", step.operation, err)
		}
	}
}

// restart brings a server into maintenance, in which it stays until the clock moves on.
func restart(t *testing.T, sim *simulatortest.Server, clock *simulator.ManualClock, server string) {
	t.Helper()
	sim.Do(t, "POST", "/server/"+server+"/restart",
		`{"restart_server":{"stop_type":"hard","timeout":"60","timeout_action":"destroy"}}`, nil)
	eventually(t, "the server is in maintenance", func() bool {
		if stateOf(t, sim, server) == "maintenance" {
			return true
		}
		clock.Advance(100 * time.Millisecond)
		return false
	})
}

func TestWaitForMaintenanceEndsWithTheCaller(t *testing.T) {
	clock := simulator.NewManualClock()
	c, sim, server := realisticServer(t, clock)
	volume := mustCreate(t, c, "pvc-1")
	restart(t, sim, clock, server)

	sim.ResetRequests()
	polled := func() bool { return sim.Requests().Of("GET /server/{uuid}") > 1 }
	err := leaveWhen(t, "the server's state is polled again", polled, func(ctx context.Context) error {
		return c.Attach(ctx, volume.ID, server)
	})
	wantKind(t, err, context.Canceled, volume.ID, server, "maintenance")

	// The retry finds the work going on, and its end.
	retried := make(chan error)
	go func() { retried <- c.Attach(t.Context(), volume.ID, server) }()
	if err := advanceUntil(t, clock, retried); err != nil {
		t.Error(err)
	}
}

// realisticServer is a server in a cloud whose time stands still but for clock.Advance.
func realisticServer(t *testing.T, clock *simulator.ManualClock) (*Cloud, *simulatortest.Server, string) {
	t.Helper()
	c, sim := startCloud(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	pause := simulatortest.PassTime(t, clock, time.Second)
	defer pause()
	server := sim.CreateServer(t, "node", testZone)
	return c, sim, server
}

// advanceUntil lets simulated time pass until there is an outcome.
func advanceUntil(t *testing.T, clock *simulator.ManualClock, outcome <-chan error) error {
	pause := simulatortest.PassTime(t, clock, 100*time.Millisecond)
	defer pause()
	return <-outcome
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
		if err := advanceUntil(t, clock, outcome); err != nil {
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
		if err := advanceUntil(t, clock, outcome); err != nil {
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
	if err := advanceUntil(t, clock, retried); err != nil {
		t.Error(err)
	}
	eventually(t, "the queue is empty", func() bool {
		clock.Advance(100 * time.Millisecond)
		c.queues.mu.Lock()
		defer c.queues.mu.Unlock()
		return len(c.queues.servers) == 0
	})
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
		if err := advanceUntil(t, clock, outcome); err != nil {
			t.Error(err)
		}
	}
	if got := disksOf(t, sim, server); len(got) != 2 {
		t.Errorf("disks are %v", got)
	}
}
