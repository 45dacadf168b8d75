package driver_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// fill puts other storages into the account: disks, and a backup for each tenth.
func fill(t *testing.T, sim *simulatortest.Server, storages int) {
	t.Helper()
	var made struct{ Storage storage }
	for i := range storages {
		if i%10 == 9 {
			sim.Do(t, "POST", "/storage/"+made.Storage.UUID+"/backup", `{"storage":{"title":"backup"}}`, nil)
			continue
		}
		sim.Do(t, "POST", "/storage", fmt.Sprintf(`{"storage":{"size":"1","tier":"maxiops","title":"other","zone":%q,
			"labels":[{"key":"csi-name","value":"other-%d"},{"key":"csi-cluster","value":"another"}]}}`, zone, i), &made)
	}
}

// What a call costs is the same in an account of 10 and of 10,000 storages: in requests, and in bytes, as a list of the
// account in place of a look at one storage is no request more.
func TestCostDoesNotGrowWithTheAccount(t *testing.T) {
	const operations, kilobyte = 5, 1 << 10
	limits := []struct {
		name  string
		calls float64 // an operation
	}{
		{"create_volume", 2}, {"controller_publish", 2}, {"controller_unpublish", 2}, {"create_snapshot", 3},
		{"snapshot_ready", 2}, {"expand_volume", 2}, {"modify_volume", 2}, {"delete_snapshot", 2},
		{"delete_volume", 1 + 1.0/operations}, // policies are read once a minute: see cloud.backupsOnDelete
	}
	costs := map[int]map[string]float64{}
	for _, storages := range []int{10, 10_000} {
		r := newController(t, simulator.Config{})
		fill(t, r.sim, storages)
		server := r.sim.CreateServer(t, "worker-1", zone)
		costs[storages] = map[string]float64{}
		var volumes, snapshots []string
		measure := func(name string, do func(n int)) {
			r.sim.ResetRequests()
			for n := range operations {
				do(n)
			}
			costs[storages][name] = float64(r.sim.Requests().Total()) / operations
			var bytes int64
			for _, count := range r.sim.Requests() {
				bytes += count.BytesOut
			}
			if bytes > 64*kilobyte {
				t.Errorf("%s with %d storages brought %d bytes: something lists the account", name, storages, bytes)
			}
		}
		measure("create_volume", func(n int) {
			volumes = append(volumes, r.create(t, createRequest(claimName(n))).GetVolumeId())
		})
		measure("controller_publish", func(n int) {
			if _, err := r.publish(t, volumes[n], server); err != nil {
				t.Fatal(err)
			}
		})
		measure("expand_volume", func(n int) {
			if _, err := r.expand(t, volumes[n], 2*gib, 0); err != nil {
				t.Fatal(err)
			}
		})
		measure("modify_volume", func(n int) {
			if err := r.modify(t, volumes[n], map[string]string{"labels": "team=storage"}); err != nil {
				t.Fatal(err)
			}
		})
		measure("controller_unpublish", func(n int) {
			if err := r.unpublish(t, volumes[n], server); err != nil {
				t.Fatal(err)
			}
		})
		measure("create_snapshot", func(n int) {
			snapshots = append(snapshots, r.snapshot(t, fmt.Sprint("snapshot-", n), volumes[n]).GetSnapshotId())
		})
		measure("snapshot_ready", func(n int) { r.readySnapshot(t, fmt.Sprint("snapshot-", n), volumes[n]) })
		measure("delete_snapshot", func(n int) {
			req := &csi.DeleteSnapshotRequest{SnapshotId: snapshots[n]}
			if _, err := r.controller.DeleteSnapshot(callContext(t), req); err != nil {
				t.Fatal(err)
			}
		})
		measure("delete_volume", func(n int) { r.deleteVolume(t, volumes[n]) })
	}
	for _, limit := range limits {
		few, many := costs[10][limit.name], costs[10_000][limit.name]
		t.Logf("%-20s %.1f calls with 10 storages, %.1f with 10,000", limit.name, few, many)
		if few > limit.calls || many != few {
			t.Errorf("%s: %.1f calls with 10 storages and %.1f with 10,000, want %.1f", limit.name, few, many, limit.calls)
		}
	}
}

// Twenty identical requests at once do what one does, whatever they ask for.
func TestTwentyIdenticalRequestsAreOne(t *testing.T) {
	for name, call := range interrupted {
		t.Run(name, func(t *testing.T) {
			one := simulatortest.Start(t, simulator.Config{Profile: simulator.Fast})
			startProcess(t, one, -1, false).mustSucceed(t, call(setScene(t, one), t))
			want := stateOfAccount(t, one)

			sim := simulatortest.Start(t, simulator.Config{Profile: simulator.Fast})
			do := call(setScene(t, sim), t)
			p := startProcess(t, sim, -1, false)
			outcome := make(chan error)
			for range 20 {
				go func() {
					outcome <- func() error {
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						return do(ctx, p.controller)
					}()
				}()
			}
			for range 20 {
				if err := <-outcome; err != nil && !mayTryAgain(err) {
					t.Error(err)
				}
			}
			p.mustSucceed(t, do)
			got := stateOfAccount(t, sim)
			if !slices.Equal(got.disks, want.disks) || !slices.Equal(got.backups, want.backups) {
				t.Errorf("the account has\n%q\nwant\n%q", got, want)
			}
		})
	}
}
