package cloud

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// Role is what a storage is to a cluster.
type Role string

// The roles of storages.
const (
	RoleVolume   Role = "volume"
	RoleCopy     Role = "unfinished copy" // begun for a volume, under its provisional title
	RoleSnapshot Role = "snapshot"
	RoleOther    Role = "other" // nothing says that a CSI driver made it
)

// Claim is whose a storage is, as its labels or its provisional title tell.
type Claim string

// The claims on storages.
const (
	ClaimOurs  Claim = "this cluster"    // it names Config.ClusterID, which is not empty
	ClaimOther Claim = "another cluster" // it names another
	ClaimNone  Claim = "not told"        // it names none: made without a cluster ID, or by UpCloud's own driver
)

// Storage is a disk or a backup of the account, seen by somebody who looks for leftovers.
type Storage struct {
	ID       string
	Title    string
	Name     string // the name that it was asked for under: of its labels, or as its title tells
	Role     Role
	Claim    Claim
	Zone     string
	Tier     string
	State    string
	SourceID string // what it is a copy or a backup of, where that is known
	Backup   bool   // and not a disk
	SizeGiB  int
	Labels   map[string]string
	Created  time.Time // zero where the API does not tell
	// ServerIDs are the servers that it is attached to, known after StorageNow only: lists do not tell.
	ServerIDs []string
}

var (
	// titleOfUnfinished is what provisionalTitle makes.
	titleOfUnfinished = regexp.MustCompile(
		`^(.*) \(unfinished copy of ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?: for (.+))?\)$`)
	// titleOfSnapshotter is how external-snapshotter names snapshots by default: all that tells the backups of UpCloud's
	// own driver, and ours that have no labels yet.
	titleOfSnapshotter = regexp.MustCompile(`^snapshot-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// Inventory lists every disk and backup of the account with its role and claim: one call.
func (c *Cloud) Inventory(ctx context.Context) ([]*Storage, error) {
	listed, err := c.storages(ctx, "/storage/private")
	if err != nil {
		return nil, explain(err, Error{Op: "list", Resource: "storages"})
	}
	all := make([]*Storage, 0, len(listed))
	claims := make(map[string]Claim, len(listed))
	for i := range listed {
		if kind := listed[i].Type; kind != upcloud.StorageTypeNormal && kind != upcloud.StorageTypeBackup {
			continue
		}
		storage := c.storageOf(&listed[i])
		all = append(all, storage)
		claims[storage.ID] = storage.Claim
	}
	for _, storage := range all {
		// A backup gets its labels when it is online: until then it is whose its volume is.
		claim, found := claims[storage.SourceID]
		if storage.Role == RoleSnapshot && storage.Claim == ClaimNone && storage.Labels[LabelSnapshotName] == "" && found {
			storage.Claim = claim
		}
	}
	return all, nil
}

// StorageNow reads one disk or backup as it is now, with its servers. ErrNotFound when there is none. The claim of a
// backup without labels is not told: Inventory has that from the backup's volume.
func (c *Cloud) StorageNow(ctx context.Context, id string) (*Storage, error) {
	doing := Error{Op: "read", Resource: "storage", ID: id}
	if !isUUID(id) {
		return nil, explain(notAnID(), doing)
	}
	id = canonicalID(id)
	var details upcloud.StorageDetails
	if err := c.call(ctx, http.MethodGet, "/storage/"+id, nil, &details); err != nil {
		return nil, explain(err, doing)
	}
	if canonicalID(details.UUID) != id {
		return nil, explain(notAbout("storage "+id), doing)
	}
	storage := c.storageOf(&details.Storage)
	storage.ServerIDs = slices.Clone(details.ServerUUIDs)
	return storage, nil
}

// RemoveStorage deletes a disk or a backup at once or not at all, and keeps a disk's backups whatever its labels say: they
// may be somebody's snapshots. One that is gone already is no error; ErrInUse and ErrBusy tell why it cannot go.
func (c *Cloud) RemoveStorage(ctx context.Context, storage *Storage) error {
	doing := Error{Op: "delete", Resource: "storage", ID: storage.ID}
	if !isUUID(storage.ID) {
		return explain(notAnID(), doing)
	}
	if storage.Role != RoleSnapshot {
		err := c.deleteVolume(ctx, storage.ID)
		c.shared.volumes.changed()
		return explain(err, doing)
	}
	err := c.call(ctx, http.MethodDelete, "/storage/"+storage.ID, nil, nil)
	c.shared.backups.changed()
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return explain(err, doing)
}

func (c *Cloud) storageOf(wire *upcloud.Storage) *Storage {
	volume := volumeOf(wire)
	storage := &Storage{
		ID: volume.ID, Title: volume.Title, Zone: volume.Zone, Tier: volume.Tier, State: volume.State,
		SourceID: volume.OriginID, SizeGiB: volume.SizeGiB, Labels: volume.Labels, Created: volume.Created,
		Backup: wire.Type == upcloud.StorageTypeBackup, Role: RoleOther, Claim: c.claim(volume.Labels[LabelCluster]),
	}
	unfinished := titleOfUnfinished.FindStringSubmatch(volume.Title)
	switch {
	case wire.Type == upcloud.StorageTypeBackup:
		storage.Name = firstNonEmpty(volume.Labels[LabelSnapshotName], volume.Title)
		if begun := titleOfBegun.FindStringSubmatch(volume.Title); begun != nil && len(volume.Labels) == 0 {
			storage.Name, storage.Role, storage.Claim = begun[1], RoleSnapshot, c.claim(begun[3])
		}
		if volume.Labels[LabelSnapshotName] != "" || titleOfSnapshotter.MatchString(volume.Title) {
			storage.Role = RoleSnapshot
		}
	case volume.Name != "":
		storage.Name, storage.Role = volume.Name, RoleVolume
	case unfinished != nil:
		storage.Name, storage.Role, storage.Claim = unfinished[1], RoleCopy, c.claim(unfinished[3])
		storage.SourceID = firstNonEmpty(storage.SourceID, unfinished[2])
	case titleOfProvisioned.MatchString(volume.Title):
		storage.Name, storage.Role = volume.Title, RoleVolume
	}
	return storage
}

func (c *Cloud) claim(cluster string) Claim {
	switch cluster {
	case "":
		return ClaimNone
	case c.config.ClusterID:
		return ClaimOurs
	}
	return ClaimOther
}
