package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// ephemeralKey is set by kubelet for volumes that live in the pod's own definition.
const ephemeralKey = sidecarPrefix + "ephemeral"

// NodePublishVolume makes the staged volume appear at the target path: the filesystem, or the device node of a raw
// block volume.
func (n *node) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := checkPath("target_path", req.GetTargetPath()); err != nil {
		return nil, err
	}
	switch {
	case req.GetVolumeId() == "":
		return nil, missing("volume_id")
	case req.GetVolumeContext()[ephemeralKey] == "true":
		return nil, invalid("volume_context", "inline ephemeral volumes are not supported: use a generic ephemeral volume")
	}
	if err := checkCapability("volume_capability", req.GetVolumeCapability()); err != nil {
		return nil, err
	}
	if req.GetStagingTargetPath() == "" {
		return nil, status.Error(codes.FailedPrecondition, "staging_target_path: is required, volumes are staged first")
	}
	if err := checkPath("staging_target_path", req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	volume, err := volumeFor(req.GetVolumeId(), req.GetPublishContext())
	if err != nil {
		return nil, err
	}
	if err := n.publish(ctx, volume, req); err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (n *node) publish(ctx context.Context, volume disk.Volume, req *csi.NodePublishVolumeRequest) error {
	capability := req.GetVolumeCapability()
	readOnly := req.GetReadonly() || readerOnly(capability) || publishedReadOnly(req.GetPublishContext())
	if capability.GetBlock() != nil {
		return n.disk.PublishBlock(ctx, disk.PublishBlockRequest{
			Volume:       volume,
			StagingPath:  req.GetStagingTargetPath(),
			Path:         req.GetTargetPath(),
			ReadOnly:     readOnly,
			SingleWriter: singleWriter(capability),
		})
	}
	return n.disk.Publish(ctx, disk.PublishRequest{
		Volume:       volume,
		StagingPath:  req.GetStagingTargetPath(),
		Path:         req.GetTargetPath(),
		Options:      capability.GetMount().GetMountFlags(),
		ReadOnly:     readOnly,
		SingleWriter: singleWriter(capability),
	})
}

func (n *node) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, missing("volume_id")
	}
	if err := checkPath("target_path", req.GetTargetPath()); err != nil {
		return nil, err
	}
	if err := n.disk.Unpublish(ctx, req.GetVolumeId(), req.GetTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
