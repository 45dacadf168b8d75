package cloud

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
)

const (
	// maxTitle is how long the title of a storage may be, in characters.
	maxTitle = 255
	// maxCreations is how often a storage is asked for when answers get lost.
	maxCreations = 4
)

// CreateVolume returns the volume of spec.Name, made if there is none, when it is online. It may be repeated: the
// volume is found by its labels, whatever happened to earlier calls; calls for one name at one time are one. One that
// exists and is not what spec asks for (size, tier, zone, encryption) is ErrAlreadyExists.
func (c *Cloud) CreateVolume(ctx context.Context, spec VolumeSpec) (*Volume, error) {
	doing := Error{Op: "create", Resource: "volume", ID: spec.Name}
	spec.Tier, spec.SourceID = canonicalTier(spec.Tier), canonicalID(spec.SourceID)
	if err := c.checkSpec(spec); err != nil {
		return nil, explain(err, doing)
	}
	volume, err := c.creations.do(ctx, spec.Name, func(w *work) (*Volume, error) { return c.create(w, spec) })
	if err == nil {
		// The flight may have been another caller's, with another wish.
		err = compatible(volume, spec)
	}
	if err != nil {
		return nil, explain(err, doing)
	}
	own := *volume
	own.Labels = maps.Clone(volume.Labels)
	return &own, nil
}

// checkSpec tells what the API would refuse, by the name of the field, before anything is made.
func (c *Cloud) checkSpec(spec VolumeSpec) error {
	if spec.Name == "" {
		return invalid("the volume has no name: give one, it is found again by it")
	}
	if n := utf8.RuneCountInString(spec.Name); n > maxTitle {
		return invalid("the name has %d characters: give at most %d, it becomes the title of the storage", n, maxTitle)
	}
	if spec.Zone == "" {
		return invalid("the volume has no zone: name the one that its servers are in")
	}
	tier, err := findTier(spec.Tier)
	if err != nil {
		return err
	}
	if spec.SizeGiB < tier.MinSizeGiB || spec.SizeGiB > tier.MaxSizeGiB {
		return invalid("size %d GiB is outside what tier %s has: ask for %d to %d GiB",
			spec.SizeGiB, tier.Name, tier.MinSizeGiB, tier.MaxSizeGiB)
	}
	if spec.SourceID != "" && !isUUID(spec.SourceID) {
		return notAnID()
	}
	if err := spec.BackupRule.Validate(); err != nil {
		return err
	}
	for key, value := range c.volumeLabels(spec) {
		if err := checkLabel(key, value); err != nil {
			return err
		}
	}
	return nil
}

// identity are the labels by which a volume is found again.
func (c *Cloud) identity(name string) map[string]string {
	labels := map[string]string{LabelName: name}
	if c.config.ClusterID != "" {
		labels[LabelCluster] = c.config.ClusterID
	}
	return labels
}

func (c *Cloud) volumeLabels(spec VolumeSpec) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, spec.Labels)
	maps.Copy(labels, c.identity(spec.Name))
	maps.Copy(labels, c.clusterUIDLabel())
	if spec.SourceID != "" {
		labels[LabelSource] = spec.SourceID
	}
	return labels
}

// create looks, then makes, and looks again before it makes another when it cannot know what came of the first.
func (c *Cloud) create(w *work, spec VolumeSpec) (*Volume, error) {
	pace := statePolls()
	for n := 1; ; n++ {
		volume, err := c.find(w.ctx, spec.Name)
		if err != nil {
			return nil, lookFailed(err)
		}
		if volume != nil {
			return c.adopt(w, volume, spec)
		}
		if spec.SourceID == "" {
			volume, err = c.adoptOrMake(w, spec)
		} else {
			volume, err = c.copyVolume(w, spec)
		}
		if err == nil && n > 1 {
			// An earlier request may have had its effect after the look: keep one of the two.
			return c.settleOn(w, volume, spec)
		}
		if err == nil {
			volume, err = c.awaitOnline(w, volume)
			return volume, stillOpen(err, true) // there is a storage now: no error may read as if there were none
		}
		if !uncertain(err) || n == maxCreations {
			return nil, stillOpen(err, n > 1)
		}
		if waitErr := pace.wait(w.attended); waitErr != nil {
			return nil, err
		}
	}
}

// stillOpen keeps a refusal from reading as the end of a creation, of which an earlier request may have taken effect
// all the same: who takes it for final forgets a storage that is there.
func stillOpen(err error, earlier bool) error {
	var failed *Error
	if !earlier || !errors.As(err, &failed) || errors.Is(err, ErrAlreadyExists) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	open := *failed
	open.Kind = ErrUnavailable
	return &open
}

// lookFailed is the error of a look that did not succeed, at the beginning of a creation: it says nothing about what earlier
// requests made, so it must not read as the end of the creation either. That the thing looked at is missing, or another
// cluster's, is an answer.
func lookFailed(err error) error {
	if missing(err) || errors.Is(err, ErrNotOwned) {
		return err
	}
	return stillOpen(err, true)
}

// adopt returns a volume that was there already, if it is the one that is wanted.
func (c *Cloud) adopt(w *work, volume *Volume, spec VolumeSpec) (*Volume, error) {
	if volume.encryptionUnknown {
		details, err := c.volume(w.ctx, volume.ID)
		if err != nil {
			return nil, stillOpen(err, true)
		}
		volume = details
	}
	if err := compatible(volume, spec); err != nil {
		return nil, err
	}
	if err := c.checkUnused(w.ctx, volume); err != nil {
		return nil, stillOpen(err, true)
	}
	volume, err := c.awaitOnline(w, volume)
	return volume, stillOpen(err, true)
}

// settleOn is for a volume made after an earlier try of unknown outcome.
func (c *Cloud) settleOn(w *work, made *Volume, spec VolumeSpec) (*Volume, error) {
	volume, err := c.find(w.ctx, spec.Name)
	if err != nil || volume == nil {
		volume = made
	}
	if spec.SourceID != "" {
		// What is unfinished beside the finished one is that one's twin.
		extra, _, err := c.unfinished(w, spec)
		if err == nil && extra != nil {
			err = c.dropUnfinished(w, extra)
		}
		if err != nil {
			return nil, stillOpen(err, true)
		}
	}
	volume, err = c.awaitOnline(w, volume)
	return volume, stillOpen(err, true)
}

func (c *Cloud) adoptOrMake(w *work, spec VolumeSpec) (*Volume, error) {
	volume, err := c.halfMade(w.ctx, spec)
	switch {
	case err != nil:
		return nil, err
	case volume != nil:
		return c.takeOver(w, volume, spec)
	}
	return c.makeVolume(w.ctx, spec)
}

func (c *Cloud) makeVolume(ctx context.Context, spec VolumeSpec) (*Volume, error) {
	wanted := request.CreateStorageRequest{
		Size: spec.SizeGiB, Tier: spec.Tier, Title: spec.Name, Zone: spec.Zone, Labels: labelList(c.volumeLabels(spec)),
		BackupRule: spec.BackupRule.wire(),
	}
	if spec.Encrypted {
		wanted.Encrypted = upcloud.True
	}
	c.shared.volumes.changed()
	defer c.shared.volumes.changed()
	if spec.Labels[LabelBackupsOnDelete] != "" {
		defer c.shared.policies.changed()
	}
	var made upcloud.StorageDetails
	if err := c.call(ctx, http.MethodPost, "/storage", wanted, &made); err != nil {
		return nil, err
	}
	if !isUUID(made.UUID) {
		return nil, &Error{Kind: ErrUnavailable, Message: "the API made a storage and did not say which", uncertain: true}
	}
	return c.see(volumeOfDetails(&made)), nil
}

// compatible reports how a volume differs from what is asked for.
func compatible(volume *Volume, spec VolumeSpec) error {
	switch {
	case volume.Zone != spec.Zone:
		return differs(volume, "zone", volume.Zone, spec.Zone)
	case volume.SizeGiB < spec.leastGiB():
		return differs(volume, "size in GiB", volume.SizeGiB, fmt.Sprint("at least ", spec.leastGiB()))
	case spec.MostGiB > 0 && volume.SizeGiB > spec.MostGiB:
		return differs(volume, "size in GiB", volume.SizeGiB, fmt.Sprint("at most ", spec.MostGiB))
	case volume.Tier != spec.Tier:
		return differs(volume, "tier", volume.Tier, spec.Tier)
	case volume.Labels[LabelSource] != spec.SourceID:
		return differs(volume, "source", orNone(volume.Labels[LabelSource]), orNone(spec.SourceID))
	case spec.SourceID != "" && volume.Encrypted:
		return nil // a copy of what is encrypted is so too, asked for or not
	case volume.Encrypted != spec.Encrypted:
		return differs(volume, "encryption at rest", volume.Encrypted, spec.Encrypted)
	}
	return nil
}

func (spec *VolumeSpec) leastGiB() int {
	if spec.LeastGiB > 0 {
		return spec.LeastGiB
	}
	return spec.SizeGiB
}

// differs is for a name that is taken by a volume unlike the one that is asked for.
func differs(volume *Volume, what string, has, wants any) error {
	return &Error{
		Kind:    ErrAlreadyExists,
		Message: fmt.Sprintf("storage %s has that name and its %s is %v, not %v", volume.ID, what, has, wants),
		Remedy:  "ask for the volume as it is, or under another name",
	}
}

func orNone(id string) string { return firstNonEmpty(id, "none") }

// find returns the volume of that name, or nil. Where there are several, it settles on one (see twins.go).
func (c *Cloud) find(ctx context.Context, name string) (*Volume, error) {
	identity := c.identity(name)
	storages, err := c.storages(ctx, "/storage?"+labelQuery(identity))
	if err != nil {
		return nil, err
	}
	found := c.volumesWith(identity, storages)
	for _, volume := range found {
		c.see(volume)
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return c.keepOne(ctx, name, found)
}

// volumesWith picks the volumes that have the labels. The API was asked for those alone, and is not trusted with it: a
// storage that is not ours must not become somebody's volume.
func (c *Cloud) volumesWith(labels map[string]string, storages []upcloud.Storage) []*Volume {
	var found []*Volume
	for i := range storages {
		if volume := volumeOf(&storages[i]); c.isVolumeNamed(volume, labels) {
			found = append(found, volume)
		}
	}
	return found
}

// isVolumeNamed reports whether a storage is a volume of this cluster with these labels (see identity).
func (c *Cloud) isVolumeNamed(volume *Volume, labels map[string]string) bool {
	// Who has no name for the cluster has no claim to the volumes of one that has. Two clusters may have one name: see originOf.
	ours := volume.Labels[LabelCluster] == labels[LabelCluster] && c.originOf(volume.Labels, volume.Title) != originOther
	return ours && volume.kind == upcloud.StorageTypeNormal && hasLabels(volume.Labels, labels)
}

// isNew reports whether a volume was made so short a time ago that nobody can have come to depend on it unseen.
func isNew(volume *Volume) bool {
	return time.Since(volume.Created).Abs() < time.Hour
}
