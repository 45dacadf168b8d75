package cloud

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

const (
	// volumesAge is for how long one list of the account's disks serves every reader.
	volumesAge = 20 * time.Second
	// attachmentsAge is for how long it is believed where a volume is attached. Lists do not tell, so that it takes a
	// call a volume: with many volumes, attachmentCost each is added, which bounds the calls to ten a second.
	attachmentsAge = 20 * time.Second
	attachmentCost = 100 * time.Millisecond
	// attachmentReaders is how many of those calls are made at once.
	attachmentReaders = 8
)

// titleOfProvisioned is how external-provisioner names volumes by default: what tells the volumes of UpCloud's own
// driver, which have no labels that say whose they are.
var titleOfProvisioned = regexp.MustCompile(`^pvc-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// attachments remembers where volumes were seen attached.
type attachments struct {
	mu   sync.Mutex
	seen map[string]seenAttached
}

type seenAttached struct {
	servers []string
	looked  time.Time
	stale   bool // it was moved since
}

func (a *attachments) of(id string, since time.Time) (seenAttached, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	seen, found := a.seen[id]
	return seen, found && !seen.stale && seen.looked.After(since)
}

func (a *attachments) put(id string, seen seenAttached) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil {
		a.seen = map[string]seenAttached{}
	}
	// What was looked at before a change of ours must not stand for what is after it.
	if before, found := a.seen[id]; !found || before.looked.Before(seen.looked) {
		a.seen[id] = seen
	}
}

// changed says that a volume has been or is being moved: looks begun before tell nothing any more.
func (a *attachments) changed(id string) { a.put(id, seenAttached{looked: time.Now(), stale: true}) }

// keep forgets all volumes but these.
func (a *attachments) keep(ids map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.seen, func(id string, _ seenAttached) bool { return !ids[id] })
}

// Volumes returns this cluster's volumes, as they were some seconds ago at most, and with everything that this process
// changed: one call for any number of readers. They are shared: nobody may change them. Where they are attached, and
// their backup rules, are not told: see Attachments.
func (c *Cloud) Volumes(ctx context.Context) ([]*Volume, error) {
	all, err := c.shared.volumes.since(ctx, c, time.Now().Add(-volumesAge), c.readVolumes)
	if err != nil {
		return nil, explain(err, Error{Op: "list", Resource: "volumes"})
	}
	own := make([]*Volume, 0, len(all))
	ids := make(map[string]bool, len(all))
	for _, volume := range all {
		if c.isOurs(volume) {
			own = append(own, volume)
			ids[volume.ID] = true
		}
	}
	c.attached.keep(ids)
	return own, nil
}

// isOurs reports whether a disk is a volume of this cluster, or one that UpCloud's own driver made.
func (c *Cloud) isOurs(volume *Volume) bool {
	if volume.Name != "" {
		return volume.Labels[LabelCluster] == c.config.ClusterID
	}
	return c.mayBeOurs(volume.Labels) && titleOfProvisioned.MatchString(volume.Title)
}

// Attachments tells for each of the volumes to which servers it is attached. What this process changed is told as it is;
// what others changed is seen after some seconds, and after total × 100 ms where there are more volumes than that: total
// is the number of volumes asked about by turns. A volume that is gone is attached to nothing.
func (c *Cloud) Attachments(ctx context.Context, ids []string, total int) (map[string][]string, error) {
	since := time.Now().Add(-max(attachmentsAge, time.Duration(total)*attachmentCost))
	attached := make(map[string][]string, len(ids))
	var mu sync.Mutex
	readers, ctx := errgroup.WithContext(ctx)
	readers.SetLimit(attachmentReaders)
	for _, id := range ids {
		if seen, fresh := c.attached.of(id, since); fresh {
			mu.Lock()
			attached[id] = slices.Clone(seen.servers)
			mu.Unlock()
			continue
		}
		readers.Go(func() error {
			servers, err := c.lookAttached(ctx, id)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			attached[id] = servers
			return nil
		})
	}
	if err := readers.Wait(); err != nil {
		return nil, explain(err, Error{Op: "list", Resource: "attachments"})
	}
	return attached, nil
}

func (c *Cloud) lookAttached(ctx context.Context, id string) ([]string, error) {
	looked := time.Now()
	volume, err := c.volume(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.attached.put(id, seenAttached{servers: volume.ServerIDs, looked: looked})
	return volume.ServerIDs, nil
}

// Condition tells what is wrong with a volume, in words for people; empty when nothing is.
func (v *Volume) Condition() string {
	if v.State == upcloud.StorageStateError {
		return "storage " + v.ID + " is in state error: ask UpCloud's support about it"
	}
	return ""
}

// IsVolume reports whether it is a disk, and not a backup, a template or a CD-ROM.
func (v *Volume) IsVolume() bool { return v.kind == upcloud.StorageTypeNormal }
