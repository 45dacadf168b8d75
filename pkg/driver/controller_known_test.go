package driver_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// Where the volumes are that this process changed is known without a call. A first attachment is noted on the volume, after which
// its labels are listed again.
func TestListVolumesKnowsOwnChangesWithoutACall(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	places, servers := populate(t, sim, 2, 2)
	r := newRest(t, sim)
	r.published(t)
	volume := slices.Sorted(maps.Keys(places))[0]
	at := places[volume][0]
	for range 3 {
		if err := r.unpublish(t, volume, at); err != nil {
			t.Fatal(err)
		}
		places[volume] = nil
		sim.ResetRequests()
		if got := r.published(t); !maps.EqualFunc(got, places, slices.Equal) {
			t.Errorf("after unpublishing: %v, want %v", got, places)
		}
		if n := sim.Requests().Total(); n > 0 {
			t.Errorf("after unpublishing the list took %d calls: %v", n, sim.Requests())
		}
		at = servers[(slices.Index(servers, at)+1)%len(servers)]
		if _, err := r.publish(t, volume, at); err != nil {
			t.Fatal(err)
		}
		places[volume] = []string{at}
		sim.ResetRequests()
		if got := r.published(t); !maps.EqualFunc(got, places, slices.Equal) {
			t.Errorf("after publishing: %v, want %v", got, places)
		}
		if n := sim.Requests().Total() - sim.Requests().Of("GET /storage/normal"); n > 0 {
			t.Errorf("after publishing the list took %d calls: %v", n, sim.Requests())
		}
	}
}

// ControllerGetVolume reads the volume, and what it reads is known to ListVolumes too.
func TestListVolumesKnowsWhatGetVolumeRead(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	places, servers := populate(t, sim, 2, 1)
	static := makeDisk(t, sim, "")
	r := newRest(t, sim)
	r.published(t)
	volume := slices.Sorted(maps.Keys(places))[0]
	from, to := places[volume][0], servers[0]
	if from == to {
		to = servers[1]
	}
	detachByHand(t, sim, volume, from)
	attachByHand(t, sim, volume, to)
	attachByHand(t, sim, static, to)
	for _, id := range []string{volume, static} {
		resp, err := r.controller.ControllerGetVolume(callContext(t), &csi.ControllerGetVolumeRequest{VolumeId: id})
		if err != nil || !slices.Equal(resp.GetStatus().GetPublishedNodeIds(), []string{to}) {
			t.Fatalf("%v, %v", resp, err)
		}
		places[id] = []string{to}
	}
	sim.ResetRequests()
	if got := r.published(t); !maps.EqualFunc(got, places, slices.Equal) {
		t.Errorf("listed are %v, want %v", got, places)
	}
	if n := sim.Requests().Total(); n > 0 {
		t.Errorf("the list took %d calls: %v", n, sim.Requests())
	}
}

// The other copy of the controller attaches and detaches while it leads. What this copy knew is then out of date.
func TestListVolumesNoticesChangesOfAnotherCopy(t *testing.T) {
	for _, pause := range []time.Duration{reconcileSync, time.Hour} {
		t.Run(fmt.Sprint("after ", pause), func(t *testing.T) {
			sim := simulatortest.Start(t, simulator.Config{})
			places, servers := populate(t, sim, 4, 2)
			first, second := newRest(t, sim), newRest(t, sim)
			first.published(t)
			ids := slices.Sorted(maps.Keys(places))
			detached, moved := ids[0], ids[1]
			for _, id := range []string{detached, moved} {
				if err := second.unpublish(t, id, places[id][0]); err != nil {
					t.Fatal(err)
				}
			}
			to := servers[(slices.Index(servers, places[moved][0])+1)%len(servers)]
			if _, err := second.publish(t, moved, to); err != nil {
				t.Fatal(err)
			}
			places[detached], places[moved] = nil, []string{to}
			first.clock.advance(pause)
			for passed := pause; ; passed += reconcileSync {
				got := first.published(t)
				if maps.EqualFunc(got, places, slices.Equal) {
					break
				}
				if passed > 10*time.Minute {
					t.Fatalf("after %s listed are %v, want %v", passed, got, places)
				}
				first.clock.advance(reconcileSync)
			}
		})
	}
}

// Pages of one list, and many readers, cost what one reader does.
func TestListVolumesInPagesCostsOneList(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	places, _ := populate(t, sim, 6, 5)
	r := newRest(t, sim)
	r.published(t)
	r.clock.advance(reconcileSync)
	sim.ResetRequests()
	token, count := "", 0
	for {
		entries, next := r.listVolumes(t, &csi.ListVolumesRequest{MaxEntries: 4, StartingToken: token})
		for _, entry := range entries {
			id := entry.GetVolume().GetVolumeId()
			if count++; !slices.Equal(entry.GetStatus().GetPublishedNodeIds(), places[id]) {
				t.Errorf("volume %s is listed at %v, want %v", id, entry.GetStatus().GetPublishedNodeIds(), places[id])
			}
		}
		if token = next; token == "" {
			break
		}
	}
	if count != len(places) {
		t.Errorf("%d volumes are listed, want %d", count, len(places))
	}
	if lists, servers := sim.Requests().Of("GET /storage/normal"), sim.Requests().Of("GET /server/{uuid}"); lists != 1 || servers > 2 {
		t.Errorf("8 pages took %d lists and asked %d servers: %v", lists, servers, sim.Requests())
	}
}
