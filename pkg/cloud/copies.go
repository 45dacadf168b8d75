package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"unicode/utf8"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"k8s.io/klog/v2"
)

// How a copy is made: the request takes neither labels nor a size. So the storage begins under a provisional title,
// which says for which volume, of what and for which cluster it is being made. When it is online, one PUT gives it the labels,
// the size and the title of the volume, all or nothing. A storage with that title is what an interrupted call left
// behind, and nothing else can be; one with the labels is finished.

// Source is what a volume can be made a copy of.
type Source struct {
	ID        string
	SizeGiB   int
	Encrypted bool
	Labels    map[string]string
}

// SnapshotSource reads the snapshot that a volume is to be made of. ErrNotFound when there is none, ErrWrongType when the
// storage is not a backup. inherit are the keys of labels that a snapshot has from its volume: one that has no labels yet gets
// them first.
func (c *Cloud) SnapshotSource(ctx context.Context, id string, inherit []string) (*Source, error) {
	snapshot, err := c.snapshot(ctx, id)
	if err == nil {
		err = c.checkSnapshot(ctx, useCopy, snapshot)
	}
	if err == nil {
		snapshot, err = c.finishSnapshot(ctx, snapshot, inherit)
	}
	if err != nil {
		return nil, lookFailed(explain(err, Error{Op: "read", Resource: "snapshot", ID: id}))
	}
	return &Source{ID: snapshot.ID, SizeGiB: snapshot.SizeGiB, Encrypted: snapshot.Encrypted, Labels: snapshot.Labels}, nil
}

// VolumeSource reads the volume that another is to be made of. ErrNotFound when there is none, ErrWrongType when the storage
// is not a disk.
func (c *Cloud) VolumeSource(ctx context.Context, id string) (*Source, error) {
	volume, err := c.Volume(ctx, id)
	if err != nil {
		return nil, lookFailed(err)
	}
	if err := c.checkUse(useCopy, volume.Labels, volume.Title); err != nil {
		return nil, lookFailed(explain(err, Error{Op: "copy", Resource: "storage", ID: volume.ID}))
	}
	return &Source{ID: volume.ID, SizeGiB: volume.SizeGiB, Encrypted: volume.Encrypted, Labels: volume.Labels}, nil
}

// SourceOf is for a source that is gone: it tells of it what the copy tells that was finished or begun of it under that name,
// which can be gone on with all the same. ErrNotFound when there is none, ErrAlreadyExists when the volume of that name is
// no copy of it.
func (c *Cloud) SourceOf(ctx context.Context, name, id string) (*Source, error) {
	doing := Error{Op: "find", Resource: "volume", ID: name}
	id = canonicalID(id)
	volume, err := c.find(ctx, name)
	switch {
	case err != nil:
		return nil, explain(lookFailed(err), doing)
	case volume == nil && !isUUID(id):
		return nil, explain(notAnID(), doing)
	case volume == nil:
		return c.sourceOfUnfinished(ctx, VolumeSpec{Name: name, SourceID: id})
	case volume.Labels[LabelSource] != id:
		return nil, explain(differs(volume, "source", orNone(volume.Labels[LabelSource]), id), doing)
	}
	return &Source{ID: id, SizeGiB: 1, Encrypted: volume.Encrypted}, nil // the volume may have grown since
}

func (c *Cloud) sourceOfUnfinished(ctx context.Context, spec VolumeSpec) (*Source, error) {
	begun, finished, err := c.copies(ctx, spec)
	switch {
	case err != nil:
	case finished != nil:
		err = finishedMeanwhile(finished)
	case len(begun) == 0:
		err = &Error{Kind: ErrNotFound}
	}
	if err != nil {
		return nil, explain(lookFailed(err), Error{Op: "find", Resource: "copy", ID: spec.Name, Target: "of " + spec.SourceID})
	}
	return &Source{ID: spec.SourceID, SizeGiB: begun[0].SizeGiB, Encrypted: begun[0].Encrypted}, nil
}

// provisionalTitle is under which a copy is begun: the same for every try of one request, and for no other.
func (c *Cloud) provisionalTitle(spec VolumeSpec) string {
	of := " (unfinished copy of " + spec.SourceID
	if c.config.ClusterID != "" {
		of += " for " + c.config.ClusterID
	}
	return fittingTitle(spec.Name, of+")")
}

// shortened stands in a title for what is left out of a name.
const shortened = "…"

// fittingTitle is a title of a name and what follows it. Of a name that is too long the end stays, which tells people more than
// the beginning. Two long names may differ in what is left out: a sum tells them apart.
func fittingTitle(text, of string) string {
	room := maxTitle - utf8.RuneCountInString(of)
	name := []rune(text)
	if len(name) <= room {
		return text + of
	}
	sum := sha256.Sum256([]byte(text))
	short := hex.EncodeToString(sum[:8]) + shortened
	return short + string(name[len(name)-max(0, room-utf8.RuneCountInString(short)):]) + of
}

// copyVolume makes the volume out of its source, going on from whatever an earlier try left behind.
func (c *Cloud) copyVolume(w *work, spec VolumeSpec) (*Volume, error) {
	begun, finished, err := c.unfinished(w, spec)
	if err != nil {
		return nil, err
	}
	if finished != nil {
		return nil, finishedMeanwhile(finished)
	}
	if begun != nil && !c.becomes(begun, spec) {
		// The same request may come with another zone in front, or from a StorageClass made anew.
		if err := c.replaceable(w.ctx, begun, spec); err != nil {
			return nil, err
		}
		if err := c.dropUnfinished(w, begun); err != nil {
			return nil, stillOpen(err, true)
		}
		begun = nil
	}
	if begun == nil {
		if made, err := c.halfMade(w.ctx, spec); err != nil {
			return nil, err
		} else if made != nil {
			return c.takeOver(w, made, spec)
		}
	}
	pace := statePolls()
	for begun == nil {
		begun, err = c.postClone(w.ctx, spec)
		if !hasCode(err, upcloud.ErrCodeStorageStateIllegal) {
			break
		}
		if err := c.awaitStorage(w, spec.SourceID, pace); err != nil {
			return nil, err
		}
	}
	if hasCode(err, upcloud.ErrCodeServerStateIllegal) {
		return nil, &Error{
			Kind: ErrInUse, Code: codeOf(err),
			Message: "volume " + spec.SourceID + " is attached to a server that is not stopped, and the API clones none such",
			Remedy:  "make a snapshot of it and restore that, or detach it meanwhile",
		}
	}
	if err != nil {
		return nil, err
	}
	volume, err := c.finish(w, begun, spec)
	return volume, stillOpen(err, true) // there is a copy now: no error may read as if there were none
}

// becomes reports whether a copy that was begun can be made the volume: its zone, tier and encryption stay what they are.
func (c *Cloud) becomes(begun *Volume, spec VolumeSpec) bool {
	encrypted := begun.Encrypted || begun.encryptionUnknown || !spec.Encrypted
	return begun.Zone == spec.Zone && begun.Tier == spec.Tier && encrypted
}

// replaceable reports whether another copy can be made in place of one that was begun. Where the source is gone, the copy is
// all that is left of it: it stays, and is ErrAlreadyExists, so that who may take it in another zone does.
func (c *Cloud) replaceable(ctx context.Context, begun *Volume, spec VolumeSpec) error {
	_, err := c.volume(ctx, spec.SourceID)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	return &Error{
		Kind: ErrAlreadyExists,
		Message: fmt.Sprintf("its source %s is gone, and storage %s, the copy that was begun of it, is in zone %s, of tier %s",
			spec.SourceID, begun.ID, begun.Zone, begun.Tier),
		Remedy: "ask for the volume in that zone and tier, or delete that storage",
	}
}

// copies lists what earlier tries of the same request began, the one to go on with first, and the volume if one of them has been
// finished. Titles cannot be asked for: it reads a list that was begun after the request came, and that all who look at the
// same time share. It is one list for both, as a copy that is finished between two looks would be seen by neither.
func (c *Cloud) copies(ctx context.Context, spec VolumeSpec) (begun []*Volume, finished *Volume, err error) {
	all, err := c.shared.volumes.since(ctx, c, c.now(), c.readVolumes)
	if err != nil {
		return nil, nil, stillOpen(err, true)
	}
	title, identity := c.provisionalTitle(spec), c.identity(spec.Name)
	for _, volume := range all {
		switch {
		case isUnfinished(volume, title):
			begun = append(begun, volume)
		case c.isVolumeNamed(volume, identity):
			finished = volume
		}
	}
	slices.SortFunc(begun, byClaim)
	return begun, finished, nil
}

// finishedMeanwhile is for a volume that was not there at the first look, and that the next try finds.
func finishedMeanwhile(volume *Volume) error {
	return &Error{Kind: ErrBusy, Message: "another process finished it as storage " + volume.ID + " meanwhile", Remedy: remedyWait}
}

func isUnfinished(volume *Volume, title string) bool {
	return volume.Title == title && volume.Name == ""
}

// unfinished finds what an earlier try of the same request began, and deletes what else they began. See copies.
func (c *Cloud) unfinished(w *work, spec VolumeSpec) (first, finished *Volume, err error) {
	begun, finished, err := c.copies(w.ctx, spec)
	if err != nil || len(begun) == 0 {
		return nil, finished, err
	}
	for _, extra := range begun[1:] {
		if err := c.dropUnfinished(w, extra); err != nil {
			return nil, nil, err
		}
	}
	return begun[0], finished, nil
}

// dropUnfinished deletes a copy that nobody can have got to know: it was never finished. It looks once more, as another
// process may have finished it since it was listed: then it is the volume.
func (c *Cloud) dropUnfinished(w *work, extra *Volume) error {
	now, err := c.volume(w.ctx, extra.ID)
	if err == nil && now.State != upcloud.StorageStateError {
		now, err = c.awaitOnline(w, now) // while it is being made it cannot be deleted
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case errors.Is(err, ErrServerState): // it can be deleted in that state
	case err != nil:
		return err
	case !isUnfinished(now, extra.Title):
		return &Error{Kind: ErrBusy, Message: "copy " + extra.ID + " was finished by somebody else meanwhile", Remedy: remedyWait}
	}
	if err := c.deleteVolume(w.ctx, extra.ID); err != nil {
		return err
	}
	c.shared.volumes.changed()
	klog.FromContext(w.ctx).Info("Deleted a copy that was begun and is not needed", "storage", extra.ID, "title", extra.Title)
	return nil
}

// readVolumes lists all storages that are disks.
func (c *Cloud) readVolumes(ctx context.Context) ([]*Volume, error) {
	storages, err := c.storages(ctx, "/storage/normal")
	if err != nil {
		return nil, err
	}
	volumes := make([]*Volume, 0, len(storages))
	for i := range storages {
		if storages[i].Type == upcloud.StorageTypeNormal {
			volumes = append(volumes, c.see(volumeOf(&storages[i])))
		}
	}
	return volumes, nil
}

// storages reads a list of storages.
func (c *Cloud) storages(ctx context.Context, path string) ([]upcloud.Storage, error) {
	var answer struct {
		Storages *struct {
			Storage []upcloud.Storage `json:"storage"`
		} `json:"storages"`
	}
	if err := c.call(ctx, http.MethodGet, path, nil, &answer); err != nil {
		return nil, notMissing(err)
	}
	if answer.Storages == nil {
		return nil, notAbout("storages") // which is not to say that there are none
	}
	return answer.Storages.Storage, nil
}

func (c *Cloud) postClone(ctx context.Context, spec VolumeSpec) (*Volume, error) {
	wanted := request.CloneStorageRequest{Zone: spec.Zone, Tier: spec.Tier, Title: c.provisionalTitle(spec)}
	if spec.Encrypted {
		wanted.Encrypted = upcloud.True
	}
	c.shared.volumes.changed()
	defer c.shared.volumes.changed()
	var made upcloud.StorageDetails
	if err := c.call(ctx, http.MethodPost, "/storage/"+spec.SourceID+"/clone", wanted, &made); err != nil {
		return nil, err
	}
	if !isUUID(made.UUID) {
		return nil, &Error{Kind: ErrUnavailable, Message: "the API made a clone and did not say which", uncertain: true}
	}
	return c.see(volumeOfDetails(&made)), nil
}

// finish makes the volume out of a copy, when that is online.
func (c *Cloud) finish(w *work, begun *Volume, spec VolumeSpec) (*Volume, error) {
	volume, err := c.awaitOnline(w, begun)
	switch {
	case errors.Is(err, ErrServerState):
		return nil, c.giveUp(w, begun, "it is in state error")
	case err != nil:
		return nil, err
	case spec.MostGiB > 0 && volume.SizeGiB > spec.MostGiB:
		return nil, c.giveUp(w, begun, fmt.Sprintf("it has %d GiB, as the source grew meanwhile", volume.SizeGiB))
	}
	return c.complete(w, volume, spec)
}

// giveUp deletes a copy that can never become the volume, so that the retry begins anew.
func (c *Cloud) giveUp(w *work, begun *Volume, why string) error {
	if err := c.dropUnfinished(w, begun); err != nil {
		return stillOpen(err, true)
	}
	return &Error{Kind: ErrUnavailable, Message: "copy " + begun.ID + " was of no use: " + why, Remedy: remedyWait}
}

// put changes a storage, waiting while it is busy. The request must not hold labels: see putSeen.
func (c *Cloud) put(w *work, id string, wanted request.ModifyStorageRequest) (*Volume, error) {
	pace := statePolls()
	for {
		changed, err := c.putOnce(w.ctx, id, wanted)
		if !hasCode(err, upcloud.ErrCodeStorageStateIllegal) {
			return changed, err
		}
		if err := c.awaitStorage(w, id, pace); err != nil {
			return nil, err
		}
	}
}

func (c *Cloud) putOnce(ctx context.Context, id string, wanted request.ModifyStorageRequest) (*Volume, error) {
	var changed upcloud.StorageDetails
	err := c.call(ctx, http.MethodPut, "/storage/"+id, wanted, &changed)
	c.shared.volumes.changed()
	switch {
	case err != nil:
		return nil, err
	case changed.UUID != id:
		return nil, notAbout("storage " + id)
	}
	return volumeOfDetails(&changed), nil
}
