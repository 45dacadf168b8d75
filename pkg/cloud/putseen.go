package cloud

import (
	"context"
	"maps"
	"net/http"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
)

// The API replaces all labels of a storage at once. A request that holds labels is made from a look at the storage, and removes
// every label that something else set after that look. So it is never sent again as it is: see withLook.

// putSeen changes a volume that was seen at the moment looked, and waits while it is busy. change makes the request from what
// was seen; nil: there is nothing to change. After a failure that may pass, putSeen looks again, and change makes another request.
func (c *Cloud) putSeen(
	w *work, seen *Volume, looked time.Time, change func(*Volume) (*request.ModifyStorageRequest, error),
) (*Volume, error) {
	pace := statePolls()
	for failed := 0; ; {
		wanted, err := change(seen)
		if err != nil {
			return nil, err
		}
		if wanted == nil {
			return seen, nil
		}
		changed, err := c.putOnce(withLook(w.ctx, looked), seen.ID, *wanted)
		switch {
		case err == nil:
			return changed, nil
		case hasCode(err, upcloud.ErrCodeStorageStateIllegal):
			err = c.awaitStorage(w, seen.ID, pace)
		default:
			err = beforeNextLook(w.attended, err, &failed, pace)
		}
		if err != nil {
			return nil, err
		}
		looking, began := look(w.ctx)
		if seen, err = c.onlyVolume(looking, seen.ID); err != nil {
			return nil, err
		}
		looked = *began
	}
}

// beforeNextLook waits before the look that precedes another request. It returns the error of the failed request if another
// is of no use, or was tried often enough.
func beforeNextLook(ctx context.Context, err error, failed *int, pace *backoff) error {
	if !uncertain(err) && !lookAgain(err) {
		return err
	}
	if *failed++; *failed == maxFailures || pace.wait(ctx) != nil {
		return err
	}
	return nil
}

// putSnapshotLabels gives a backup that was seen just now labels, besides those it has, and a title. It returns the backup as
// it is then; one that another process has finished meanwhile stays as it is.
func (c *Cloud) putSnapshotLabels(ctx context.Context, seen *Snapshot, title string, identity, labels map[string]string) (*Snapshot, error) {
	pace, looked := statePolls(), time.Now()
	c.shared.backups.changed()
	defer c.shared.backups.changed()
	for failed := 0; ; {
		all := merged(seen.Labels, labels)
		list := labelList(all)
		wanted := request.ModifyStorageRequest{Labels: &list}
		if seen.Title != title {
			wanted.Title = title
		}
		err := c.call(withLook(ctx, looked), http.MethodPut, "/storage/"+seen.ID, wanted, nil)
		if err == nil {
			named := *seen
			named.Title, named.Name, named.Labels = title, title, all
			return &named, nil
		}
		if err := beforeNextLook(attended(ctx), err, &failed, pace); err != nil {
			return nil, err
		}
		looking, began := look(ctx)
		again, err := c.snapshot(looking, seen.ID)
		if err != nil {
			return nil, err
		}
		if hasLabels(again.Labels, identity) {
			return again, nil
		}
		seen, looked = again, *began
	}
}

// merged are the labels that a storage has, with others put on it.
func merged(has, others map[string]string) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, has)
	maps.Copy(labels, others)
	return labels
}
