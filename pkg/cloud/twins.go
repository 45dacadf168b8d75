package cloud

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"k8s.io/klog/v2"
)

// keepOne settles on one of several volumes of a name, and deletes the others where that is safe.
//
// Several come about when two processes look, find nothing, and both create; or when a request whose answer was lost
// has its effect after we looked. The choice must be the same whoever makes it and whenever: a volume that is attached
// is in use, so it is kept; else the one created first, the smallest UUID among those of one second. Another is deleted
// only if it is attached to nothing, has no backups, and was made within the hour; anything else may hold data, and is
// left for a person.
func (c *Cloud) keepOne(ctx context.Context, name string, found []*Volume) (*Volume, error) {
	candidates, err := c.withDetails(ctx, found)
	if err != nil {
		return nil, err
	}
	if len(candidates) == 0 {
		return nil, nil
	}
	slices.SortFunc(candidates, byClaim)
	kept, extra := candidates[0], candidates[1:]
	if len(extra) > 0 && len(extra[0].ServerIDs) > 0 {
		return nil, &Error{
			Kind:    ErrAlreadyExists,
			Message: "storages " + kept.ID + " and " + extra[0].ID + " both carry the label " + LabelName + " of it, and both are attached",
			Remedy:  "take the label off the one that is not this volume",
		}
	}
	for _, volume := range extra {
		c.dropTwin(ctx, name, kept, volume)
	}
	return kept, nil
}

// byClaim orders volumes of one name by their claim to it.
func byClaim(a, b *Volume) int {
	attached := func(v *Volume) int { return min(len(v.ServerIDs), 1) }
	return cmp.Or(
		-cmp.Compare(attached(a), attached(b)),
		a.Created.Compare(b.Created),
		strings.Compare(a.ID, b.ID),
	)
}

func (c *Cloud) withDetails(ctx context.Context, found []*Volume) ([]*Volume, error) {
	var detailed []*Volume
	for _, volume := range found {
		details, err := c.volume(ctx, volume.ID)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		detailed = append(detailed, details)
	}
	return detailed, nil
}

// dropTwin deletes an extra volume if nobody can need it. That it stays is no reason to fail: the next call for this
// name tries again.
func (c *Cloud) dropTwin(ctx context.Context, name string, kept, extra *Volume) {
	logger := klog.FromContext(ctx).WithValues("volume", name, "kept", kept.ID, "extra", extra.ID)
	if len(extra.ServerIDs) > 0 || len(extra.backupIDs) > 0 || !isNew(extra) {
		logger.Info("Two storages carry the name of one volume, and the extra one may hold data: delete one of them by hand")
		return
	}
	if err := c.deleteVolume(ctx, extra.ID); err != nil {
		logger.Error(err, "Two storages carry the name of one volume, and the extra one could not be deleted")
		return
	}
	logger.Info("Deleted the extra one of two storages made for one volume")
}
