package driver

import (
	"context"
	"math"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// ControllerExpandVolume grows the storage, attached or not. The node grows what is on it afterwards: see nodeExpands. It costs two
// calls, one where the volume is large enough already.
func (c *controller) ControllerExpandVolume(ctx context.Context, req *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	required, limit := req.GetCapacityRange().GetRequiredBytes(), req.GetCapacityRange().GetLimitBytes()
	switch {
	case req.GetVolumeId() == "":
		return nil, missing("volume_id")
	case required == 0 && limit == 0:
		return nil, missing("capacity_range")
	case required < 0 || limit < 0:
		return nil, invalid("capacity_range", "is negative: %s", describeRange(required, limit))
	case limit > 0 && limit < required:
		return nil, invalid("capacity_range.limit_bytes", "%d is less than required_bytes, %d", limit, required)
	}
	if req.GetVolumeCapability() != nil {
		if err := checkCapability("volume_capability", req.GetVolumeCapability()); err != nil {
			return nil, err
		}
	}
	size, err := expandedSize(required, limit)
	if err != nil {
		return nil, err
	}
	most := limit / gib
	if limit > 0 && most == 0 {
		return nil, outOfRange("capacity_range.limit_bytes: %d is less than the smallest storage, 1 GiB", limit)
	}
	volume, err := c.cloud.ExpandVolume(ctx, req.GetVolumeId(), size, int(min(most, math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	return &csi.ControllerExpandVolumeResponse{
		CapacityBytes:         int64(volume.SizeGiB) * gib,
		NodeExpansionRequired: nodeExpands(req.GetVolumeCapability(), volume.Labels),
	}, nil
}

// nodeExpands tells whether the node has work to do when a volume has grown: it has none of a raw block volume that is known not to be
// encrypted on the node. The mapping of an encrypted one is to be grown.
func nodeExpands(capability *csi.VolumeCapability, labels map[string]string) bool {
	return capability.GetBlock() == nil || labels[labelNodeEncryption] != encryptionNone
}

// expandedSize is required_bytes in whole GiB.
func expandedSize(required, limit int64) (int, error) {
	size := required / gib
	if required%gib != 0 {
		size++
	}
	if limit > 0 && size*gib > limit {
		return 0, outOfRange("capacity_range: no size fits %s: storages have whole GiB", describeRange(required, limit))
	}
	return int(min(size, math.MaxInt32)), nil
}
