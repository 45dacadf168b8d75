package main

import (
	"context"
	"fmt"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"golang.org/x/sync/errgroup"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const (
	attachServers = 16
	attachVolumes = 8 // on each server
)

// attachFigures compare attaching many volumes at once with what the servers' own times allow: one hot-plug at a time a
// server, servers in parallel.
type attachFigures struct {
	Measured float64 `json:"measured_s"`
	Bound    float64 `json:"bound_s"`
	Ratio    float64 `json:"ratio"`
}

func measureAttach(ctx context.Context) (any, error) {
	r, err := newRig(ctx, simulator.Config{Profile: simulator.Realistic})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	servers, err := r.servers(ctx, attachServers+1) // the last one is for the bound
	if err != nil {
		return nil, err
	}
	volumes := make([]string, attachServers*attachVolumes)
	for n := range volumes {
		if volumes[n], err = r.createVolume(ctx, claimName(n)); err != nil {
			return nil, err
		}
	}
	bound, err := r.attachAlone(ctx, servers[attachServers])
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	attaching, attachContext := errgroup.WithContext(ctx)
	for n, volume := range volumes {
		attaching.Go(func() error { return r.publish(attachContext, volume, servers[n%attachServers]) })
	}
	if err := attaching.Wait(); err != nil {
		return nil, err
	}
	figures := attachFigures{Measured: time.Since(begin).Seconds(), Bound: attachVolumes * bound.Seconds()}
	figures.Ratio = figures.Measured / figures.Bound
	fmt.Printf("\nAttaching %d volumes to each of %d servers at once, realistic profile\n", attachVolumes, attachServers)
	fmt.Printf("  measured %19.2f s\n  bound by the servers %7.2f s\n  ratio %22.2f\n", figures.Measured, figures.Bound, figures.Ratio)
	return figures, nil
}

// attachAlone is what one attachment takes when nothing else happens, asked of the API directly.
func (r *rig) attachAlone(ctx context.Context, server string) (time.Duration, error) {
	storage, err := r.account.CreateStorage(ctx, &request.CreateStorageRequest{Title: "alone", Size: 1, Zone: zone, Tier: upcloud.StorageTierMaxIOPS})
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	_, err = r.account.AttachStorage(ctx, &request.AttachStorageRequest{ServerUUID: server, StorageUUID: storage.UUID,
		Type: upcloud.StorageTypeDisk, Address: "virtio"})
	return time.Since(begin), err
}
