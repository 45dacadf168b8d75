package cloud

import (
	"context"
	"errors"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// volumesAge is for how long one list of the account's disks serves every reader.
const volumesAge = 20 * time.Second

// titleOfProvisioned is how external-provisioner names volumes by default: what tells the volumes of UpCloud's own
// driver, which have no labels that say whose they are.
var titleOfProvisioned = regexp.MustCompile(`^pvc-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Volumes returns this cluster's volumes with their ServerIDs, for any number of readers. They are shared: readers must
// not change their labels. Backup rules are not known.
//
// The volumes are those that labels or titles claim for the cluster, those that were asked for by their ID, and every other
// disk that is attached to a server that was asked: a volume made by hand has no labels. System disks, and disks that
// another cluster's labels claim, are left out.
//
// What this process changed is known at once. A change made elsewhere is noticed within ten minutes by readers who come
// every few minutes: see survey. Where it cannot be said where a volume is, Volumes fails, as a volume that is listed without
// a server counts as detached. After ten minutes of failed looks at a storage it is listed where it was seen last, so that
// one that cannot be read does not stop the others.
func (c *Cloud) Volumes(ctx context.Context) ([]*Volume, error) {
	doing := Error{Op: "list", Resource: "volumes"}
	disks, err := c.shared.volumes.since(ctx, c, c.now().Add(-volumesAge), c.readVolumes)
	if err != nil {
		return nil, explain(err, doing)
	}
	if err := c.survey(ctx, disks); err != nil {
		return nil, explain(err, doing)
	}
	attached, err := c.Attachments(ctx, c.wanted(disks))
	if err != nil {
		return nil, err
	}
	volumes := make([]*Volume, 0, len(attached))
	for _, disk := range disks {
		servers, wanted := attached[disk.ID]
		if !wanted {
			servers = c.attachedByHand(disk)
		}
		if len(servers) == 0 && !c.isOurs(disk) {
			continue
		}
		volume := *disk
		volume.ServerIDs = servers
		volumes = append(volumes, &volume)
	}
	return volumes, nil
}

// wanted lists the disks that are volumes of this cluster for certain.
func (c *Cloud) wanted(disks []*Volume) []string {
	var ids []string
	for _, disk := range disks {
		if c.isOurs(disk) || c.attached.isWanted(disk.ID) {
			ids = append(ids, disk.ID)
		}
	}
	return ids
}

// isOurs reports whether a disk is a volume of this cluster, or one that UpCloud's own driver made.
func (c *Cloud) isOurs(volume *Volume) bool {
	switch c.originOf(volume.Labels, volume.Title) {
	case originImported:
		return true
	case originOther:
		return false
	}
	if volume.Name != "" {
		return volume.Labels[LabelCluster] == c.config.ClusterID
	}
	return c.mayBeOurs(volume.Labels) && titleOfProvisioned.MatchString(volume.Title)
}

// attachedByHand returns the servers of a disk that may be a volume although nothing claims it.
func (c *Cloud) attachedByHand(disk *Volume) []string {
	servers, system, _ := c.attached.lastSeen(disk.ID)
	if system || c.originOf(disk.Labels, disk.Title) == originOther {
		return nil
	}
	return servers
}

// Attachments returns for each of the volumes the servers that it is attached to: what is known already, or one call for a
// volume. A volume that is gone is attached to nothing.
func (c *Cloud) Attachments(ctx context.Context, ids []string) (map[string][]string, error) {
	attached := make(map[string][]string, len(ids))
	var mu sync.Mutex
	readers, readCtx := errgroup.WithContext(ctx)
	readers.SetLimit(surveyReaders)
	for _, id := range ids {
		if servers, known := c.attached.believed(id); known {
			mu.Lock()
			attached[id] = servers
			mu.Unlock()
			continue
		}
		readers.Go(func() error {
			servers, err := c.lookAttached(readCtx, id)
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

// lookAttached looks at one volume. If that fails, and it is known where the volume was, that is the answer.
func (c *Cloud) lookAttached(ctx context.Context, id string) ([]string, error) {
	looked := c.now()
	volume, err := c.volume(ctx, id)
	switch {
	case err == nil:
		return volume.ServerIDs, nil
	case errors.Is(err, ErrNotFound):
		c.attached.sawDisk(id, nil, looked)
		return nil, nil
	case ctx.Err() != nil:
		return nil, err
	}
	failing := c.attached.failed(id)
	if servers, _, known := c.attached.lastSeen(id); known {
		return servers, nil
	}
	if failing < noticeWithin {
		return nil, err
	}
	klog.FromContext(ctx).Error(err, "Listing a volume as detached, as its storage cannot be read", "storage", id, "since", failing)
	return nil, nil
}

// Condition tells what is wrong with a volume, in words for people; empty when nothing is.
func (v *Volume) Condition() string {
	if v.State == upcloud.StorageStateError {
		return "storage " + v.ID + " is in state error: ask UpCloud's support about it"
	}
	return ""
}
