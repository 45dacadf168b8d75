package simulator_test

import (
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// The manual clock stands at Monday, 2026-01-05, 09:00.
func TestBackupRulesMakeAndDropBackups(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		rule  string
		after []time.Duration // from one look to the next
		want  []int           // backups at each
	}{
		{`{"interval":"daily","time":"0430","retention":"2"}`,
			[]time.Duration{19 * time.Hour, time.Hour, day, 7 * day}, []int{0, 1, 2, 2}},
		{`{"interval":"wed","time":"1000","retention":"30"}`,
			[]time.Duration{day, day + 2*time.Hour, 7 * day}, []int{0, 1, 2}},
		{`{"interval":"mon","time":"0900","retention":"30"}`,
			[]time.Duration{6 * day, day + time.Hour}, []int{0, 1}},
	} {
		clock := simulator.NewManualClock()
		sim := simulatortest.Start(t, simulator.Config{Clock: clock, Profile: simulator.Realistic})
		disk := createStorage(t, sim, "data")
		sim.Do(t, "PUT", "/storage/"+disk, `{"storage":{"backup_rule":`+test.rule+`}}`, nil)
		for i, wait := range test.after {
			clock.Advance(wait)
			if got := len(getStorage(t, sim, disk).Storage.Backups.Backup); got != test.want[i] {
				t.Errorf("rule %s, look %d: %d backups, want %d", test.rule, i, got, test.want[i])
			}
		}
		sim.Do(t, "PUT", "/storage/"+disk, `{"storage":{"backup_rule":{}}}`, nil)
		before := len(getStorage(t, sim, disk).Storage.Backups.Backup)
		clock.Advance(30 * day)
		if got := len(getStorage(t, sim, disk).Storage.Backups.Backup); got != before {
			t.Errorf("without a rule there are %d backups, before %d", got, before)
		}
	}
}

func TestRulesAndSimpleBackupsExcludeEachOther(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	const body = `{"server":{"hostname":"a","title":"a","zone":"fi-hel1","simple_backup":"0400,daily","storage_devices":{
		"storage_device":[{"action":"create","size":10,"tier":"maxiops","title":"d",
			"backup_rule":{"interval":"daily","time":"0430","retention":"2"}}]}}}`
	refused(t, sim, "POST", "/server", body, 409, "BACKUP_RULE_CONFLICT")
}
