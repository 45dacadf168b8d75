package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const (
	listWindow = 5 * time.Minute
	// reconcileSync is csi-attacher's flag of that name in the shipped manifest: how often it lists all volumes.
	reconcileSync = 140 * time.Second
	// listPasses is over how many lists the calls are averaged: servers are asked in turns that take some of them.
	listPasses = 30
	// attachedPerServer is how many volumes each server has.
	attachedPerServer = 10
)

// listSizes are in volumes, all of them attached.
var listSizes = []int{600, 5000}

// listFigures are API calls in listWindow of a cluster at rest, by number of volumes.
type listFigures struct {
	calls map[string]float64
	// eachVolume are the calls of the way that the driver had before: see listEachVolume.
	eachVolume map[string]float64
	ratio      float64 // of eachVolume to calls, the least of all sizes
}

// measureList counts what it costs to tell csi-attacher where the volumes are, when nothing changes.
func measureList(ctx context.Context) (any, error) {
	figures := listFigures{calls: map[string]float64{}, eachVolume: map[string]float64{}}
	fmt.Printf("\nAPI calls in %s of a cluster at rest, asked for the volumes every %s\n", listWindow, reconcileSync)
	for _, volumes := range listSizes {
		before, after, err := measureListAt(ctx, volumes)
		if err != nil {
			return nil, fmt.Errorf("%d volumes: %w", volumes, err)
		}
		size, ratio := fmt.Sprint(volumes), before/after
		figures.eachVolume[size], figures.calls[size] = before, after
		if figures.ratio == 0 || ratio < figures.ratio {
			figures.ratio = ratio
		}
		fmt.Printf("  %5d volumes on %3d servers: %7.1f; a call for each volume: %7.1f; ratio %5.1f\n",
			volumes, volumes/attachedPerServer, after, before, ratio)
	}
	return figures, nil
}

func measureListAt(ctx context.Context, volumes int) (eachVolume, calls float64, err error) {
	var ahead atomic.Int64
	r, err := newRigAt(ctx, simulator.Config{}, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	if err != nil {
		return 0, 0, err
	}
	defer r.Close()
	ids, err := r.populate(ctx, volumes)
	if err != nil {
		return 0, 0, err
	}
	if eachVolume, err = r.listEachVolume(ctx, ids); err != nil {
		return 0, 0, err
	}
	if err := r.listAttached(ctx, volumes); err != nil { // the first list, which finds them
		return 0, 0, err
	}
	r.simulator.ResetRequests()
	for range listPasses {
		ahead.Add(int64(reconcileSync))
		if err := r.listAttached(ctx, volumes); err != nil {
			return 0, 0, err
		}
	}
	windows := float64(listPasses*reconcileSync) / float64(listWindow)
	return eachVolume, float64(r.simulator.Requests().Total()) / windows, nil
}

// listEachVolume makes the calls that the driver made before it asked servers: csi-attacher asked once a minute, and the driver
// answered with a list of the account's disks and a look at each volume, of which it made ten a second at most.
func (r *rig) listEachVolume(ctx context.Context, ids []string) (float64, error) {
	const looksInAMinute = 600
	r.simulator.ResetRequests()
	next := 0
	for range int(listWindow / time.Minute) {
		if _, err := r.account.GetStorages(ctx, &request.GetStoragesRequest{Type: upcloud.StorageTypeNormal}); err != nil {
			return 0, err
		}
		for range min(len(ids), looksInAMinute) {
			if _, err := r.account.GetStorageDetails(ctx, &request.GetStorageDetailsRequest{UUID: ids[next%len(ids)]}); err != nil {
				return 0, err
			}
			next++
		}
	}
	return float64(r.simulator.Requests().Total()), nil
}

// listAttached asks the driver for all volumes, and checks that it knows where they are.
func (r *rig) listAttached(ctx context.Context, volumes int) error {
	answer, err := r.controller.ListVolumes(ctx, &csi.ListVolumesRequest{})
	if err != nil {
		return err
	}
	attached := 0
	for _, entry := range answer.GetEntries() {
		attached += len(entry.GetStatus().GetPublishedNodeIds())
	}
	if attached != volumes {
		return fmt.Errorf("the controller lists %d attached volumes, there are %d", attached, volumes)
	}
	return nil
}

// populate makes so many volumes of the cluster, attached to servers, past the driver.
func (r *rig) populate(ctx context.Context, volumes int) ([]string, error) {
	servers, err := r.servers(ctx, volumes/attachedPerServer)
	if err != nil {
		return nil, err
	}
	ids := make([]string, volumes)
	making, ctx := errgroup.WithContext(ctx)
	making.SetLimit(16)
	for n := range ids {
		making.Go(func() error {
			name := claimName(n)
			storage, err := r.account.CreateStorage(ctx, &request.CreateStorageRequest{Title: name, Size: 1, Zone: zone,
				Tier: upcloud.StorageTierMaxIOPS, Labels: []upcloud.Label{{Key: "csi-name", Value: name}, {Key: "csi-cluster", Value: "bench"},
					{Key: "csi-pvc-namespace", Value: "default"}, {Key: "csi-pvc-name", Value: "data-" + name}}})
			if err != nil {
				return err
			}
			ids[n] = storage.UUID
			_, err = r.account.AttachStorage(ctx, &request.AttachStorageRequest{ServerUUID: servers[n/attachedPerServer],
				StorageUUID: storage.UUID, Type: upcloud.StorageTypeDisk, Address: "virtio"})
			return err
		})
	}
	return ids, making.Wait()
}

// split puts the figures into sections of their own.
func (f listFigures) split(results figures) {
	results["list_calls_5min"], results["list_calls_5min_each_volume"], results["list_calls_ratio"] = f.calls, f.eachVolume, f.ratio
	delete(results, "list")
}
