package cloud

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
)

// Volume is a storage of type normal: a disk that servers can have attached.
type Volume struct {
	ID       string // the storage's UUID
	Title    string
	Name     string // the name it was asked for under: its label csi-name, empty on storages made otherwise
	Zone     string
	Tier     string
	State    string // online, maintenance, cloning, backuping, syncing, error
	OriginID string // the storage that this is a copy of, empty where neither a label nor the API tells
	SizeGiB  int
	// Encrypted is encryption at rest.
	Encrypted bool
	Labels    map[string]string
	// ServerIDs are the servers it is attached to, known after Volume and Volumes only: lists of the API do not have them.
	ServerIDs []string
	Created   time.Time
	// BackupRule is known after Volume only, too.
	BackupRule BackupRule

	encryptionUnknown bool // lists of old recordings do not tell
	kind              string
	partOfPlan        bool     // it came with the plan of a server
	backupIDs         []string // known after Volume only
}

// VolumeSpec is the volume that is wanted.
type VolumeSpec struct {
	// Name identifies the volume among all that this package made for the cluster. It becomes the storage's title too.
	Name    string
	SizeGiB int
	// LeastGiB and MostGiB bound the size of a volume of that name that is there already: it may have been grown since, and
	// so may its source. Zero: SizeGiB, and no bound.
	LeastGiB  int
	MostGiB   int
	Tier      string // see Tiers
	Zone      string
	Encrypted bool
	// Labels to put on it besides those it is found by.
	Labels map[string]string
	// SourceID is the storage, volume or snapshot, that it is to be a copy of; empty for an empty volume. The size must
	// not be less than the source's.
	SourceID string
	// BackupRule is when the API makes backups of it by itself; nil for never.
	BackupRule *BackupRule
}

// Volume returns the volume of that ID with all its details. ErrNotFound when there is none, ErrWrongType when the storage
// is not a disk.
func (c *Cloud) Volume(ctx context.Context, id string) (*Volume, error) {
	volume, err := c.onlyVolume(ctx, id)
	if err == nil {
		c.attached.want(volume.ID)
	}
	return volume, explain(err, Error{Op: "read", Resource: "storage", ID: id})
}

// volume reads a storage of any type.
func (c *Cloud) volume(ctx context.Context, id string) (*Volume, error) {
	if !isUUID(id) {
		return nil, notAnID()
	}
	id = canonicalID(id)
	looked := c.now()
	var details upcloud.StorageDetails
	if err := c.call(ctx, http.MethodGet, "/storage/"+id, nil, &details); err != nil {
		return nil, explainMissing(err, id)
	}
	if canonicalID(details.UUID) != id {
		return nil, notAbout("storage " + id)
	}
	volume := c.see(volumeOfDetails(&details))
	c.attached.sawDisk(id, volume.ServerIDs, looked)
	return volume, nil
}

// notAbout is for an answer that says yes and tells of something else, or of nothing: read as it stands, it would be a
// storage attached to nothing, or a server without disks.
func notAbout(what string) error {
	return &Error{
		Kind: ErrUnavailable, Message: "the API's answer is not about " + what,
		Remedy: "check " + client.EnvDebugAPIBaseURL + " and what stands between here and the API",
	}
}

// notAnID is the answer for what cannot name anything, and must not get into a path.
func notAnID() error {
	return &Error{Kind: ErrNotFound, Message: "nothing can have this ID: it is not a UUID"}
}

// DeleteVolume deletes the volume, and keeps its backups unless its label csi-backups-on-delete says otherwise. A volume
// that is gone already is no error. ErrWrongType when the storage is not a disk, ErrNotOwned when it is not this cluster's: it stays. ErrInUse names the server that
// has it attached. While it is busy with a backup or a clone, DeleteVolume waits until ctx ends, and names the state.
func (c *Cloud) DeleteVolume(ctx context.Context, id string) error {
	doing := Error{Op: "delete", Resource: "storage", ID: id}
	if !isUUID(id) {
		return nil
	}
	id = canonicalID(id)
	policy, err := c.deletion(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return explain(err, doing)
	}
	return explain(c.whenIdle(ctx, id, func(ctx context.Context, id string) error {
		return c.deleteWith(ctx, id, policy)
	}), doing)
}

// deleteVolume deletes a volume and keeps its backups.
func (c *Cloud) deleteVolume(ctx context.Context, id string) error {
	return c.deleteWith(ctx, id, KeepBackups)
}

func (c *Cloud) deleteWith(ctx context.Context, id, policy string) error {
	err := c.deleteStorage(ctx, id, policy)
	switch {
	case err == nil, errors.Is(err, ErrNotFound):
		c.attached.deleted(id)
		return nil
	case !errors.Is(err, ErrInUse) && !errors.Is(err, ErrBusy):
		return err
	}

	// What is in the way is worth one question: the code alone names neither the server nor the state.
	volume, lookErr := c.volume(ctx, id)
	switch {
	case errors.Is(lookErr, ErrNotFound):
		return nil
	case lookErr != nil:
		return err
	case len(volume.ServerIDs) > 0:
		return &Error{
			Kind: ErrInUse, Code: codeOf(err),
			Message: "it is attached to server " + strings.Join(volume.ServerIDs, ", "),
			Remedy:  "detach it first",
		}
	case volume.State != upcloud.StorageStateOnline:
		return &Error{Kind: ErrBusy, Code: codeOf(err), Message: "it is in state " + volume.State, Remedy: remedyWait}
	}
	// Whatever was in the way has just gone.
	return &Error{Kind: ErrBusy, Code: codeOf(err), Message: "it was busy a moment ago", Remedy: remedyWait}
}

func codeOf(err error) string {
	var failed *Error
	if errors.As(err, &failed) {
		return failed.Code
	}
	return ""
}

// awaitOnline waits until a volume is online, from the state in which it was last seen.
func (c *Cloud) awaitOnline(w *work, volume *Volume) (*Volume, error) {
	pace := statePolls()
	for volume.State != upcloud.StorageStateOnline {
		if volume.State == upcloud.StorageStateError {
			return nil, &Error{
				Kind:    ErrServerState,
				Message: "storage " + volume.ID + " is in state error",
				Remedy:  "delete that storage in the UpCloud control panel, or ask UpCloud's support about it",
			}
		}
		w.note("storage " + volume.ID + " is in state " + volume.State)
		if err := pace.wait(w.attended); err != nil {
			return nil, err
		}
		next, err := c.volume(w.attended, volume.ID)
		if err != nil {
			return nil, err
		}
		volume = next
	}
	return volume, nil
}

func volumeOf(storage *upcloud.Storage) *Volume {
	labels := labelMap(storage.Labels)
	return &Volume{
		ID: storage.UUID, Title: storage.Title, Name: labels[LabelName], Zone: storage.Zone,
		Tier: canonicalTier(storage.Tier), State: storage.State, OriginID: firstNonEmpty(storage.Origin, labels[LabelSource]), SizeGiB: storage.Size,
		Encrypted: storage.Encrypted.Bool(), Labels: labels, Created: storage.Created,
		encryptionUnknown: storage.Encrypted.Empty(), kind: storage.Type, partOfPlan: storage.PartOfPlan == "yes",
	}
}

func volumeOfDetails(details *upcloud.StorageDetails) *Volume {
	volume := volumeOf(&details.Storage)
	volume.ServerIDs = slices.Clone(details.ServerUUIDs)
	volume.encryptionUnknown = false
	volume.backupIDs = slices.Clone(details.BackupUUIDs)
	volume.BackupRule = backupRuleOf(details.BackupRule)
	return volume
}
