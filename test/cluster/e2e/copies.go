package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

func (s suite) copySteps() []steps.Step {
	made := []steps.Step{
		{Name: "volume.yaml: a Pod runs with its volume", Do: s.apply("volume.yaml"), Check: s.writeTo("app")},
		{Name: "snapshot.yaml: a snapshot of the volume in use is ready", Do: s.apply("snapshot.yaml"), Check: s.snapshotReady},
		{Name: "the volume goes on and changes", Do: func(ctx context.Context) error {
			_, err := s.exec(ctx, "app", "echo written after the snapshot > /data/later; sync")
			return err
		}},
		{Name: "restore.yaml: a larger volume holds what the snapshot held", Do: s.apply("restore.yaml"), Check: s.restored},
		{Name: "clone.yaml: a volume holds what another one holds", Do: s.clone, Check: s.holds("app-cloned", 1800)},
	}
	return append(append(made, s.growSteps("data", "app")...), steps.Step{
		Name: "volumeattributesclass.yaml: a volume in use gets a backup rule", Do: s.modify, Check: s.modified})
}

func (s suite) snapshotReady(ctx context.Context) (string, error) {
	handle, err := s.Kubectl(ctx, nil, "get", "volumesnapshotcontents", "-o",
		`jsonpath={.items[?(@.status.readyToUse==true)].status.snapshotHandle}`)
	if err != nil {
		return "", err
	}
	if handle = strings.TrimSpace(handle); handle == "" {
		return "", errNoSnapshot
	}
	storage, err := s.Account.GetStorageDetails(ctx, &request.GetStorageDetailsRequest{UUID: handle})
	if err != nil {
		return "", fmt.Errorf("the snapshot's handle %q is not a storage's UUID: %w", handle, err)
	}
	source, err := s.handle(ctx, "data")
	if err != nil {
		return "", err
	}
	if storage.Type != upcloud.StorageTypeBackup || storage.Origin != source {
		return "", fmt.Errorf("storage %s is a %s of %s, want a backup of %s", handle, storage.Type, storage.Origin, source)
	}
	return fmt.Sprintf("backup %s of storage %s", handle, source), nil
}

func (s suite) restored(ctx context.Context) (string, error) {
	seen, err := s.holds("app-restored", 1800)(ctx)
	if err != nil {
		return "", err
	}
	if later, err := s.exec(ctx, "app-restored", "ls /data"); err != nil || strings.Contains(later, "later") {
		return "", fmt.Errorf("the restored volume holds what came after the snapshot: %q (%w)", later, err)
	}
	return seen, nil
}

// clone frees the source first: a storage in use by a running server is not copied.
func (s suite) clone(ctx context.Context) error {
	if err := s.end(ctx, "app-restored"); err != nil {
		return err
	}
	return s.apply("clone.yaml")(ctx)
}

func (s suite) modify(ctx context.Context) error {
	if err := s.apply("volumeattributesclass.yaml")(ctx); err != nil {
		return err
	}
	return s.patchClaim(ctx, "data", `{"spec":{"volumeAttributesClassName":"nightly-backups"}}`)
}

func (s suite) modified(ctx context.Context) (string, error) {
	handle, err := s.handle(ctx, "data")
	if err != nil {
		return "", err
	}
	storage, err := s.Account.GetStorageDetails(ctx, &request.GetStorageDetailsRequest{UUID: handle})
	if err != nil {
		return "", err
	}
	if rule := storage.BackupRule; rule == nil || rule.Interval != upcloud.BackupRuleIntervalDaily || rule.Time != "0430" || rule.Retention != 7 {
		return "", fmt.Errorf("the backup rule of storage %s is %+v", handle, rule)
	}
	claim, _, err := s.claim(ctx, "data")
	if err != nil {
		return "", err
	}
	if current := claim.Status.CurrentVolumeAttributesClassName; current == nil || *current != "nightly-backups" {
		return "", errors.New("the claim does not tell of its class yet")
	}
	return "daily at 0430, kept for 7 days", nil
}

var errNoSnapshot = errors.New("the snapshot is not ready")
