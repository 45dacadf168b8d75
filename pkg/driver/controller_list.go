package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// ListVolumes answers from what many readers share: see cloud.Volumes.
func (c *controller) ListVolumes(ctx context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	asked, err := parsePage(req)
	if err != nil {
		return nil, err
	}
	all, err := c.cloud.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	page, next := pageOf(asked, all, func(v *cloud.Volume) string { return v.ID })
	response := &csi.ListVolumesResponse{NextToken: next}
	for _, volume := range page {
		response.Entries = append(response.Entries, &csi.ListVolumesResponse_Entry{
			Volume: volumeInfo(volume),
			Status: &csi.ListVolumesResponse_VolumeStatus{
				PublishedNodeIds: volume.ServerIDs, VolumeCondition: conditionOf(volume),
			},
		})
	}
	return response, nil
}

// ControllerGetVolume reads one volume.
func (c *controller) ControllerGetVolume(ctx context.Context, req *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, missing("volume_id")
	}
	volume, err := c.cloud.Volume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{
		Volume: volumeInfo(volume),
		Status: &csi.ControllerGetVolumeResponse_VolumeStatus{
			PublishedNodeIds: volume.ServerIDs, VolumeCondition: conditionOf(volume),
		},
	}, nil
}

func volumeInfo(volume *cloud.Volume) *csi.Volume {
	return &csi.Volume{
		VolumeId:           volume.ID,
		CapacityBytes:      int64(volume.SizeGiB) * gib,
		AccessibleTopology: []*csi.Topology{topologyOf(volume.Zone)},
	}
}

func conditionOf(volume *cloud.Volume) *csi.VolumeCondition {
	wrong := volume.Condition()
	if wrong == "" {
		return &csi.VolumeCondition{Message: "the storage is in state " + volume.State}
	}
	return &csi.VolumeCondition{Abnormal: true, Message: wrong}
}

// GetCapacity tells what the account's limits leave of a tier, and the sizes that a volume can have. A zone that does
// not exist has none.
func (c *controller) GetCapacity(ctx context.Context, req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	if len(req.GetVolumeCapabilities()) > 0 {
		if err := checkCapabilities("volume_capabilities", req.GetVolumeCapabilities()); err != nil {
			return &csi.GetCapacityResponse{}, nil //nolint:nilerr // a volume that cannot be has no capacity
		}
	}
	params, err := parseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	if topology := req.GetAccessibleTopology(); topology != nil {
		known, err := c.zoneExists(ctx, topology.GetSegments()[topologyKey])
		if err != nil {
			return nil, err
		}
		if !known {
			return &csi.GetCapacityResponse{}, nil
		}
	}
	left, limited, err := c.cloud.Capacity(ctx, params.tier.Name)
	if err != nil {
		return nil, err
	}
	if !limited {
		left = params.tier.MaxSizeGiB
	}
	return &csi.GetCapacityResponse{
		AvailableCapacity: int64(left) * gib,
		MaximumVolumeSize: wrapperspb.Int64(int64(min(left, params.tier.MaxSizeGiB)) * gib),
		MinimumVolumeSize: wrapperspb.Int64(int64(params.tier.MinSizeGiB) * gib),
	}, nil
}
