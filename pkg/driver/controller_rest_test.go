package driver_test

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// reconcileSync is csi-attacher's flag of that name in the shipped manifest.
const reconcileSync = 140 * time.Second

// aheadClock is the machine's clock, moved ahead by a test.
type aheadClock struct{ ahead atomic.Int64 }

func (c *aheadClock) Now() time.Time           { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *aheadClock) advance(by time.Duration) { c.ahead.Add(int64(by)) }

// restRig is a controller whose clock a test moves, on an account that others change too.
type restRig struct {
	*rig
	clock *aheadClock
}

func newRest(t *testing.T, sim *simulatortest.Server) *restRig { return newRestAt(t, sim, sim.URL) }

// newRestAt runs one whose requests go to that URL.
func newRestAt(t *testing.T, sim *simulatortest.Server, url string) *restRig {
	t.Helper()
	clock := &aheadClock{}
	account, err := cloud.New(cloud.Config{
		Username: sim.Username, Password: sim.Password, BaseURL: url, ClusterID: "test",
		RequestsPerSecond: 10_000, Burst: 10_000, Now: clock.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	return &restRig{rig: serve(t, sim, driver.Config{Mode: driver.ModeController, Cloud: account}), clock: clock}
}

// published lists the volumes with their nodes.
func (r *restRig) published(t *testing.T) map[string][]string {
	t.Helper()
	entries, _ := r.listVolumes(t, &csi.ListVolumesRequest{})
	found := make(map[string][]string, len(entries))
	for _, entry := range entries {
		found[entry.GetVolume().GetVolumeId()] = entry.GetStatus().GetPublishedNodeIds()
	}
	return found
}

// noticedAfter asks once in a period until a volume is published at exactly these nodes, and returns how long that took.
func (r *restRig) noticedAfter(t *testing.T, period time.Duration, volume string, nodes ...string) time.Duration {
	t.Helper()
	for passed := period; ; passed += period {
		r.clock.advance(period)
		if slices.Equal(r.published(t)[volume], nodes) {
			return passed
		}
		if passed > time.Hour {
			t.Fatalf("volume %s is not published at %v after %s", volume, nodes, passed)
		}
	}
}

// makeDisk makes a disk past the driver: one of the cluster's volumes if it has a name.
func makeDisk(t *testing.T, sim *simulatortest.Server, name string) string {
	t.Helper()
	labels := ""
	if name != "" {
		labels = fmt.Sprintf(`{"key":"csi-name","value":%q},{"key":"csi-cluster","value":"test"}`, name)
	}
	var made struct{ Storage storage }
	sim.Do(t, "POST", "/storage", fmt.Sprintf(
		`{"storage":{"size":"1","tier":"maxiops","title":"disk","zone":%q,"labels":[%s]}}`, zone, labels), &made)
	return made.Storage.UUID
}

func attachByHand(t *testing.T, sim *simulatortest.Server, volume, server string) {
	t.Helper()
	sim.Do(t, "POST", "/server/"+server+"/storage/attach",
		fmt.Sprintf(`{"storage_device":{"type":"disk","address":"virtio","storage":%q}}`, volume), nil)
}

func detachByHand(t *testing.T, sim *simulatortest.Server, volume, server string) {
	t.Helper()
	sim.Do(t, "POST", "/server/"+server+"/storage/detach", fmt.Sprintf(`{"storage_device":{"storage":%q}}`, volume), nil)
}

// populate makes servers with so many of the cluster's volumes each, and returns the server of each volume.
func populate(t *testing.T, sim *simulatortest.Server, servers, each int) (places map[string][]string, ids []string) {
	t.Helper()
	places = map[string][]string{}
	for s := range servers {
		server := sim.CreateServer(t, fmt.Sprintf("worker-%d", s), zone)
		ids = append(ids, server)
		for v := range each {
			volume := makeDisk(t, sim, fmt.Sprintf("pvc-%d-%d", s, v))
			attachByHand(t, sim, volume, server)
			places[volume] = []string{server}
		}
	}
	return places, ids
}

// A cluster at rest costs next to nothing: not a call a volume each time that csi-attacher asks where all are.
func TestListVolumesAtRestCostsATenthOfACallForEachVolume(t *testing.T) {
	const servers, each, hour = 60, 10, time.Hour
	sim := simulatortest.Start(t, simulator.Config{})
	places, _ := populate(t, sim, servers, each)
	detached := makeDisk(t, sim, "detached")
	places[detached] = nil
	for _, period := range []time.Duration{time.Minute, reconcileSync, 5 * time.Minute} {
		r := newRest(t, sim)
		r.published(t)
		sim.ResetRequests()
		for range hour / period {
			r.clock.advance(period)
			if got := r.published(t); !maps.EqualFunc(got, places, slices.Equal) {
				t.Fatalf("%d volumes are listed, or at other places: want %d", len(got), len(places))
			}
		}
		calls := float64(sim.Requests().Total()) / float64(hour/(5*time.Minute))
		t.Logf("asked every %s: %.1f calls in five minutes", period, calls)
		// A call for each volume once a minute, and a list.
		if before := float64(5 * (servers*each + 1)); calls > before/10 {
			t.Errorf("asked every %s: %.1f calls in five minutes, want a tenth of %.0f: %v", period, calls, before, sim.Requests())
		}
	}
}

// Small clusters are not asked about every minute either.
func TestListVolumesAtRestInASmallCluster(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	populate(t, sim, 3, 2)
	r := newRest(t, sim)
	r.published(t)
	sim.ResetRequests()
	const passes = 40
	for range passes {
		r.clock.advance(time.Minute)
		r.published(t)
	}
	lists := sim.Requests().Of("GET /storage/normal")
	if others := sim.Requests().Total() - lists; lists > passes || others > passes/2 {
		t.Errorf("%d passes took %d lists of storages and %d other calls: %v", passes, lists, others, sim.Requests())
	}
}

func TestAttachmentChangedByHandIsNoticedWithinTenMinutes(t *testing.T) {
	type account struct {
		*simulatortest.Server
		volume, detached, from, to, empty string
	}
	changes := map[string]func(*testing.T, account) (volume string, nodes []string){
		"detached": func(t *testing.T, a account) (string, []string) {
			detachByHand(t, a.Server, a.volume, a.from)
			return a.volume, nil
		},
		"moved to a server that has volumes": func(t *testing.T, a account) (string, []string) {
			detachByHand(t, a.Server, a.volume, a.from)
			attachByHand(t, a.Server, a.volume, a.to)
			return a.volume, []string{a.to}
		},
		"moved to a server that has none": func(t *testing.T, a account) (string, []string) {
			detachByHand(t, a.Server, a.volume, a.from)
			attachByHand(t, a.Server, a.volume, a.empty)
			return a.volume, []string{a.empty}
		},
		"attached to a server that has volumes": func(t *testing.T, a account) (string, []string) {
			attachByHand(t, a.Server, a.detached, a.to)
			return a.detached, []string{a.to}
		},
		"attached to a server that has none": func(t *testing.T, a account) (string, []string) {
			attachByHand(t, a.Server, a.detached, a.empty)
			return a.detached, []string{a.empty}
		},
		"attached to a new server": func(t *testing.T, a account) (string, []string) {
			server := a.CreateServer(t, "new", zone)
			attachByHand(t, a.Server, a.detached, server)
			return a.detached, []string{server}
		},
		"its server deleted": func(t *testing.T, a account) (string, []string) {
			a.Do(t, "POST", "/server/"+a.from+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
			a.Do(t, "DELETE", "/server/"+a.from, "", nil)
			return a.volume, nil
		},
	}
	for name, change := range changes {
		for _, period := range []time.Duration{time.Minute, reconcileSync, 4 * time.Minute, 9 * time.Minute} {
			t.Run(fmt.Sprint(name, ", asked every ", period), func(t *testing.T) {
				// Changes just after each of the passes in which servers have their turns.
				for passes := range int(10*time.Minute/period) + 1 {
					sim := simulatortest.Start(t, simulator.Config{})
					places, servers := populate(t, sim, 5, 1)
					a := account{Server: sim, detached: makeDisk(t, sim, "detached"), empty: sim.CreateServer(t, "empty", zone)}
					a.volume = slices.Sorted(maps.Keys(places))[0]
					a.from = places[a.volume][0]
					a.to = servers[(slices.Index(servers, a.from)+1)%len(servers)]
					r := newRest(t, sim)
					r.published(t)
					for range passes {
						r.clock.advance(period)
						r.published(t)
					}
					volume, nodes := change(t, a)
					if took := r.noticedAfter(t, period, volume, nodes...); took > 10*time.Minute {
						t.Errorf("a change after %d passes was noticed after %s", passes, took)
					}
				}
			})
		}
	}
}
