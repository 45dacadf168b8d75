package cloud

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/klog/v2"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// beginTitle is under which a backup is begun: the same for every try of one request, and a title that nothing else has. A name
// that ends in a UUID, as external-snapshotter makes them, is that by itself. Any other name people give their own backups as
// well: it is the title only when the backup has its labels.
func (c *Cloud) beginTitle(spec SnapshotSpec) string {
	if titleOfClaim.MatchString(spec.Name) {
		return spec.Name
	}
	of := " (CSI snapshot of " + spec.VolumeID
	if c.config.ClusterID != "" {
		of += " for " + c.config.ClusterID
	}
	return fittingTitle(spec.Name, of+")")
}

// titleOfBegun is what beginTitle makes of a name that people give: name, volume and cluster.
var titleOfBegun = regexp.MustCompile(`^(.+) \(CSI snapshot of ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?: for (.+))?\)$`)

// begunFor reads from its title what a backup was begun for, nil unless this cluster began it under a name that people give, and
// it has no labels yet.
func (c *Cloud) begunFor(backup *Snapshot) *SnapshotSpec {
	parts := titleOfBegun.FindStringSubmatch(backup.Title)
	if parts == nil || parts[2] != backup.SourceID || parts[3] != c.config.ClusterID || backup.Labels[LabelSnapshotName] != "" {
		return nil
	}
	spec := &SnapshotSpec{Name: parts[1], VolumeID: parts[2]}
	if c.beginTitle(*spec) != backup.Title || strings.Contains(parts[1], shortened) {
		return nil // what is left of a long name does not tell it
	}
	return spec
}

// finishSnapshot gives a backup the labels that it has not got yet, because no one asked for the snapshot again after it was
// begun, as Nomad does not. It is found by its title until then, so that nothing is wrong when that fails. inherit are the keys
// of labels that it gets from its volume.
func (c *Cloud) finishSnapshot(ctx context.Context, backup *Snapshot, inherit []string) (*Snapshot, error) {
	spec := c.begunFor(backup)
	if spec == nil || backup.State != upcloud.StorageStateOnline {
		return backup, nil
	}
	volume, err := c.volume(ctx, spec.VolumeID)
	inherited := map[string]string{}
	switch {
	case err == nil:
		maps.Copy(inherited, volume.Labels)
		maps.DeleteFunc(inherited, func(key, _ string) bool { return !slices.Contains(inherit, key) })
	case !errors.Is(err, ErrNotFound):
		return nil, err
	}
	own := *backup
	return c.nameSnapshot(ctx, &own, *spec, inherited)
}

// finishSnapshots is finishSnapshot for those of a list that need it. What fails now is tried by the next list. The list may be
// some seconds old, and the labels that it has are not all that there are by now: each is read again.
func (c *Cloud) finishSnapshots(ctx context.Context, backups []*Snapshot, inherit []string) {
	for i, listed := range backups {
		if c.begunFor(listed) == nil || listed.State != upcloud.StorageStateOnline {
			continue
		}
		backup, err := c.snapshot(ctx, listed.ID)
		if missing(err) {
			continue
		}
		finished := backup
		if err == nil {
			finished, err = c.finishSnapshot(ctx, backup, inherit)
		}
		if err != nil {
			klog.FromContext(ctx).Info("A snapshot could not be given its labels", "snapshot", listed.ID, "err", err)
			continue
		}
		backups[i] = finished
	}
}
