package driver

import (
	"context"
	"errors"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// sourceOf reads what the volume is to be made of, nil for an empty volume. A source that is gone may have been copied
// before, for the same request: that copy can be gone on with.
func (c *controller) sourceOf(ctx context.Context, req *csi.CreateVolumeRequest) (*cloud.Source, error) {
	content := req.GetVolumeContentSource()
	var source *cloud.Source
	var err error
	switch {
	case content == nil:
		return nil, nil
	case content.GetSnapshot() != nil:
		source, err = c.cloud.SnapshotSource(ctx, content.GetSnapshot().GetSnapshotId(), inheritedLabels)
	case content.GetVolume() != nil:
		source, err = c.cloud.VolumeSource(ctx, content.GetVolume().GetVolumeId())
	default:
		return nil, missing("volume_content_source.type")
	}
	if !errors.Is(err, cloud.ErrNotFound) {
		return source, err
	}
	gone := err
	source, err = c.cloud.SourceOf(ctx, req.GetName(), sourceID(content))
	if errors.Is(err, cloud.ErrNotFound) {
		return nil, gone
	}
	return source, err
}

func sourceID(content *csi.VolumeContentSource) string {
	if content.GetSnapshot() != nil {
		return content.GetSnapshot().GetSnapshotId()
	}
	return content.GetVolume().GetVolumeId()
}

// sizeFor is chooseSize for a copy: it is never smaller than its source.
func sizeFor(r *csi.CapacityRange, tier cloud.Tier, source *cloud.Source) (int, error) {
	if source == nil {
		return chooseSize(r, tier)
	}
	limit := r.GetLimitBytes()
	if limit > 0 && limit < int64(source.SizeGiB)*gib {
		return 0, status.Errorf(codes.OutOfRange, "capacity_range.limit_bytes: %d is less than the %d GiB of the source %s; "+
			"ask for its size or more", limit, source.SizeGiB, source.ID)
	}
	tier.MinSizeGiB = max(tier.MinSizeGiB, source.SizeGiB)
	if r.GetRequiredBytes() == 0 {
		r = &csi.CapacityRange{RequiredBytes: int64(source.SizeGiB) * gib, LimitBytes: limit}
	}
	return chooseSize(r, tier)
}

func created(req *csi.CreateVolumeRequest, node nodeParameters, volume *cloud.Volume) (*csi.CreateVolumeResponse, error) {
	if err := node.checkExisting(volume.ID, volume.Labels); err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:           volume.ID,
		CapacityBytes:      int64(volume.SizeGiB) * gib,
		VolumeContext:      node.volumeContext(),
		ContentSource:      req.GetVolumeContentSource(),
		AccessibleTopology: []*csi.Topology{topologyOf(volume.Zone)},
	}}, nil
}
