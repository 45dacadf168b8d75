package cloud

import (
	"slices"
	"testing"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func TestDetachTakesTheAddressOfNow(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	a, b := mustCreate(t, c, "a"), mustCreate(t, c, "b")
	for _, id := range []string{a.ID, b.ID} {
		if err := c.Attach(t.Context(), id, server); err != nil {
			t.Fatal(err)
		}
	}
	// Somebody else moves the first to another slot, and puts a disk of theirs into the one it had.
	theirs := makeTwin(t, sim, "theirs")
	sim.Do(t, "POST", "/server/"+server+"/storage/detach", `{"storage_device":{"address":"virtio:1"}}`, nil)
	sim.Do(t, "POST", "/server/"+server+"/storage/attach",
		`{"storage_device":{"type":"disk","address":"virtio:1","storage":"`+theirs+`"}}`, nil)
	sim.Do(t, "POST", "/server/"+server+"/storage/attach",
		`{"storage_device":{"type":"disk","address":"virtio:5","storage":"`+a.ID+`"}}`, nil)

	if err := c.Detach(t.Context(), a.ID, server); err != nil {
		t.Fatal(err)
	}
	if got := disksOf(t, sim, server); !slices.Equal(got, []string{theirs, b.ID}) {
		t.Errorf("disks left are %v, want theirs %s and %s", got, theirs, b.ID)
	}
}

func TestDetachFromADeletedServer(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	volume := mustCreate(t, c, "pvc-1")
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Fatal(err)
	}
	stop(t, sim, server)
	sim.Do(t, "DELETE", "/server/"+server, "", nil)
	for _, from := range []string{server, ""} {
		if err := c.Detach(t.Context(), volume.ID, from); err != nil {
			t.Errorf("from %q: %v", from, err)
		}
	}
	other := sim.CreateServer(t, "node-2", testZone)
	if err := c.Attach(t.Context(), volume.ID, other); err != nil {
		t.Errorf("the volume cannot move on: %v", err)
	}
}

func TestDetachIsNeverClaimedWhileTheStorageIsAttached(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	volume := mustCreate(t, c, "pvc-1")
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Fatal(err)
	}
	// The API denies the server for a moment, as a user without the right to it sees.
	remove := sim.Inject(simulator.Fault{Operation: "GET /server/{uuid}", Status: 404, Code: "SERVER_NOT_FOUND"})
	wantKind(t, c.Detach(t.Context(), volume.ID, server), ErrBusy, volume.ID, server, "still counts as attached")
	remove()

	// A proxy without the API behind it is no word on the storage.
	remove = sim.Inject(simulator.Fault{Operation: "GET /server/{uuid}", Status: 403, Code: "SERVER_FORBIDDEN"})
	wantKind(t, c.Detach(t.Context(), volume.ID, server), ErrForbidden)
	remove()
	if err := c.Detach(t.Context(), volume.ID, server); err != nil {
		t.Error(err)
	}
}

func TestDetachFromEveryServer(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	volume := mustCreate(t, c, "pvc-1")
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Fatal(err)
	}
	if err := c.Detach(t.Context(), volume.ID, ""); err != nil {
		t.Fatal(err)
	}
	if got := disksOf(t, sim, server); len(got) != 0 {
		t.Errorf("disks are %v", got)
	}
	if err := c.Detach(t.Context(), volume.ID, ""); err != nil {
		t.Errorf("attached to nothing: %v", err)
	}
}

func TestDetachByHostName(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	volume := mustCreate(t, c, "pvc-1")
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Fatal(err)
	}
	// The server may have been renamed: that it is another one cannot be told, so success must not be.
	wantKind(t, c.Detach(t.Context(), volume.ID, "node-2"), ErrAttachedElsewhere, volume.ID, server, "node-2")
	if err := c.Detach(t.Context(), volume.ID, "NODE-1"); err != nil {
		t.Fatal(err)
	}
	if got := disksOf(t, sim, server); len(got) != 0 {
		t.Errorf("disks are %v", got)
	}
	if err := c.Detach(t.Context(), volume.ID, "node-2"); err != nil {
		t.Errorf("attached to nothing: %v", err)
	}
}

func TestDetachOfWhatDoesNotExist(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	for _, volume := range []string{unknownID, "not-a-uuid", ""} {
		for _, from := range []string{server, "00a5568f-4766-4ce7-abf5-7d257892a5c5", "node-1", ""} {
			if err := c.Detach(t.Context(), volume, from); err != nil {
				t.Errorf("volume %q from server %q: %v", volume, from, err)
			}
		}
	}
}

func TestTheAnswerToADetachmentIsChecked(t *testing.T) {
	disks := func(server string, storages ...string) *upcloud.ServerDetails {
		details := &upcloud.ServerDetails{Server: upcloud.Server{UUID: server}}
		for _, id := range storages {
			details.StorageDevices = append(details.StorageDevices, upcloud.ServerStorageDevice{UUID: id})
		}
		return details
	}
	before := disks("s", "root", "wanted", "other")
	for name, test := range map[string]struct {
		after     *upcloud.ServerDetails
		want      error
		uncertain bool
	}{
		"this disk has gone":       {disks("s", "root", "other"), nil, false},
		"it is still there":        {disks("s", "root", "wanted", "other"), ErrUnavailable, true},
		"another has gone instead": {disks("s", "root", "wanted"), ErrServerState, false},
		"another server":           {disks("x", "root"), ErrUnavailable, true},
		"no answer at all":         {disks(""), ErrUnavailable, true},
	} {
		err := checkDetached(before, test.after, before.StorageDevice("wanted"))
		if test.want == nil && err == nil {
			continue
		}
		wantKind(t, err, test.want)
		if uncertain(err) != test.uncertain {
			t.Errorf("%s: uncertain is %t", name, uncertain(err))
		}
	}
}
