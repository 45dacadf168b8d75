package cloud

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"k8s.io/klog/v2"
)

// How a snapshot is found again: the request that makes a backup takes no labels, and one that is being made takes none
// either. So its title tells from the start what it was made for, and the labels follow when it is online. Until then it is found
// by that title (see beginTitle) among its volume's backups, which the volume's own details list. A backup that merely has the
// name for its title is someone's own, and is left alone.

// CreateSnapshot returns the snapshot of spec.Name, begun if there is none. It does not wait until the backup is online:
// Ready tells, and the repeated call looks again. Calls for one name at one time are one, and the snapshot is found
// again whatever happened to earlier calls. While the volume is busy with another backup or a clone, it waits until ctx
// ends. One of that name made of another volume is ErrAlreadyExists.
func (c *Cloud) CreateSnapshot(ctx context.Context, spec SnapshotSpec) (*Snapshot, error) {
	doing := Error{Op: "create", Resource: "snapshot", ID: spec.Name, Target: "of volume " + spec.VolumeID}
	if err := c.checkSnapshotSpec(spec); err != nil {
		return nil, explain(err, doing)
	}
	if !isUUID(spec.VolumeID) {
		return nil, explain(notAnID(), doing)
	}
	spec.VolumeID = canonicalID(spec.VolumeID)
	snapshot, err := c.snapshots.flights.do(ctx, spec.Name, func(w *work) (*Snapshot, error) {
		return c.createSnapshot(w, spec)
	})
	if err == nil {
		// The flight may have been another caller's, with another wish.
		err = sameSource(snapshot, spec)
	}
	if err != nil {
		return nil, explain(err, doing)
	}
	own := *snapshot
	own.Labels = maps.Clone(snapshot.Labels)
	return &own, nil
}

func sameSource(snapshot *Snapshot, spec SnapshotSpec) error {
	if snapshot.SourceID == spec.VolumeID {
		return nil
	}
	return &Error{
		Kind:    ErrAlreadyExists,
		Message: "backup " + snapshot.ID + " has that name and is of storage " + snapshot.SourceID,
		Remedy:  "ask for the snapshot under another name",
	}
}

func (c *Cloud) createSnapshot(w *work, spec SnapshotSpec) (*Snapshot, error) {
	found, err := c.findSnapshot(w.ctx, spec)
	if err != nil {
		return nil, lookFailed(err)
	}
	if found != nil {
		if err := sameSource(found, spec); err != nil {
			return nil, err
		}
		return c.nameSnapshot(w.ctx, found, spec, c.snapshots.of(spec.Name).inherited)
	}

	pace := statePolls()
	for failed := 0; ; {
		begun, inherited, err := c.begunSnapshot(w.ctx, spec)
		if err != nil {
			return nil, lookFailed(err)
		}
		if begun == nil {
			begun, err = c.postBackup(w.ctx, spec)
		}
		switch {
		case err == nil:
			return c.nameSnapshot(w.ctx, c.onlyOne(w.ctx, begun, spec, failed), spec, inherited)
		case hasCode(err, upcloud.ErrCodeStorageStateIllegal):
			if err := c.awaitStorage(w, spec.VolumeID, pace); err != nil {
				return nil, err
			}
		case uncertain(err):
			if failed++; failed == maxCreations || pace.wait(w.attended) != nil {
				return nil, err
			}
		default:
			return nil, stillOpen(err, failed > 0)
		}
	}
}

// onlyOne looks again after requests whose outcome is not known: one may have had its effect after the look before.
func (c *Cloud) onlyOne(ctx context.Context, begun *Snapshot, spec SnapshotSpec, failed int) *Snapshot {
	if failed == 0 {
		return begun
	}
	if kept, _, err := c.begunSnapshot(ctx, spec); err == nil && kept != nil {
		return kept
	}
	return begun
}

// findSnapshot returns the snapshot that this process began under that name, or the one with the labels; nil if none.
func (c *Cloud) findSnapshot(ctx context.Context, spec SnapshotSpec) (*Snapshot, error) {
	name := spec.Name
	if id := c.snapshots.of(name).id; id != "" {
		begun, err := c.snapshot(ctx, id)
		if err == nil && c.isOf(begun, name) {
			return begun, nil
		}
		if err != nil && !missing(err) {
			return nil, err
		}
		c.snapshots.forget(name)
	}
	identity := c.snapshotIdentity(name)
	storages, err := c.storages(ctx, "/storage?"+labelQuery(identity))
	if err != nil {
		return nil, err
	}
	var named []*Snapshot
	for i := range storages {
		snapshot := snapshotOf(&storages[i])
		if storages[i].Type == upcloud.StorageTypeBackup && c.isNamed(snapshot, name) {
			named = append(named, snapshot)
		}
	}
	if len(named) == 0 {
		return nil, nil
	}
	return slices.MinFunc(named, firstMade), nil
}

// isNamed reports whether a backup has the labels of the snapshot of that name.
func (c *Cloud) isNamed(backup *Snapshot, name string) bool {
	identity := c.snapshotIdentity(name)
	// Who has no name for the cluster has no claim to the snapshots of one that has. Two clusters may have one name: see originOf.
	ours := backup.Labels[LabelCluster] == identity[LabelCluster] && c.originOf(backup.Labels, backup.Title) != originOther
	return ours && hasLabels(backup.Labels, identity)
}

// isOf reports whether a backup is the snapshot of that name, be it finished or begun.
func (c *Cloud) isOf(backup *Snapshot, name string) bool {
	return hasLabels(backup.Labels, c.snapshotIdentity(name)) ||
		backup.Title == c.beginTitle(SnapshotSpec{Name: name, VolumeID: backup.SourceID})
}

func firstMade(a, b *Snapshot) int {
	return cmp.Or(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
}

// begunSnapshot looks among the volume's backups for one that was begun under this name and has no labels yet. Where
// there are several, because an answer was lost or two processes were at work, the first is kept, and the others are
// deleted if they are new. It also returns what the snapshot gets of the volume's labels, be it begun or not.
func (c *Cloud) begunSnapshot(ctx context.Context, spec SnapshotSpec) (*Snapshot, map[string]string, error) {
	var source upcloud.StorageDetails
	if err := c.call(ctx, http.MethodGet, "/storage/"+spec.VolumeID, nil, &source); err != nil {
		return nil, nil, explainMissing(err, spec.VolumeID)
	}
	if source.Type != upcloud.StorageTypeNormal {
		return nil, nil, wrongType(spec.VolumeID, source.Type, aVolume)
	}
	inherited := labelMap(source.Labels)
	if err := c.checkUse(useSnapshot, inherited, source.Title); err != nil {
		return nil, nil, err
	}
	maps.DeleteFunc(inherited, func(key, _ string) bool { return !slices.Contains(spec.Inherit, key) })
	title := c.beginTitle(spec)
	backups, err := c.backups(ctx, c.snapshots.candidates(source.BackupUUIDs, title))
	if err != nil {
		return nil, nil, err
	}
	var begun []*Snapshot
	for _, backup := range backups {
		if c.isNamed(backup, spec.Name) {
			return backup, inherited, nil // another process named it since the look for the labels
		}
		if c.rememberTitle(backup) == title && backup.SourceID == spec.VolumeID {
			begun = append(begun, backup)
		}
	}
	if len(begun) == 0 {
		return nil, inherited, nil
	}
	slices.SortFunc(begun, firstMade)
	for _, extra := range begun[1:] {
		c.dropSnapshotTwin(ctx, begun[0], extra)
	}
	return begun[0], inherited, nil
}

// dropFailedSnapshot deletes a backup that the API failed to make, so that the retry makes another: nothing can be restored
// of it, and nobody would ever delete it, as it never became a snapshot.
func (c *Cloud) dropFailedSnapshot(ctx context.Context, snapshot *Snapshot) error {
	failed := &Error{Kind: ErrUnavailable, Message: "backup " + snapshot.ID + " ended in state error", Remedy: remedyWait}
	if time.Since(snapshot.Created).Abs() >= time.Hour {
		failed.Kind, failed.Remedy = ErrServerState, "delete that backup, so that another is made"
		return failed
	}
	if err := c.deleteSnapshot(ctx, snapshot.ID); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Deleted a backup that the API failed to make", "backup", snapshot.ID, "title", snapshot.Title)
	return failed
}

// rememberTitle spares later looks at a backup. It returns the title by which alone the backup can be found; empty where it
// has a name, or is another cluster's.
func (c *Cloud) rememberTitle(backup *Snapshot) (title string) {
	if _, named := backup.Labels[LabelSnapshotName]; !named && c.mayBeOurs(backup.Labels) {
		title = backup.Title
	}
	c.snapshots.saw(backup.ID, title)
	return title
}

// fewBackups is how many backups are read one by one; more are read with one list.
const fewBackups = 4

func (c *Cloud) backups(ctx context.Context, ids []string) ([]*Snapshot, error) {
	if len(ids) > fewBackups {
		return c.listedBackups(ctx, ids)
	}
	var backups []*Snapshot
	for _, id := range ids {
		backup, err := c.snapshot(ctx, id)
		if missing(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		backups = append(backups, backup)
	}
	return backups, nil
}

// listedBackups finds backups in a list that was begun after the request came, and that all who look at the same time share.
func (c *Cloud) listedBackups(ctx context.Context, ids []string) ([]*Snapshot, error) {
	all, err := c.shared.backups.since(ctx, c, c.now(), c.readBackups)
	if err != nil {
		return nil, err
	}
	var backups []*Snapshot
	for _, snapshot := range all {
		if slices.Contains(ids, snapshot.ID) {
			own := *snapshot
			backups = append(backups, &own)
		}
	}
	return backups, nil
}

func (c *Cloud) dropSnapshotTwin(ctx context.Context, kept, extra *Snapshot) {
	logger := klog.FromContext(ctx).WithValues("snapshot", kept.Title, "kept", kept.ID, "extra", extra.ID)
	if time.Since(extra.Created).Abs() >= time.Hour {
		logger.Info("Two backups carry the name of one snapshot: delete one of them by hand")
		return
	}
	stillBegun := func(now *Snapshot) error {
		if now.Title == extra.Title && now.Labels[LabelSnapshotName] == "" {
			return nil
		}
		return &Error{Kind: ErrBusy, Message: "another process finished it meanwhile"}
	}
	if err := c.deleteSnapshotIf(ctx, extra.ID, stillBegun); err != nil {
		logger.Info("Two backups carry the name of one snapshot, and the extra one cannot be deleted now", "reason", err.Error())
		return
	}
	logger.Info("Deleted the extra one of two backups made for one snapshot")
}

func (c *Cloud) postBackup(ctx context.Context, spec SnapshotSpec) (*Snapshot, error) {
	c.shared.backups.changed()
	defer c.shared.backups.changed()
	var made upcloud.StorageDetails
	wanted := request.CreateBackupRequest{Title: c.beginTitle(spec)}
	if err := c.call(ctx, http.MethodPost, "/storage/"+spec.VolumeID+"/backup", wanted, &made); err != nil {
		return nil, err
	}
	if !isUUID(made.UUID) {
		return nil, &Error{Kind: ErrUnavailable, Message: "the API made a backup and did not say which", uncertain: true}
	}
	snapshot := snapshotOf(&made.Storage)
	// What it was asked to be made of, should the answer not say so.
	snapshot.SourceID = firstNonEmpty(snapshot.SourceID, spec.VolumeID)
	return snapshot, nil
}

// nameSnapshot puts the labels on a backup that is online, and calls no other ready: the caller comes again for those
// that are not. inherited are those that its volume has for it.
func (c *Cloud) nameSnapshot(
	ctx context.Context, snapshot *Snapshot, spec SnapshotSpec, inherited map[string]string,
) (*Snapshot, error) {
	identity := c.snapshotIdentity(spec.Name)
	if hasLabels(snapshot.Labels, identity) {
		c.snapshots.forget(spec.Name)
		return snapshot, nil
	}
	c.snapshots.begin(spec.Name, begunBackup{id: snapshot.ID, inherited: inherited})
	switch snapshot.State {
	case upcloud.StorageStateOnline:
	case upcloud.StorageStateError:
		return nil, c.dropFailedSnapshot(ctx, snapshot)
	default:
		snapshot.Ready = false
		return snapshot, nil
	}

	labels := map[string]string{}
	maps.Copy(labels, inherited)
	maps.Copy(labels, spec.Labels)
	maps.Copy(labels, identity)
	maps.Copy(labels, c.clusterUIDLabel())
	named, err := c.putSnapshotLabels(ctx, snapshot, spec.Name, identity, labels)
	switch {
	case err == nil:
		c.snapshots.forget(spec.Name)
		c.rememberTitle(named)
		return named, nil
	case errors.Is(err, ErrBusy):
		snapshot.Ready = false // it was online a moment ago, and somebody reads it: it is named next time
	case errors.Is(err, ErrInvalid):
		// An API that takes no labels on backups: the title and the origin identify it.
		klog.FromContext(ctx).Info("The API takes no labels on the backup", "snapshot", snapshot.ID, "reason", err.Error())
	default:
		return nil, stillOpen(err, true) // there is a backup: no error may read as if there were none
	}
	return snapshot, nil
}
