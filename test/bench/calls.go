package main

import (
	"context"
	"fmt"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// repetitions is over how many operations the calls of one are averaged.
const repetitions = 20

// operation is a controller RPC done once to the n-th volume.
type operation struct {
	name string
	do   func(ctx context.Context, r *rig, n int) error
}

// accounts are the sizes of account, in storages that are not the operation's.
var accounts = []int{10, 10000}

// measureCalls counts the API calls of each controller operation in a small and in a large account.
func measureCalls(ctx context.Context) (any, error) {
	means := map[string]map[string]float64{}
	for _, storages := range accounts {
		if err := measureCallsAt(ctx, storages, means); err != nil {
			return nil, fmt.Errorf("with %d storages: %w", storages, err)
		}
	}
	fmt.Printf("API calls an operation     %10d storages %10d storages\n", accounts[0], accounts[1])
	for _, operation := range operations(nil, nil, "") {
		fmt.Printf("  %-24s %19.2f %19.2f\n", operation.name, means[operation.name]["10"], means[operation.name]["10000"])
	}
	return means, nil
}

func measureCallsAt(ctx context.Context, storages int, means map[string]map[string]float64) error {
	r, err := newRig(ctx, simulator.Config{})
	if err != nil {
		return err
	}
	defer r.Close()
	for n := range storages {
		title := fmt.Sprintf("other-%d", n)
		if _, err := r.account.CreateStorage(ctx, &request.CreateStorageRequest{Title: title, Size: 10, Zone: zone, Tier: "maxiops"}); err != nil {
			return err
		}
	}
	servers, err := r.servers(ctx, 1)
	if err != nil {
		return err
	}
	volumes, snapshots := make([]string, repetitions), make([]string, repetitions)
	for _, operation := range operations(volumes, snapshots, servers[0]) {
		total := 0
		for n := range repetitions {
			before := r.simulator.Requests().Total()
			if err := operation.do(ctx, r, n); err != nil {
				return fmt.Errorf("%s: %w", operation.name, err)
			}
			total += r.simulator.Requests().Total() - before
			if err := operation.after(ctx, r, volumes, servers[0], n); err != nil {
				return err
			}
		}
		if means[operation.name] == nil {
			means[operation.name] = map[string]float64{}
		}
		means[operation.name][fmt.Sprint(storages)] = float64(total) / repetitions
	}
	return nil
}

// operations in the order of a volume's life. A server takes 16 disks, so what is published is unpublished in after.
func operations(volumes, snapshots []string, server string) []operation {
	return []operation{
		{"create_volume", func(ctx context.Context, r *rig, n int) (err error) {
			volumes[n], err = r.createVolume(ctx, claimName(n))
			return err
		}},
		{"controller_publish", func(ctx context.Context, r *rig, n int) error { return r.publish(ctx, volumes[n], server) }},
		{"controller_unpublish", func(ctx context.Context, r *rig, n int) error { return r.unpublish(ctx, volumes[n], server) }},
		{"create_snapshot", func(ctx context.Context, r *rig, n int) error {
			answer, err := r.controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{SourceVolumeId: volumes[n], Name: fmt.Sprintf("snapshot-%d", n)})
			snapshots[n] = answer.GetSnapshot().GetSnapshotId()
			return err
		}},
		{"expand_volume", func(ctx context.Context, r *rig, n int) error {
			_, err := r.controller.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: volumes[n],
				CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * gib}, VolumeCapability: singleWriter})
			return err
		}},
		{"delete_volume", func(ctx context.Context, r *rig, n int) error {
			_, err := r.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: volumes[n]})
			return err
		}},
	}
}

// after prepares the next repetition: a published volume makes room, one to be unpublished is published, past the driver's count.
func (o operation) after(ctx context.Context, r *rig, volumes []string, server string, n int) error {
	switch {
	case o.name == "controller_publish":
		if err := r.unpublish(ctx, volumes[n], server); err != nil {
			return err
		}
		if n == repetitions-1 { // the first of those that are unpublished next
			return r.publish(ctx, volumes[0], server)
		}
	case o.name == "controller_unpublish" && n < repetitions-1:
		return r.publish(ctx, volumes[n+1], server)
	}
	return nil
}
