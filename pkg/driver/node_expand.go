package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// NodeExpandVolume makes the filesystem as large as the disk, which the controller has grown, while it is in use. Of a raw
// block volume it checks that the server sees the new size. What is encrypted on the node is grown in between, for which
// the kernel may need the passphrase again: the request has no volume context, so that the secret alone tells.
func (n *node) NodeExpandVolume(ctx context.Context, req *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	required, limit := req.GetCapacityRange().GetRequiredBytes(), req.GetCapacityRange().GetLimitBytes()
	switch {
	case req.GetVolumeId() == "":
		return nil, missing("volume_id")
	case req.GetVolumePath() == "":
		return nil, missing("volume_path")
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
	size, err := n.disk.Grow(ctx, disk.GrowRequest{
		Volume:      disk.Volume{ID: req.GetVolumeId(), SizeBytes: required},
		Path:        req.GetVolumePath(),
		StagingPath: req.GetStagingTargetPath(),
		Encryption:  encryptionToGrow(req.GetSecrets()),
	})
	if err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: size}, nil
}
