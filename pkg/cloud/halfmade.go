package cloud

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"k8s.io/klog/v2"
)

// What UpCloud's own driver leaves behind when it dies between making a storage and telling Kubernetes of it: a disk whose
// title is the name of the volume, with none of our labels, attached to nothing. The request comes again, now to us. Its
// backups need nothing of this: they are found among their volume's, see begunSnapshot.

// halfMadeAge is for how long one list of such disks is believed: only that driver makes them, and it is not at work any
// more.
const halfMadeAge = time.Minute

// titleOfClaim is a name that ends in a UUID, as external-provisioner makes them out of that of the claim, whatever prefix it
// is told: no two clusters have the same. Any other name may be that of somebody's disk.
var titleOfClaim = regexp.MustCompile(`(^|-)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// prefixOfOurs begins the labels that we put on storages.
const prefixOfOurs = "csi-"

// halfMade returns the disk that UpCloud's own driver made for the volume; nil when there is none, or none that certainly is
// that: then the volume is made anew.
func (c *Cloud) halfMade(ctx context.Context, spec VolumeSpec) (*Volume, error) {
	if !c.config.AdoptHalfMade || !titleOfClaim.MatchString(spec.Name) {
		return nil, nil
	}
	byTitle, err := c.shared.halfMade.since(ctx, c, c.now().Add(-halfMadeAge), c.readHalfMade)
	if err == nil && len(byTitle[spec.Name]) > 0 {
		// What is taken for good is not taken on the word of an old list: there may be two by now.
		byTitle, err = c.shared.halfMade.since(ctx, c, c.now(), c.readHalfMade)
	}
	if err != nil {
		return nil, stillOpen(err, true)
	}
	logger := klog.FromContext(ctx).WithValues("volume", spec.Name, "storages", byTitle[spec.Name])
	switch len(byTitle[spec.Name]) {
	case 0:
		return nil, nil
	case 1:
	default:
		logger.Info("Several storages are titled like the volume: none is taken over, delete them by hand")
		return nil, nil
	}
	volume, err := c.volume(ctx, byTitle[spec.Name][0])
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, stillOpen(err, true)
	}
	if why := c.notHalfMade(volume, spec); why != "" {
		logger.Info("The storage that is titled like the volume is not taken over", "reason", why)
		return nil, nil
	}
	return volume, nil
}

// readHalfMade lists the disks that may be half-made, by title.
func (c *Cloud) readHalfMade(ctx context.Context) (map[string][]string, error) {
	all, err := c.readVolumes(ctx)
	if err != nil {
		return nil, err
	}
	byTitle := map[string][]string{}
	for _, volume := range all {
		if titleOfClaim.MatchString(volume.Title) && !hasLabelOfOurs(volume) {
			byTitle[volume.Title] = append(byTitle[volume.Title], volume.ID)
		}
	}
	return byTitle, nil
}

// hasLabelOfOurs reports whether a driver of this kind has had its hands on a storage, for this cluster or another.
func hasLabelOfOurs(volume *Volume) bool {
	for key := range volume.Labels {
		if strings.HasPrefix(key, prefixOfOurs) {
			return true
		}
	}
	return false
}

// notHalfMade tells why a disk is not what that driver would have made for the volume, and nobody has used; empty if it is.
func (c *Cloud) notHalfMade(volume *Volume, spec VolumeSpec) string {
	copied := spec.SourceID != ""
	switch {
	case volume.kind != upcloud.StorageTypeNormal || volume.Title != spec.Name:
		return "it is another by now"
	case hasLabelOfOurs(volume):
		return "it has labels of a volume"
	case len(volume.ServerIDs) > 0:
		return "it is attached to server " + strings.Join(volume.ServerIDs, ", ")
	case volume.State == upcloud.StorageStateError:
		return "it is in state error"
	case !copied && len(volume.backupIDs) > 0:
		return "it has backups"
	case !c.becomes(volume, spec) || !copied && volume.Encrypted != spec.Encrypted:
		return "its zone, tier or encryption is not the one asked for"
	case !copied && volume.SizeGiB < spec.leastGiB(), spec.MostGiB > 0 && volume.SizeGiB > spec.MostGiB:
		return "its size is not the one asked for" // a copy is grown after it is made
	}
	return ""
}

// takeOver makes the volume out of a half-made disk. One request changes it, all or nothing: before, it is found by its title
// again, after, by its labels.
func (c *Cloud) takeOver(w *work, volume *Volume, spec VolumeSpec) (*Volume, error) {
	volume, err := c.awaitOnline(w, volume)
	if err == nil {
		volume, err = c.complete(w, volume, spec)
	}
	if err != nil {
		return nil, stillOpen(err, true)
	}
	klog.FromContext(w.ctx).Info("Took over a storage that UpCloud's own driver made for the volume", "volume", spec.Name,
		"storage", volume.ID)
	return volume, nil
}

// complete gives a storage all that makes it the volume, in one request: labels, size, title, and the rule for backups. volume
// is the storage as it was seen just now.
func (c *Cloud) complete(w *work, volume *Volume, spec VolumeSpec) (*Volume, error) {
	if spec.Labels[LabelBackupsOnDelete] != "" {
		defer c.shared.policies.changed()
	}
	completed, err := c.putSeen(w, volume, time.Now(), func(seen *Volume) (*request.ModifyStorageRequest, error) {
		if seen != volume && seen.Name != "" {
			return nil, finishedMeanwhile(seen)
		}
		list := labelList(merged(seen.Labels, c.volumeLabels(spec))) // what it has are the API's own and other people's labels
		wanted := &request.ModifyStorageRequest{Title: spec.Name, Labels: &list, BackupRule: spec.BackupRule.wire()}
		if seen.SizeGiB < spec.SizeGiB {
			wanted.Size = spec.SizeGiB
		}
		return wanted, nil
	})
	if err != nil {
		return nil, err
	}
	return c.awaitOnline(w, completed)
}
