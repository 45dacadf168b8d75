package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// NodeGetVolumeStats tells how full a volume is, and whether something is wrong with it. Of one that is out of order so
// far that it cannot be measured, it tells the latter alone.
func (n *node) NodeGetVolumeStats(ctx context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, missing("volume_id")
	case req.GetVolumePath() == "":
		return nil, missing("volume_path")
	}
	condition, err := n.disk.Condition(ctx, req.GetVolumeId(), req.GetVolumePath())
	if err != nil {
		return nil, err
	}
	response := &csi.NodeGetVolumeStatsResponse{
		VolumeCondition: &csi.VolumeCondition{Abnormal: condition.Abnormal, Message: condition.Message},
	}
	stats, err := n.disk.Stats(ctx, req.GetVolumeId(), req.GetVolumePath())
	switch {
	case err == nil:
		response.Usage = usage(stats)
	case !condition.Abnormal:
		return nil, err
	}
	return response, nil
}

func usage(stats disk.Stats) []*csi.VolumeUsage {
	bytes := &csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: stats.TotalBytes}
	if stats.Block {
		return []*csi.VolumeUsage{bytes}
	}
	bytes.Used, bytes.Available = stats.UsedBytes, stats.AvailableBytes
	return []*csi.VolumeUsage{bytes, {
		Unit: csi.VolumeUsage_INODES, Total: stats.TotalInodes, Used: stats.UsedInodes, Available: stats.FreeInodes,
	}}
}
