package driver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// snapshotLabels are the labels that snapshots get from what external-snapshotter tells with --extra-create-metadata.
var snapshotLabels = map[string]string{
	sidecarPrefix + "volumesnapshot/namespace":   "csi-snapshot-namespace",
	sidecarPrefix + "volumesnapshot/name":        "csi-snapshot-object",
	sidecarPrefix + "volumesnapshotcontent/name": "csi-snapshot-content",
}

// inheritedLabels are the keys of the labels that a snapshot has from its volume.
var inheritedLabels = []string{labelNodeEncryption}

// parseSnapshotParameters reads the parameters of a VolumeSnapshotClass: there are none but those of the sidecar.
func parseSnapshotParameters(given map[string]string) (labels map[string]string, err error) {
	labels = make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(given)) {
		switch label := snapshotLabels[key]; {
		case label != "" && given[key] != "":
			labels[label] = given[key]
		case forSidecars(key):
		default:
			return nil, invalid("parameters", "unknown parameter %q; remove it: a VolumeSnapshotClass of this driver has no parameters", key)
		}
	}
	return labels, nil
}

// CreateSnapshot begins a backup of the volume, and answers at once: the snapshot is ready to use when a later call finds
// it online. It costs three calls, and those that poll it one each.
func (c *controller) CreateSnapshot(ctx context.Context, req *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if err := checkName("name", req.GetName()); err != nil {
		return nil, err
	}
	if req.GetSourceVolumeId() == "" {
		return nil, missing("source_volume_id")
	}
	labels, err := parseSnapshotParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	snapshot, err := c.cloud.CreateSnapshot(ctx, cloud.SnapshotSpec{
		Name: req.GetName(), VolumeID: req.GetSourceVolumeId(), Labels: labels, Inherit: inheritedLabels,
	})
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: snapshotOf(snapshot)}, nil
}

func snapshotOf(snapshot *cloud.Snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId:     snapshot.ID,
		SourceVolumeId: snapshot.SourceID,
		SizeBytes:      int64(snapshot.SizeGiB) * gib,
		CreationTime:   timestamppb.New(snapshot.Created),
		ReadyToUse:     snapshot.Ready,
	}
}

// DeleteSnapshot succeeds for snapshots that are gone and for IDs that cannot name any. It refuses a UUID that names a
// storage of another type.
func (c *controller) DeleteSnapshot(ctx context.Context, req *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if req.GetSnapshotId() == "" {
		return nil, missing("snapshot_id")
	}
	err := c.cloud.DeleteSnapshot(ctx, req.GetSnapshotId())
	if errors.Is(err, cloud.ErrWrongType) {
		return nil, invalid("snapshot_id", "%v; %s", err, keepBackup)
	}
	if errors.Is(err, cloud.ErrNotOwned) {
		return nil, status.Errorf(codes.FailedPrecondition, "%v; %s", err, keepBackup)
	}
	if err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

// GetSnapshot reads one snapshot.
func (c *controller) GetSnapshot(ctx context.Context, req *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	if req.GetSnapshotId() == "" {
		return nil, missing("snapshot_id")
	}
	snapshot, err := c.cloud.Snapshot(ctx, req.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: snapshotOf(snapshot)}, nil
}

// ListSnapshots reads one snapshot by its ID, and else serves from one list of the account's backups that many readers
// share.
func (c *controller) ListSnapshots(ctx context.Context, req *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	asked, err := parsePage(req)
	if err != nil {
		return nil, err
	}
	snapshots, err := c.snapshotsFor(ctx, req)
	if err != nil {
		return nil, err
	}
	page, next := pageOf(asked, snapshots, func(s *cloud.Snapshot) string { return s.ID })
	response := &csi.ListSnapshotsResponse{NextToken: next}
	for _, snapshot := range page {
		response.Entries = append(response.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: snapshotOf(snapshot)})
	}
	return response, nil
}

func (c *controller) snapshotsFor(ctx context.Context, req *csi.ListSnapshotsRequest) ([]*cloud.Snapshot, error) {
	volume := req.GetSourceVolumeId()
	ofVolume := func(s *cloud.Snapshot) bool { return volume == "" || strings.EqualFold(s.SourceID, volume) }
	if id := req.GetSnapshotId(); id != "" {
		snapshot, err := c.cloud.Snapshot(ctx, id)
		switch {
		case errors.Is(err, cloud.ErrNotFound), errors.Is(err, cloud.ErrWrongType):
			return nil, nil
		case err != nil:
			return nil, err
		case !ofVolume(snapshot):
			return nil, nil
		}
		return []*cloud.Snapshot{snapshot}, nil
	}
	all, err := c.cloud.Snapshots(ctx, inheritedLabels)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s *cloud.Snapshot) bool { return !ofVolume(s) }), nil
}
