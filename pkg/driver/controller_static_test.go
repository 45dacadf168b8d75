package driver_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// csi-attacher attaches a volume again that ListVolumes does not list at its node. A static PersistentVolume names a disk that
// someone made by hand: neither labels nor title say that it is a volume.
func TestStaticVolumeIsListedAtItsNode(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone)
	static, other := makeDisk(t, sim, ""), makeDisk(t, sim, "")
	r := newRest(t, sim)
	if got := r.published(t); len(got) != 0 {
		t.Errorf("before anything is attached: %v", got)
	}
	if _, err := r.publish(t, static, server); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{static: {server}}
	for range 10 {
		if got := r.published(t); !maps.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("listed are %v, want %v", got, want)
		}
		r.clock.advance(reconcileSync)
	}
	// Another copy of the controller, and one that starts later, know the volume too.
	later := newRest(t, sim)
	if got := later.published(t); !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("another copy lists %v, want %v", got, want)
	}
	attachByHand(t, sim, other, server)
	want[other] = []string{server}
	r.noticedAfter(t, reconcileSync, other, server)
	if err := r.unpublish(t, static, server); err != nil {
		t.Fatal(err)
	}
	delete(want, static)
	if got := r.published(t); !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("after it was unpublished: %v, want %v", got, want)
	}
}

func TestListVolumesLeavesOutSystemDisksAndOtherClusters(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone) // with a system disk, which the API does not mark
	theirs := serve(t, sim, driver.Config{Mode: driver.ModeController, Cloud: newCloudOf(t, sim, "other")})
	volume := theirs.create(t, createRequest("theirs")).GetVolumeId()
	if _, err := theirs.publish(t, volume, server); err != nil {
		t.Fatal(err)
	}
	r := newRest(t, sim)
	if got := r.published(t); len(got) != 0 {
		t.Errorf("listed are %v, want none", got)
	}
	// Where someone chose the disk that the server boots from, that is the system disk, and the first disk is not.
	chosen := makeDisk(t, sim, "")
	sim.Do(t, "POST", "/server/"+server+"/storage/attach", fmt.Sprintf(
		`{"storage_device":{"type":"disk","address":"virtio","boot_disk":"1","storage":%q}}`, chosen), nil)
	r.clock.advance(cloudForgets)
	got := r.published(t)
	if _, listed := got[chosen]; listed || len(got) != 1 {
		t.Errorf("listed are %v, want the first disk alone", got)
	}
}

// cloudForgets is a pause after which a controller asks for everything again.
const cloudForgets = time.Hour

// In an account of many servers those are found that have the cluster's volumes, and the others are not all asked.
func TestListVolumesInAnAccountOfManyServers(t *testing.T) {
	const foreign, servers, each = 150, 5, 6
	sim := simulatortest.Start(t, simulator.Config{})
	for n := range foreign {
		sim.CreateServer(t, fmt.Sprint("foreign-", n), zone)
	}
	places, ids := populate(t, sim, servers, each)
	static := makeDisk(t, sim, "")
	attachByHand(t, sim, static, ids[0])
	places[static] = []string{ids[0]} // known because its neighbours are
	r := newRest(t, sim)
	sim.ResetRequests()
	if got := r.published(t); !maps.EqualFunc(got, places, slices.Equal) {
		t.Errorf("listed are %v, want %v", got, places)
	}
	if calls := sim.Requests().Total(); calls > 2+servers*each+servers {
		t.Errorf("the first list took %d calls: %v", calls, sim.Requests())
	}
}

// A start of the controller makes no call for each volume either: servers tell of many.
func TestFirstListVolumesAsksServers(t *testing.T) {
	const servers, each = 30, 10
	sim := simulatortest.Start(t, simulator.Config{})
	places, _ := populate(t, sim, servers, each)
	r := newRest(t, sim)
	sim.ResetRequests()
	if got := r.published(t); !maps.EqualFunc(got, places, slices.Equal) {
		t.Errorf("%d volumes are listed, or at other places: want %d", len(got), len(places))
	}
	if calls := sim.Requests().Total(); calls != 2+servers {
		t.Errorf("%d calls, want 2 lists and one for each of %d servers: %v", calls, servers, sim.Requests())
	}
}
