package cloud

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/google/uuid"
)

// wrongType is the error for the UUID of a storage that is not what the caller means: a backup, template or CD-ROM where a
// volume is meant, or anything else where a snapshot is meant.
func wrongType(id, is, meant string) error {
	return &Error{Kind: ErrWrongType, Message: fmt.Sprintf("storage %s is a %s, not a %s", id, typeName(is), meant)}
}

const (
	aVolume   = "volume"
	aSnapshot = "snapshot"
)

// typeName is the word for a storage type of the API.
func typeName(storageType string) string {
	switch storageType {
	case upcloud.StorageTypeNormal:
		return "disk"
	case upcloud.StorageTypeCDROM:
		return "CD-ROM"
	}
	return storageType // backup, template, or one that this program does not know
}

// onlyVolume reads a storage that must be a disk. ErrWrongType when it is not.
func (c *Cloud) onlyVolume(ctx context.Context, id string) (*Volume, error) {
	volume, err := c.volume(ctx, id)
	if err != nil {
		return nil, err
	}
	if volume.kind != upcloud.StorageTypeNormal {
		return nil, wrongType(volume.ID, volume.kind, aVolume)
	}
	return volume, nil
}

// deletion decides whether a volume may be deleted, and returns what becomes of its backups. Every deletion that
// Kubernetes asks for is decided here. ErrNotFound when the storage is gone.
//
// A storage that this process has not seen of late to be a volume of this cluster is read first: the API deletes whatever the UUID names.
func (c *Cloud) deletion(ctx context.Context, id string) (policy string, err error) {
	if c.own.has(id, c.now().Add(-ownAge)) {
		return c.backupsOnDelete(ctx, id)
	}
	volume, err := c.onlyVolume(ctx, id)
	if err == nil {
		err = c.checkUse(useDelete, volume.Labels, volume.Title)
	}
	if err != nil {
		return "", err
	}
	return backupsPolicy(volume), nil
}

const (
	// mostVolumes bounds the memory of ownVolumes to some megabytes.
	mostVolumes = 100_000
	// ownAge is for how long it is believed that a volume is this cluster's: a label may hand it over to another one. It is more than
	// csi-attacher lets pass between lists, which show all volumes.
	ownAge = 5 * time.Minute
)

// ownVolumes remembers the UUIDs of storages that this process has seen to be volumes that a driver made for this cluster. The API
// never changes a storage's type and never gives a UUID to another one. The zero value is empty.
type ownVolumes struct {
	mu  sync.Mutex
	ids map[uuid.UUID]time.Time // when each was seen last
}

// see remembers the volume if it is this cluster's, and returns it.
func (c *Cloud) see(volume *Volume) *Volume {
	if volume.kind == upcloud.StorageTypeNormal {
		c.own.add(volume.ID, c.originOf(volume.Labels, volume.Title), c.now())
	}
	return volume
}

// add remembers a volume, or forgets it where it is not this cluster's any more. A label that people can take off is not relied on.
func (o *ownVolumes) add(id string, from origin, seen time.Time) {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if from != originCluster && from != originUpCloud {
		delete(o.ids, parsed)
		return
	}
	if o.ids == nil || len(o.ids) >= mostVolumes {
		o.ids = map[uuid.UUID]time.Time{}
	}
	o.ids[parsed] = seen
}

// forget forgets all volumes.
func (o *ownVolumes) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.ids)
}

// has reports whether the volume was seen to be the cluster's at that moment or later.
func (o *ownVolumes) has(id string, since time.Time) bool {
	parsed, err := uuid.Parse(id)
	if err != nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	seen, found := o.ids[parsed]
	return found && !seen.Before(since)
}

// missing reports whether an error says that there is no such thing as the caller means: nothing of that ID, or a
// storage of another type.
func missing(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrWrongType) }

// otherResources are the resources whose UUIDs begin with these digits. Those of storages begin with 01. Recorded: servers, networks,
// routers, load balancers and certificate bundles of the SDK's fixtures.
var otherResources = map[string]string{
	"00": "server", "03": "network", "04": "router", "0a": "load balancer or certificate bundle",
}

// explainMissing says of a UUID that names no storage what it may be instead.
func explainMissing(err error, id string) error {
	resource, known := otherResources[id[:2]]
	var failed *Error
	if !known || !errors.Is(err, ErrNotFound) || !errors.As(err, &failed) {
		return err
	}
	explained := *failed
	explained.Message = "no storage has this ID; by its first digits it is the UUID of a " + resource
	explained.Remedy = "give the UUID of a storage, which begins with 01"
	return &explained
}
