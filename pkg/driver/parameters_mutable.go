package driver

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Parameters of a StorageClass that a VolumeAttributesClass can change afterwards.
const (
	// parameterBackupInterval is when the API makes backups by itself: daily, or a day of the week (mon, tue …). none
	// ends them. The default is none.
	parameterBackupInterval = "backupInterval"
	// parameterBackupTime is at what time of the day, HHMM in UTC. Needed with an interval.
	parameterBackupTime = "backupTime"
	// parameterBackupRetention is for how many days such a backup is kept, 1 to 1095. Needed with an interval.
	parameterBackupRetention = "backupRetention"
	// parameterBackupsOnDelete is what becomes of a volume's backups when it is deleted: keep (the default), keep_latest
	// or delete. Snapshots of Kubernetes are backups, too: they go with the volume unless they are kept.
	parameterBackupsOnDelete = "backupsOnDelete"
	// parameterLabels are labels to put on the storage, as key=value,key=value. Those put there before stay.
	parameterLabels = "labels"
)

const noBackups = "none"

// mutableKeys are the parameters above, in the order in which messages name them.
var mutableKeys = []string{
	parameterBackupInterval, parameterBackupTime, parameterBackupRetention, parameterBackupsOnDelete, parameterLabels,
}

// fixed are the parameters that cannot change in place, with the reason.
var fixed = map[string]string{
	parameterTier: "the API does not move a storage to another tier: make a snapshot, and restore it with a StorageClass " +
		"of that tier",
	parameterEncryption: "the API does not encrypt an existing storage: make a snapshot, and restore it with a " +
		"StorageClass that encrypts",
	parameterNodeEncryption: "the data on the volume stays as it is encrypted: copy it to a volume of another StorageClass",
	parameterMkfsOptions:    "the filesystem is made once: copy the data to a volume of another StorageClass",
	parameterFilesystem:     "the filesystem is made once: copy the data to a volume of another StorageClass",
}

// parseMutable reads the parameters of a VolumeAttributesClass.
func parseMutable(given map[string]string) (cloud.VolumeChange, error) {
	change := cloud.VolumeChange{Labels: map[string]string{}}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if forSidecars(key) {
			continue
		}
		if reason, known := fixed[key]; known {
			return cloud.VolumeChange{}, invalid("mutable_parameters", "%s cannot be changed: %s", key, reason)
		}
		known, err := addMutable(&change, "mutable_parameters", key, given[key])
		if err != nil {
			return cloud.VolumeChange{}, err
		}
		if !known {
			return cloud.VolumeChange{}, unknownParameter("mutable_parameters", key, mutableKeys)
		}
	}
	return change, checkRuleChange(change, "mutable_parameters")
}

func checkRuleChange(change cloud.VolumeChange, field string) error {
	if change.NoBackups && change.BackupRule != nil {
		return invalid(field, "%s is %s: leave %s and %s out", parameterBackupInterval, noBackups,
			parameterBackupTime, parameterBackupRetention)
	}
	return nil
}

// addMutable adds one parameter to a change. It reports whether it is one of these.
func addMutable(change *cloud.VolumeChange, field, key, value string) (known bool, err error) {
	rule := func() *cloud.BackupRule {
		if change.BackupRule == nil {
			change.BackupRule = &cloud.BackupRule{}
		}
		return change.BackupRule
	}
	switch key {
	case parameterBackupInterval:
		if value == noBackups {
			change.NoBackups = true
			return true, nil
		}
		if !slices.Contains(cloud.BackupIntervals(), value) {
			return true, invalid(field, "invalid %s %q: must be %s or %s", key, value, strings.Join(cloud.BackupIntervals(), ", "), noBackups)
		}
		rule().Interval = value
	case parameterBackupTime:
		probe := cloud.BackupRule{Interval: cloud.BackupIntervals()[0], Time: value, Retention: 1}
		if err := probe.Validate(); err != nil {
			return true, invalid(field, "invalid %s %q: must be hours and minutes in UTC, such as 0430", key, value)
		}
		rule().Time = value
	case parameterBackupRetention:
		days, err := strconv.Atoi(value)
		if err != nil || days < 1 || days > cloud.MaxBackupRetention {
			return true, invalid(field, "invalid %s %q: must be days, from 1 to %d", key, value, cloud.MaxBackupRetention)
		}
		rule().Retention = days
	case parameterBackupsOnDelete:
		if err := cloud.ValidateBackupsOnDelete(value); err != nil {
			return true, invalid(field, "%s: %v", key, err)
		}
		change.Labels[cloud.LabelBackupsOnDelete] = value
	case parameterLabels:
		return true, addLabels(change.Labels, field, value)
	default:
		return false, nil
	}
	return true, nil
}

// ownLabels begin the keys of labels that are not a user's to set: the driver's and the API's own.
var ownLabels = []string{"csi-", "_"}

// maxLabels is how many labels a StorageClass or VolumeAttributesClass may give.
const maxLabels = 100

func addLabels(labels map[string]string, field, text string) error {
	if err := bounded.Count(strings.Count(text, ",")+1, maxLabels, "labels"); err != nil {
		return invalid(field, "%s: %v", parameterLabels, err)
	}
	for label := range strings.SplitSeq(text, ",") {
		label = strings.TrimSpace(label)
		if label == "" {
			continue
		}
		key, value, both := strings.Cut(label, "=")
		if !both || key == "" {
			return invalid(field, "%s has %q: give labels as key=value,key=value", parameterLabels, label)
		}
		for _, own := range ownLabels {
			if strings.HasPrefix(key, own) {
				return invalid(field, "%s has the key %q: keys that begin with %s are the driver's and UpCloud's own", parameterLabels,
					key, strings.Join(ownLabels, " or "))
			}
		}
		if err := cloud.ValidateLabel(key, value); err != nil {
			return invalid(field, "%s: %v", parameterLabels, err)
		}
		labels[key] = value
	}
	return nil
}

// merge puts later parameters over earlier ones: those of a VolumeAttributesClass over those of the StorageClass.
func merge(earlier, later cloud.VolumeChange) cloud.VolumeChange {
	merged := cloud.VolumeChange{Labels: map[string]string{}, BackupRule: earlier.BackupRule, NoBackups: earlier.NoBackups}
	maps.Copy(merged.Labels, earlier.Labels)
	maps.Copy(merged.Labels, later.Labels)
	switch {
	case later.NoBackups:
		merged.NoBackups, merged.BackupRule = true, nil
	case later.BackupRule != nil && earlier.BackupRule == nil:
		merged.NoBackups, merged.BackupRule = false, later.BackupRule
	case later.BackupRule != nil:
		rule := *earlier.BackupRule
		if later.BackupRule.Interval != "" {
			rule.Interval = later.BackupRule.Interval
		}
		if later.BackupRule.Time != "" {
			rule.Time = later.BackupRule.Time
		}
		if later.BackupRule.Retention != 0 {
			rule.Retention = later.BackupRule.Retention
		}
		merged.NoBackups, merged.BackupRule = false, &rule
	}
	return merged
}

// ruleOf is the whole rule that a new volume gets; what is missing in it is an error.
func ruleOf(change cloud.VolumeChange) (*cloud.BackupRule, error) {
	rule := change.BackupRule
	if rule == nil {
		return nil, nil
	}
	if rule.Interval == "" || rule.Time == "" || rule.Retention == 0 {
		return nil, invalid("parameters", "backups need all of %s, %s and %s", parameterBackupInterval, parameterBackupTime,
			parameterBackupRetention)
	}
	return rule, nil
}
