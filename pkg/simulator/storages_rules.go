package simulator

import (
	"slices"
	"strconv"
	"time"
)

// next returns when a rule's next backup is due, after now.
func (r backupRule) next(now time.Time) time.Time {
	now = now.UTC()
	at, err := time.Parse("1504", r.Time)
	if err != nil {
		return time.Time{} // there is no such rule: they are checked
	}
	due := time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, time.UTC)
	for !due.After(now) || !r.onDay(due.Weekday()) {
		due = due.AddDate(0, 0, 1)
	}
	return due
}

func (r backupRule) onDay(day time.Weekday) bool {
	days := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	return r.Interval == "daily" || r.Interval == days[day]
}

// followRule has the storage backed up as its rule says, from now on. What it said before no longer counts.
func (s *Simulator) followRule(st *storage) {
	st.ruleChanges++
	if st.rule == (backupRule{}) {
		return
	}
	change := st.ruleChanges
	s.after(st.rule.next(s.now()).Sub(s.now()), func() {
		if now, ok := s.storages.get(st.uuid); !ok || now != st || st.ruleChanges != change {
			return
		}
		if st.state == storageOnline { // one that is busy is backed up the next time
			b := s.backUp(st, st.title[:min(len(st.title), maxTitle-len(scheduledSuffix))]+scheduledSuffix)
			b.scheduled = true
		}
		s.dropOldBackups(st)
		s.followRule(st)
	})
}

const scheduledSuffix = " (scheduled backup)"

// dropOldBackups deletes those backups that the rule made and need not keep any longer.
func (s *Simulator) dropOldBackups(st *storage) {
	days, err := strconv.Atoi(st.rule.Retention)
	if err != nil {
		return
	}
	oldest := s.now().AddDate(0, 0, -days)
	for _, uuid := range slices.Clone(s.backupsOf(st)) {
		b, _ := s.storages.get(uuid)
		if b.scheduled && !b.created.After(oldest) && b.state == storageOnline {
			s.removeStorage(b, "keep")
		}
	}
}

// backUp starts a backup of a storage that is online.
func (s *Simulator) backUp(from *storage, title string) *storage {
	b := &storage{
		uuid: s.newUUID(storageKind), title: title, zone: from.zone, size: from.size, encrypted: from.encrypted,
		kind: kindBackup, access: "private", origin: from.uuid, created: s.now(),
	}
	s.storages.put(b.uuid, b)
	s.startCopy(from, b, storageBackuping, nil)
	return b
}
