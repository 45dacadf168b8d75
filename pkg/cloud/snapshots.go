package cloud

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// LabelSnapshotName holds the name that a snapshot was asked for under. It is not LabelName, so that looking for a
// volume brings volumes alone.
const LabelSnapshotName = "csi-snapshot-name"

// snapshotsAge is for how long one list of the account's backups serves every reader.
const snapshotsAge = 5 * time.Second

// titleResizeBackup is how the API titles the backups that its resizing of filesystems makes. Recorded:
// resizestoragefilesystem.
const titleResizeBackup = "Resize Backup"

// Snapshot is a storage of type backup: what a volume held at one moment.
type Snapshot struct {
	ID        string // the backup's UUID
	Title     string
	Name      string // the name it was asked for under: its label csi-snapshot-name; its title where it has none
	SourceID  string // the volume it was made of, which may be gone
	Zone      string
	State     string // as a volume's
	SizeGiB   int
	Encrypted bool
	Labels    map[string]string
	Created   time.Time
	// Ready says that volumes can be made of it.
	Ready bool
}

// SnapshotSpec is the snapshot that is wanted.
type SnapshotSpec struct {
	// Name identifies the snapshot among all that this package made for the cluster. It becomes the backup's title when the
	// backup has its labels.
	Name     string
	VolumeID string
	// Labels to put on it besides those it is found by.
	Labels map[string]string
	// Inherit are the keys of labels that it gets from its volume, where that has them.
	Inherit []string
}

// Snapshot returns the snapshot of that ID. ErrNotFound when there is none, ErrWrongType when the storage is not a backup.
func (c *Cloud) Snapshot(ctx context.Context, id string) (*Snapshot, error) {
	snapshot, err := c.snapshot(ctx, id)
	return snapshot, explain(err, Error{Op: "read", Resource: "snapshot", ID: id})
}

func (c *Cloud) snapshot(ctx context.Context, id string) (*Snapshot, error) {
	if !isUUID(id) {
		return nil, notAnID()
	}
	id = canonicalID(id)
	var details upcloud.StorageDetails
	if err := c.call(ctx, http.MethodGet, "/storage/"+id, nil, &details); err != nil {
		return nil, explainMissing(err, id)
	}
	if details.UUID != id {
		return nil, notAbout("storage " + id)
	}
	if details.Type != upcloud.StorageTypeBackup {
		return nil, wrongType(id, details.Type, aSnapshot)
	}
	return snapshotOf(&details.Storage), nil
}

// Snapshots returns the snapshots of the account that may be this cluster's, as they were some seconds ago at most, and
// with everything that this process changed: one call for any number of readers. They are shared: callers must not change them.
// inherit are the keys of labels that a snapshot has from its volume: those that have no labels yet get them.
func (c *Cloud) Snapshots(ctx context.Context, inherit []string) ([]*Snapshot, error) {
	all, err := c.shared.backups.since(ctx, c, c.now().Add(-snapshotsAge), c.readBackups)
	if err != nil {
		return nil, explain(err, Error{Op: "list", Resource: "snapshots"})
	}
	own := make([]*Snapshot, 0, len(all))
	for _, snapshot := range all {
		if c.mayBeOurs(snapshot.Labels) && !isResizeBackup(snapshot) {
			own = append(own, snapshot)
		}
	}
	c.finishSnapshots(ctx, own, inherit)
	return own, nil
}

func (c *Cloud) readBackups(ctx context.Context) ([]*Snapshot, error) {
	storages, err := c.storages(ctx, "/storage/backup")
	if err != nil {
		return nil, err
	}
	snapshots := make([]*Snapshot, 0, len(storages))
	for i := range storages {
		if storages[i].Type == upcloud.StorageTypeBackup {
			snapshots = append(snapshots, snapshotOf(&storages[i]))
		}
	}
	return snapshots, nil
}

// mayBeOurs reports whether nothing says that a storage is another cluster's.
func (c *Cloud) mayBeOurs(labels map[string]string) bool {
	cluster, told := labels[LabelCluster]
	return !told || cluster == c.config.ClusterID
}

func isResizeBackup(s *Snapshot) bool {
	return s.Title == titleResizeBackup && s.Labels[LabelSnapshotName] == ""
}

// DeleteSnapshot deletes the backup. A backup that is gone already is no error. ErrWrongType when the storage is not a
// backup, ErrNotOwned when it is not this cluster's: it stays. While the backup is being made or restored, DeleteSnapshot waits
// until ctx ends.
func (c *Cloud) DeleteSnapshot(ctx context.Context, id string) error {
	checked := func(snapshot *Snapshot) error { return c.checkSnapshot(ctx, useDelete, snapshot) }
	return explain(c.whenIdle(ctx, canonicalID(id), func(ctx context.Context, id string) error {
		return c.deleteSnapshotIf(ctx, id, checked)
	}), Error{Op: "delete", Resource: "snapshot", ID: id})
}

// deleteSnapshot deletes a backup that this program began.
func (c *Cloud) deleteSnapshot(ctx context.Context, id string) error {
	return c.deleteSnapshotIf(ctx, id, func(*Snapshot) error { return nil })
}

func (c *Cloud) deleteSnapshotIf(ctx context.Context, id string, check func(*Snapshot) error) error {
	snapshot, err := c.snapshot(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = check(snapshot)
	}
	if err != nil {
		return err
	}
	defer c.shared.backups.changed() // also where the answer was lost
	err = c.call(ctx, http.MethodDelete, "/storage/"+id, nil, nil)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	c.snapshots.forget(snapshot.Name)
	return nil
}

func snapshotOf(storage *upcloud.Storage) *Snapshot {
	labels := labelMap(storage.Labels)
	return &Snapshot{
		ID: storage.UUID, Title: storage.Title, Name: firstNonEmpty(labels[LabelSnapshotName], storage.Title),
		SourceID: storage.Origin, Zone: storage.Zone, State: storage.State, SizeGiB: storage.Size,
		Encrypted: storage.Encrypted.Bool(), Labels: labels, Created: storage.Created,
		Ready: storage.State == upcloud.StorageStateOnline || storage.State == upcloud.StorageStateCloning,
	}
}

// snapshotIdentity are the labels by which a snapshot is found again.
func (c *Cloud) snapshotIdentity(name string) map[string]string {
	labels := map[string]string{LabelSnapshotName: name}
	if c.config.ClusterID != "" {
		labels[LabelCluster] = c.config.ClusterID
	}
	return labels
}

func (c *Cloud) checkSnapshotSpec(spec SnapshotSpec) error {
	if spec.Name == "" {
		return invalid("the snapshot has no name: give one, it is found again by it")
	}
	if n := utf8.RuneCountInString(spec.Name); n > maxTitle {
		return invalid("the name has %d characters: give at most %d, it becomes the title of the backup", n, maxTitle)
	}
	labels := maps.Clone(spec.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, c.snapshotIdentity(spec.Name))
	for key, value := range labels {
		if err := checkLabel(key, value); err != nil {
			return err
		}
	}
	return nil
}
