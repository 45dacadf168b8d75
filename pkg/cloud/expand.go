package cloud

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"k8s.io/klog/v2"
)

// maxResizeRefusals is how often a server that is in no passing state may refuse the growth of its disk.
const maxResizeRefusals = 3

// ExpandVolume makes the volume at least atLeastGiB large, attached or not, and returns it as it is then. One that is as
// large already stays as it is, and none ever shrinks. mostGiB is what it must not exceed, 0 for no limit. It waits while
// the volume or its server is busy, until ctx ends; what it began goes on then, and a retry joins it.
//
// The filesystem on it is its server's to grow: the API's own resizing of filesystems needs a partition and leaves a
// backup behind, and is never used. Such backups that UpCloud's own driver left of this volume are deleted.
//
// Errors: ErrOutOfRange, ErrNotFound, ErrServerState where the API grows no disk of a running server.
func (c *Cloud) ExpandVolume(ctx context.Context, id string, atLeastGiB, mostGiB int) (*Volume, error) {
	doing := Error{Op: "expand", Resource: "storage", ID: id, Target: fmt.Sprintf("to %d GiB", atLeastGiB)}
	id = canonicalID(id)
	key := fmt.Sprintf("expand %s %d %d", id, atLeastGiB, mostGiB)
	volume, err := c.changes.do(ctx, key, func(w *work) (*Volume, error) { return c.expand(w, id, atLeastGiB, mostGiB) })
	if err != nil {
		return nil, explain(err, doing)
	}
	own := *volume
	own.Labels = maps.Clone(volume.Labels)
	return &own, nil
}

func (c *Cloud) expand(w *work, id string, atLeastGiB, mostGiB int) (*Volume, error) {
	volume, err := c.onlyVolume(w.ctx, id)
	if err != nil {
		return nil, err
	}
	if err := expandable(volume, atLeastGiB, mostGiB); err != nil {
		return nil, err
	}
	if volume.SizeGiB >= atLeastGiB {
		return volume, nil
	}
	pace := statePolls()
	for refused := 0; ; {
		grown, err := c.put(w, id, request.ModifyStorageRequest{Size: atLeastGiB})
		switch {
		case err == nil:
			return c.grown(w, grown, atLeastGiB)
		case !hasCode(err, upcloud.ErrCodeServerStateIllegal):
			return nil, err
		}
		if refused++; refused == maxResizeRefusals {
			return nil, &Error{
				Kind: ErrServerState, Code: codeOf(err), Message: "the API does not grow it while its server is in that state",
				Remedy: "stop the workload, so that the volume is detached, or stop the server",
			}
		}
		for _, server := range volume.ServerIDs {
			if err := c.awaitServer(w, server, pace); err != nil && !errors.Is(err, ErrNotFound) {
				return nil, err
			}
		}
		if waitErr := pace.wait(w.ctx); waitErr != nil {
			return nil, err
		}
	}
}

// onlyVolume reads a storage that must be a volume.
func (c *Cloud) onlyVolume(ctx context.Context, id string) (*Volume, error) {
	volume, err := c.volume(ctx, id)
	if err == nil && volume.kind != upcloud.StorageTypeNormal {
		return nil, &Error{Kind: ErrNotFound, Message: "the storage of that ID is no volume: its type is " + volume.kind}
	}
	return volume, err
}

// expandable tells whether the volume can have a size in the range.
func expandable(volume *Volume, atLeastGiB, mostGiB int) error {
	if mostGiB > 0 && volume.SizeGiB > mostGiB {
		return &Error{
			Kind:    ErrOutOfRange,
			Message: fmt.Sprintf("it has %d GiB, more than the limit of %d, and volumes cannot shrink", volume.SizeGiB, mostGiB),
		}
	}
	tier, err := findTier(volume.Tier)
	if err == nil && atLeastGiB > tier.MaxSizeGiB {
		return &Error{
			Kind:    ErrOutOfRange,
			Message: fmt.Sprintf("storages of tier %s have %d GiB at most", tier.Name, tier.MaxSizeGiB),
		}
	}
	return nil
}

// grown waits until the growth is done, and tidies up.
func (c *Cloud) grown(w *work, volume *Volume, atLeastGiB int) (*Volume, error) {
	volume, err := c.awaitOnline(w, volume)
	if err != nil {
		return nil, err
	}
	if volume.SizeGiB < atLeastGiB {
		return nil, &Error{
			Kind: ErrUnavailable, Remedy: remedyWait,
			Message: fmt.Sprintf("the API accepted the size, but shows %d GiB", volume.SizeGiB),
		}
	}
	if len(volume.backupIDs) > 0 {
		c.dropResizeBackups(w.ctx, volume)
	}
	return volume, nil
}

// dropResizeBackups deletes the backups that the API made of this volume when UpCloud's own driver had it resize the
// filesystem. They are told by the API's own title for them and by having no labels. That one stays is no reason to fail.
func (c *Cloud) dropResizeBackups(ctx context.Context, volume *Volume) {
	logger := klog.FromContext(ctx).WithValues("volume", volume.ID)
	backups, err := c.backups(ctx, c.snapshots.candidates(volume.backupIDs, titleResizeBackup))
	if err != nil {
		logger.Info("Backups left by resizing were not looked for", "reason", err.Error())
		return
	}
	for _, backup := range backups {
		if c.rememberTitle(backup) != titleResizeBackup || backup.SourceID != volume.ID || len(backup.Labels) > 0 {
			continue
		}
		if err := c.deleteSnapshot(ctx, backup.ID); err != nil {
			logger.Info("A backup left by resizing could not be deleted", "backup", backup.ID, "reason", err.Error())
			continue
		}
		logger.Info("Deleted a backup left by resizing", "backup", backup.ID, "made", backup.Created)
	}
}
