package driver

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// sourceOf reads what the volume is to be made of, nil for an empty volume.
func (c *controller) sourceOf(ctx context.Context, content *csi.VolumeContentSource) (*cloud.Source, error) {
	switch {
	case content == nil:
		return nil, nil
	case content.GetSnapshot() != nil:
		return c.cloud.SnapshotSource(ctx, content.GetSnapshot().GetSnapshotId())
	case content.GetVolume() != nil:
		return c.cloud.VolumeSource(ctx, content.GetVolume().GetVolumeId())
	}
	return nil, missing("volume_content_source.type")
}

func sourceID(content *csi.VolumeContentSource) string {
	if content.GetSnapshot() != nil {
		return content.GetSnapshot().GetSnapshotId()
	}
	return content.GetVolume().GetVolumeId()
}

// finished is for a request whose source is gone: the volume may have been made of it before.
func (c *controller) finished(ctx context.Context, req *csi.CreateVolumeRequest, gone error) (*csi.CreateVolumeResponse, error) {
	volume, err := c.cloud.VolumeNamed(ctx, req.GetName())
	switch {
	case errors.Is(err, cloud.ErrNotFound):
		return nil, gone
	case err != nil:
		return nil, err
	}
	size, limit := int64(volume.SizeGiB)*gib, req.GetCapacityRange().GetLimitBytes()
	fits := size >= req.GetCapacityRange().GetRequiredBytes() && (limit == 0 || size <= limit)
	if volume.Labels[cloud.LabelSource] != sourceID(req.GetVolumeContentSource()) || !fits {
		return nil, status.Errorf(codes.AlreadyExists, "storage %s has the name %s, and is not what is asked for: %v",
			volume.ID, req.GetName(), gone)
	}
	return created(req, volume), nil
}

// sizeFor is chooseSize for a copy: it is never smaller than its source.
func sizeFor(r *csi.CapacityRange, tier cloud.Tier, source *cloud.Source) (int, error) {
	if source == nil {
		return chooseSize(r, tier)
	}
	limit := r.GetLimitBytes()
	if limit > 0 && limit < int64(source.SizeGiB)*gib {
		return 0, status.Errorf(codes.OutOfRange, "capacity_range.limit_bytes: %d is less than the %d GiB of the source %s",
			limit, source.SizeGiB, source.ID)
	}
	tier.MinSizeGiB = max(tier.MinSizeGiB, source.SizeGiB)
	if r.GetRequiredBytes() == 0 {
		r = &csi.CapacityRange{RequiredBytes: int64(source.SizeGiB) * gib, LimitBytes: limit}
	}
	return chooseSize(r, tier)
}

func created(req *csi.CreateVolumeRequest, volume *cloud.Volume) *csi.CreateVolumeResponse {
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:           volume.ID,
		CapacityBytes:      int64(volume.SizeGiB) * gib,
		ContentSource:      req.GetVolumeContentSource(),
		AccessibleTopology: []*csi.Topology{topologyOf(volume.Zone)},
	}}
}
