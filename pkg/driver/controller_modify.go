package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// ControllerModifyVolume changes what a VolumeAttributesClass names: the backup rule, labels, and what becomes of
// backups. It costs two calls, one where nothing differs.
func (c *controller) ControllerModifyVolume(ctx context.Context, req *csi.ControllerModifyVolumeRequest) (*csi.ControllerModifyVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, missing("volume_id")
	}
	change, err := parseMutable(req.GetMutableParameters())
	if err != nil {
		return nil, err
	}
	if _, err := c.cloud.ModifyVolume(ctx, req.GetVolumeId(), change); err != nil {
		return nil, err
	}
	return &csi.ControllerModifyVolumeResponse{}, nil
}
