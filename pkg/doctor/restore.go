package doctor

import (
	"context"
	"fmt"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// labelRestored makes the doctor leave alone what a person has restored.
const (
	labelRestored = "keep"
	valueRestored = "restored"
)

// Restore takes marks and quarantines off storages, and labels them keep, so that they stay. ids are those of storages; none means all
// that carry this cluster's UID. Errors: ErrNotFound for an ID that is not in the account.
func (d *Doctor) Restore(ctx context.Context, ids []string) (*Report, error) {
	v, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	report := v.newReport()
	for _, id := range ids {
		if v.storages[canonical(id)] == nil {
			return nil, fmt.Errorf("restore storage %s: it is not in this account: %w", id, cloud.ErrNotFound)
		}
	}
	for _, s := range v.sorted() {
		asked := slices.ContainsFunc(ids, func(id string) bool { return canonical(id) == s.ID }) || len(ids) == 0 && v.carriesUID(s)
		if !asked || !carriesStage(s.Labels) {
			continue
		}
		now, err := d.config.Cloud.StorageNow(ctx, s.ID)
		if err != nil {
			return report, err
		}
		f := v.restoring(now)
		report.Findings = append(report.Findings, f)
		if err := d.config.carryOut(ctx, f, ActionRestore, v.now, "", true); err != nil {
			return report, err
		}
	}
	return report, nil
}

// restoring is a finding about a storage whose mark or quarantine is to be taken off.
func (v *view) restoring(s *cloud.Storage) *Finding {
	f := findingOf(WantedAgain, s)
	f.Claim, f.Action, f.subject, f.stage = v.claim(s), ActionRestore, &storageSubject{v.config.Cloud, s}, stageOf(s.Labels)
	f.Stage, f.Fingerprint = f.stage.Stage, fingerprint(f.subject)
	return f
}

// wantedAgain is a finding about a storage that an object names and that is marked all the same; nil when there is nothing to undo.
func (v *view) wantedAgain(s *cloud.Storage) *Finding {
	if !carriesStage(s.Labels) {
		return nil
	}
	f := v.restoring(s)
	f.Note = v.objects.namedBy(s.ID)
	return f
}
