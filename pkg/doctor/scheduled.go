package doctor

import (
	"regexp"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// titleOfVolumes is in the titles of the backups that the API makes of volumes by a rule.
var titleOfVolumes = regexp.MustCompile(`\bpvc-[0-9a-f]{8}`)

// isScheduled reports whether a backup, that is no snapshot, is of a disk that was this cluster's and is gone: no rule ever ends it.
func (v *view) isScheduled(s *cloud.Storage) bool {
	_, remembered := v.record.things[s.SourceID]
	gone := s.SourceID != "" && v.storages[s.SourceID] == nil
	return s.Backup && s.Role == cloud.RoleOther && gone && (remembered || titleOfVolumes.MatchString(s.Title))
}

// keepScheduled lists it: whose it was, only its title and its size tell.
func (e *examination) keepScheduled(s *cloud.Storage) {
	f := findingOf(ScheduledBackup, s)
	f.Action, f.Kept, f.Note = ActionKeep, "backups outlive their storage", "of storage "+s.SourceID+", which is gone"
	if credits, known := e.prices.CreditsPerMonth(s); known {
		f.CreditsPerMonth = credits
	}
	e.report.Kept = append(e.report.Kept, f)
}
