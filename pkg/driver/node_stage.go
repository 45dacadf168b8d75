package driver

import (
	"context"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// NodeStageVolume mounts the volume's filesystem at the staging path, after making it on a volume that is provably
// blank. For a raw block volume it waits for the device and proves that it is the volume's. With encryption on the node,
// both are of what the passphrase opens.
func (n *node) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if err := checkVolumeID(req.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := checkPath("staging_target_path", req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	if err := checkCapability("volume_capability", req.GetVolumeCapability()); err != nil {
		return nil, err
	}
	stage, err := stageRequest(req)
	if err != nil {
		return nil, err
	}
	if req.GetVolumeCapability().GetBlock() != nil {
		err = n.disk.StageBlock(ctx, disk.StageBlockRequest{
			Volume: stage.Volume, Path: stage.Path, Encryption: stage.Encryption, ReadOnly: stage.ReadOnly, Origin: stage.Origin,
		})
	} else {
		err = n.disk.Stage(ctx, stage)
	}
	if err != nil {
		return nil, err
	}
	n.room.took(stage.Volume.ID)
	return &csi.NodeStageVolumeResponse{}, nil
}

// stageRequest puts together what the controller (the publish context), the StorageClass (the volume context), its
// secrets and the Pod's volume (the capability) say.
func stageRequest(req *csi.NodeStageVolumeRequest) (disk.StageRequest, error) {
	volume, err := volumeFor(req.GetVolumeId(), req.GetPublishContext())
	if err != nil {
		return disk.StageRequest{}, err
	}
	params, err := parseNodeParameters("volume_context", req.GetVolumeContext())
	if err != nil {
		return disk.StageRequest{}, err
	}
	encryption, err := params.encryptionFor(req.GetSecrets())
	if err != nil {
		return disk.StageRequest{}, err
	}
	mount := req.GetVolumeCapability().GetMount() // nil, which has nothing set, for a raw block volume
	return disk.StageRequest{
		Volume:      volume,
		Path:        req.GetStagingTargetPath(),
		Filesystem:  mount.GetFsType(),
		Options:     mount.GetMountFlags(),
		MkfsOptions: params.mkfsOptions,
		Encryption:  encryption,
		ReadOnly:    readerOnly(req.GetVolumeCapability()) || publishedReadOnly(req.GetPublishContext()),
		Origin:      req.GetPublishContext()[contextOrigin],
	}, nil
}

// publishedReadOnly tells whether the controller published the volume read-only.
func publishedReadOnly(published map[string]string) bool { return published[contextReadOnly] == "true" }

// volumeFor reads the publish context. It is empty where the orchestrator attached the volume by other means: then the
// size is not known.
func volumeFor(id string, published map[string]string) (disk.Volume, error) {
	volume := disk.Volume{ID: id}
	if text := published[contextSize]; text != "" {
		size, err := strconv.ParseInt(text, 10, 64)
		if err != nil || size < 0 {
			return disk.Volume{}, invalid("publish_context", "%s is %q, not a number of bytes: publish the volume again", contextSize, text)
		}
		volume.SizeBytes = size
	}
	return volume, nil
}

func (n *node) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, missing("volume_id")
	}
	if err := checkPath("staging_target_path", req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	if err := n.disk.Unstage(ctx, req.GetVolumeId(), req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}
