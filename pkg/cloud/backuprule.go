package cloud

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// BackupRule says when the API makes backups of a storage by itself. The zero value says never.
type BackupRule struct {
	Interval  string // one of BackupIntervals
	Time      string // HHMM, UTC
	Retention int    // days
}

// MaxBackupRetention is for how many days a scheduled backup is kept at most.
const MaxBackupRetention = 1095

// BackupIntervals lists how often backups can be made: every day, or on one day of the week.
func BackupIntervals() []string {
	return []string{"daily", "mon", "tue", "wed", "thu", "fri", "sat", "sun"}
}

// Validate returns an error of kind ErrInvalid that names the field.
func (r *BackupRule) Validate() error {
	if r == nil || *r == (BackupRule{}) {
		return nil
	}
	if !slices.Contains(BackupIntervals(), r.Interval) {
		return invalid("the interval %q is none that backups are made in: use one of %s", r.Interval,
			strings.Join(BackupIntervals(), ", "))
	}
	if _, err := time.Parse("1504", r.Time); err != nil {
		return invalid("the time %q is not one of the form HHMM, such as 0430 (UTC)", r.Time)
	}
	if r.Retention < 1 || r.Retention > MaxBackupRetention {
		return invalid("the retention of %d days is outside 1 to %d", r.Retention, MaxBackupRetention)
	}
	return nil
}

func (r *BackupRule) wire() *upcloud.BackupRule {
	if r == nil {
		return nil
	}
	return &upcloud.BackupRule{Interval: r.Interval, Time: r.Time, Retention: r.Retention}
}

func (r *BackupRule) String() string {
	if r == nil || *r == (BackupRule{}) {
		return "no backups"
	}
	return fmt.Sprintf("backups %s at %s UTC, kept %d days", r.Interval, r.Time, r.Retention)
}

func backupRuleOf(rule *upcloud.BackupRule) BackupRule {
	if rule == nil {
		return BackupRule{}
	}
	return BackupRule{Interval: rule.Interval, Time: rule.Time, Retention: rule.Retention}
}
