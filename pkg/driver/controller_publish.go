package driver

import (
	"context"
	"slices"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// Keys of the publish context: what the node has to know of a volume, since it cannot ask the API.
const (
	contextSerial   = "serial"   // serial number of the disk in the server, for people who look
	contextSize     = "size"     // size in bytes when the volume was attached
	contextOrigin   = "origin"   // storage that the volume is a copy of: it is never formatted then
	contextReadOnly = "readonly" // "true" when the volume was published read-only
)

// ControllerPublishVolume attaches the volume to the server. It costs one call if it is attached there already, two
// otherwise.
func (c *controller) ControllerPublishVolume(ctx context.Context, req *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, missing("volume_id")
	case req.GetNodeId() == "":
		return nil, missing("node_id")
	}
	if err := checkCapability("volume_capability", req.GetVolumeCapability()); err != nil {
		return nil, err
	}
	// Asked before the look: what is being detached from there at the time of the look is not there to stay.
	leaving := c.cloud.Detaching(req.GetVolumeId(), req.GetNodeId())
	volume, err := c.cloud.Volume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if leaving || !slices.Contains(volume.ServerIDs, req.GetNodeId()) {
		if err := c.cloud.Attach(ctx, volume.ID, req.GetNodeId()); err != nil {
			return nil, err
		}
	}
	published, err := publishContext(volume, req.GetReadonly())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: published}, nil
}

func publishContext(volume *cloud.Volume, readOnly bool) (map[string]string, error) {
	serial, err := disk.Serial(volume.ID)
	if err != nil {
		return nil, err
	}
	published := map[string]string{
		contextSerial: serial,
		contextSize:   strconv.FormatInt(int64(volume.SizeGiB)*gib, 10),
	}
	if volume.OriginID != "" {
		published[contextOrigin] = volume.OriginID
	}
	if readOnly {
		published[contextReadOnly] = "true"
	}
	return published, nil
}

// ControllerUnpublishVolume detaches the volume from the server, or from every server if none is named. A host name is
// accepted too, as volumes that UpCloud's own driver attached have it for their node.
func (c *controller) ControllerUnpublishVolume(ctx context.Context, req *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, missing("volume_id")
	}
	if err := c.cloud.Detach(ctx, req.GetVolumeId(), req.GetNodeId()); err != nil {
		return nil, err
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}
