package cloud

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
)

// maxResizeRefusals is how often a server that is in no passing state may refuse the growth of its disk.
const maxResizeRefusals = 3

// ExpandVolume makes the volume at least atLeastGiB large, attached or not, and returns it as it is then. One that is as
// large already stays as it is, and none ever shrinks. mostGiB is what it must not exceed, 0 for no limit. It waits while
// the volume or its server is busy, until ctx ends; what was sent by then gets its answer, and a retry joins it.
//
// The filesystem on it is its server's to grow: the API's own resizing of filesystems needs a partition and leaves a
// backup behind, and is never used. Such backups that UpCloud's own driver left stay: nothing but their title tells them from
// those that people make.
//
// Errors: ErrOutOfRange, ErrNotFound, ErrWrongType, ErrNotOwned, ErrExhausted where the account has no room for the growth, and ErrInUse
// where the API does not grow the disk of a running server.
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
	if err := c.checkUse(useGrow, volume.Labels, volume.Title); err != nil {
		return nil, err
	}
	pace := statePolls()
	for refused := 0; ; {
		grown, err := c.put(w, id, request.ModifyStorageRequest{Size: atLeastGiB})
		switch {
		case err == nil:
			grown, err = c.grown(w, grown, atLeastGiB)
			return grown, stillOpen(err, true) // the API has accepted the size
		case !hasCode(err, upcloud.ErrCodeServerStateIllegal):
			return nil, err
		}
		if refused++; refused == maxResizeRefusals {
			return nil, &Error{
				Kind: ErrInUse, Code: codeOf(err), Message: "the API does not grow it while its server is in that state",
				Remedy: "stop the workload, so that the volume is detached, or stop the server",
			}
		}
		for _, server := range volume.ServerIDs {
			if err := c.awaitServer(w, server, pace); err != nil && !errors.Is(err, ErrNotFound) {
				return nil, err
			}
		}
		if waitErr := pace.wait(w.attended); waitErr != nil {
			return nil, err
		}
	}
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
	return volume, nil
}
