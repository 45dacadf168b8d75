package cloud

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
)

// LabelBackupsOnDelete says what becomes of a volume's backups when it is deleted; without it they are kept.
const LabelBackupsOnDelete = "csi-backups-on-delete"

// What becomes of a volume's backups when it is deleted: the API's own words.
const (
	KeepBackups      = "keep"
	KeepLatestBackup = "keep_latest"
	DeleteBackups    = "delete"
)

// ValidateBackupsOnDelete returns an error of kind ErrInvalid unless policy is one that there is.
func ValidateBackupsOnDelete(policy string) error {
	policies := []string{KeepBackups, KeepLatestBackup, DeleteBackups}
	if !slices.Contains(policies, policy) {
		return invalid("%q says not what becomes of backups: use one of %s", policy, strings.Join(policies, ", "))
	}
	return nil
}

// VolumeChange is what is to be another way on a volume.
type VolumeChange struct {
	// Labels to put on it, besides those it has.
	Labels map[string]string
	// BackupRule is the rule to have; what is zero in it stays as it is. nil leaves the rule alone.
	BackupRule *BackupRule
	// NoBackups takes the rule away.
	NoBackups bool
}

// ModifyVolume changes the volume, and returns it as it is then. What is so already takes no change. It waits while the
// volume is busy, until ctx ends. ErrNotOwned when it is not this cluster's.
func (c *Cloud) ModifyVolume(ctx context.Context, id string, change VolumeChange) (*Volume, error) {
	return c.modifyFor(ctx, id, change, useModify)
}

// LabelVolume puts labels on a volume that is about to be attached. ErrNotOwned when it may not be attached.
func (c *Cloud) LabelVolume(ctx context.Context, id string, labels map[string]string) (*Volume, error) {
	return c.modifyFor(ctx, id, VolumeChange{Labels: labels}, useAttach)
}

func (c *Cloud) modifyFor(ctx context.Context, id string, change VolumeChange, use use) (*Volume, error) {
	doing := Error{Op: "modify", Resource: "storage", ID: id}
	for key, value := range change.Labels {
		if err := checkLabel(key, value); err != nil {
			return nil, explain(err, doing)
		}
	}
	id = canonicalID(id)
	key := fmt.Sprintf("%s %s %v %v %v", use, id, change.Labels, change.BackupRule, change.NoBackups)
	volume, err := c.changes.do(ctx, key, func(w *work) (*Volume, error) { return c.modify(w, id, change, use) })
	if err != nil {
		return nil, explain(err, doing)
	}
	own := *volume
	own.Labels = maps.Clone(volume.Labels)
	return &own, nil
}

func (c *Cloud) modify(w *work, id string, change VolumeChange, use use) (*Volume, error) {
	looking, looked := look(w.ctx)
	volume, err := c.onlyVolume(looking, id)
	if err != nil {
		return nil, err
	}
	if _, given := change.Labels[LabelBackupsOnDelete]; given {
		defer c.shared.policies.changed()
	}
	return c.putSeen(w, volume, *looked, func(seen *Volume) (*request.ModifyStorageRequest, error) {
		if err := c.checkUse(use, seen.Labels, seen.Title); err != nil {
			return nil, err
		}
		return change.of(seen)
	})
}

// of is the request that makes the change on a volume as it was seen; nil where nothing is to change.
func (change *VolumeChange) of(volume *Volume) (*request.ModifyStorageRequest, error) {
	rule := change.RuleFor(volume.BackupRule)
	if err := rule.Validate(); err != nil {
		return nil, err
	}
	var wanted request.ModifyStorageRequest
	if *rule != volume.BackupRule {
		wanted.BackupRule = rule.wire()
	}
	if !hasLabels(volume.Labels, change.Labels) {
		list := labelList(merged(volume.Labels, change.Labels))
		wanted.Labels = &list
	}
	if wanted.BackupRule == nil && wanted.Labels == nil {
		return nil, nil
	}
	return &wanted, nil
}

// RuleFor is the backup rule that a volume has after the change, from what it has before.
func (change *VolumeChange) RuleFor(has BackupRule) *BackupRule {
	if change.NoBackups {
		return &BackupRule{}
	}
	rule := has
	if wanted := change.BackupRule; wanted != nil {
		rule.Interval = firstNonEmpty(wanted.Interval, has.Interval)
		rule.Time = firstNonEmpty(wanted.Time, has.Time)
		if wanted.Retention != 0 {
			rule.Retention = wanted.Retention
		}
	}
	return &rule
}

// policiesAge is for how long it is believed which volumes say what becomes of their backups.
const policiesAge = time.Minute

// backupsOnDelete tells what becomes of a volume's backups. A deletion names nothing but the volume, so that the policy is
// a label on it. To read the volume first would take a call for each deletion; those that have such a label are listed
// once a minute instead.
func (c *Cloud) backupsOnDelete(ctx context.Context, id string) (string, error) {
	policies, err := c.shared.policies.since(ctx, c, c.now().Add(-policiesAge), c.readPolicies)
	if err != nil {
		return "", err
	}
	if !policies[id] {
		return KeepBackups, nil
	}
	// Backups that are deleted do not come back: here the volume's own word of now counts.
	volume, err := c.volume(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return KeepBackups, nil
	case err != nil:
		return "", err
	}
	return backupsPolicy(volume), nil
}

// backupsPolicy is what the volume's label says about its backups.
func backupsPolicy(volume *Volume) string {
	switch policy := volume.Labels[LabelBackupsOnDelete]; policy {
	case KeepLatestBackup, DeleteBackups:
		return policy
	}
	return KeepBackups
}

func (c *Cloud) readPolicies(ctx context.Context) (map[string]bool, error) {
	storages, err := c.storages(ctx, "/storage?label="+LabelBackupsOnDelete)
	if err != nil {
		return nil, err
	}
	policies := map[string]bool{}
	for i := range storages {
		if storages[i].Type == upcloud.StorageTypeNormal && labelMap(storages[i].Labels)[LabelBackupsOnDelete] != "" {
			policies[storages[i].UUID] = true
		}
	}
	return policies, nil
}

func (c *Cloud) deleteStorage(ctx context.Context, id, policy string) error {
	c.shared.volumes.changed()
	defer c.shared.volumes.changed()
	if policy != KeepBackups {
		defer c.shared.backups.changed()
	}
	return c.call(ctx, http.MethodDelete, "/storage/"+id+"?backups="+policy, nil, nil)
}
