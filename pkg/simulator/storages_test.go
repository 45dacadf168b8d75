package simulator_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const zone = "fi-hel1"

func createStorage(t testing.TB, sim *simulatortest.Server, title string, labels ...string) string {
	t.Helper()
	var list []string
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		list = append(list, fmt.Sprintf(`{"key":%q,"value":%q}`, key, value))
	}
	var answer struct{ Storage struct{ UUID string } }
	sim.Do(t, "POST", "/storage", fmt.Sprintf(`{"storage":{"size":"10","tier":"maxiops","title":%q,"zone":%q,"labels":[%s]}}`,
		title, zone, strings.Join(list, ",")), &answer)
	return answer.Storage.UUID
}

type storageState struct {
	Storage struct {
		UUID, State, Origin string
		Size                int
		Labels              []struct{ Key, Value string }
		Servers             struct{ Server []string }
		Backups             struct{ Backup []string }
	}
}

func getStorage(t testing.TB, sim *simulatortest.Server, uuid string) storageState {
	t.Helper()
	var st storageState
	sim.Do(t, "GET", "/storage/"+uuid, "", &st)
	return st
}

// refused makes a request that must be refused with that status and code.
func refused(t *testing.T, sim *simulatortest.Server, method, path, body string, status int, code string) {
	t.Helper()
	got, answer := sim.Raw(t, method, path, body)
	var e struct {
		Error struct {
			Code string `json:"error_code"`
		}
	}
	_ = json.Unmarshal(answer, &e)
	if got != status || e.Error.Code != code {
		t.Errorf("%s %s: %d %s, want %d %s", method, path, got, answer, status, code)
	}
}

func TestStorageLabelsFilterWithAnd(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	createStorage(t, sim, "a", "color=red", "size=big")
	createStorage(t, sim, "b", "color=red")
	createStorage(t, sim, "c", "color=green", "size=big")
	for query, want := range map[string]int{
		"?label=color": 3, "?label=color%3Dred": 2, "?label=color%3Dred&label=size": 1, "?label=color%3Dblue": 0,
		"/private?label=size%3Dbig": 2,
		"/private":                  3, "/backup": 0, "/cdrom": 2,
	} {
		var list struct{ Storages struct{ Storage []any } }
		sim.Do(t, "GET", "/storage"+query, "", &list)
		if n := len(list.Storages.Storage); n != want {
			t.Errorf("%s: %d storages, want %d", query, n, want)
		}
	}
}

func TestStorageGrowsOnly(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	disk := createStorage(t, sim, "data")
	sim.Do(t, "PUT", "/storage/"+disk, `{"storage":{"size":"20"}}`, nil)
	if st := getStorage(t, sim, disk); st.Storage.Size != 20 {
		t.Errorf("size %d, want 20", st.Storage.Size)
	}
	refused(t, sim, "PUT", "/storage/"+disk, `{"storage":{"size":"19"}}`, 400, "SIZE_INVALID")
	refused(t, sim, "PUT", "/storage/"+disk, `{"storage":{"size":"5000"}}`, 400, "SIZE_INVALID")
}

func TestStorageRequestsAreChecked(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	for body, code := range map[string]string{
		`{"tier":"maxiops","title":"x","zone":"fi-hel1"}`:                        "SIZE_MISSING",
		`{"size":"0","tier":"maxiops","title":"x","zone":"fi-hel1"}`:             "SIZE_INVALID",
		`{"size":9,"tier":"hdd","title":"x","zone":"fi-hel1"}`:                   "SIZE_INVALID",
		`{"size":"10","tier":"floppy","title":"x","zone":"fi-hel1"}`:             "TIER_INVALID",
		`{"size":"10","tier":"maxiops","zone":"fi-hel1"}`:                        "TITLE_MISSING",
		`{"size":"10","tier":"maxiops","title":"x"}`:                             "ZONE_MISSING",
		`{"size":"10","title":"x","zone":"fi-hel1","labels":[{"key":"a"}]}`:      "INVALID_LABEL_KEY",
		`{"size":"10","title":"x","zone":"fi-hel1","backup_rule":{"time":"99"}}`: "BACKUP_RULE_INVALID",
		`{"size":"ten"}`: "INVALID_REQUEST",
	} {
		refused(t, sim, "POST", "/storage", `{"storage":`+body+`}`, 400, code)
	}
	refused(t, sim, "POST", "/storage", `{"storage":{"size":"10","title":"x","zone":"mars"}}`, 404, "ZONE_NOT_FOUND")
	refused(t, sim, "GET", "/storage/nonsense", "", 400, "STORAGE_INVALID")
	refused(t, sim, "GET", "/storage/01000000-0000-4000-8000-00000000beef", "", 404, "STORAGE_NOT_FOUND")
	refused(t, sim, "DELETE", "/storage/01000000-0000-4000-8000-000020060100", "", 403, "STORAGE_FORBIDDEN")
}

func TestCloneAndBackupPassThroughMaintenance(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	disk := createStorage(t, sim, "data", "csi-name=pvc-1")
	for operation, busy := range map[string]string{"clone": "cloning", "backup": "backuping"} {
		var made storageState
		sim.Do(t, "POST", "/storage/"+disk+"/"+operation, `{"storage":{"title":"copy","zone":"fi-hel1"}}`, &made)
		if made.Storage.State != "maintenance" {
			t.Errorf("%s answers %s, want maintenance", operation, made.Storage.State)
		}
		if got := getStorage(t, sim, disk).Storage.State; got != busy {
			t.Errorf("during the %s the source is %s, want %s", operation, got, busy)
		}
		refused(t, sim, "POST", "/storage/"+disk+"/backup", `{"storage":{"title":"x"}}`, 409, "STORAGE_STATE_ILLEGAL")
		refused(t, sim, "DELETE", "/storage/"+disk, "", 409, "STORAGE_STATE_ILLEGAL")
		refused(t, sim, "DELETE", "/storage/"+made.Storage.UUID, "", 409, "STORAGE_STATE_ILLEGAL")
		clock.Advance(60e9)
		after := getStorage(t, sim, made.Storage.UUID)
		if after.Storage.State != "online" || len(after.Storage.Labels) != 0 {
			t.Errorf("after the %s: %+v, want online and without the source's labels", operation, after)
		}
		if got := getStorage(t, sim, disk).Storage.State; got != "online" {
			t.Errorf("after the %s the source is %s", operation, got)
		}
	}
	if n := clock.Pending(); n != 0 {
		t.Errorf("%d timers are left when nothing is going on", n)
	}
}

func TestDeletionPolicyOfBackups(t *testing.T) {
	for policy, want := range map[string]int{"": 2, "?backups=keep": 2, "?backups=keep_latest": 1, "?backups=delete": 0} {
		sim := simulatortest.Start(t, simulator.Config{})
		disk := createStorage(t, sim, "data")
		for range 2 {
			sim.Do(t, "POST", "/storage/"+disk+"/backup", `{"storage":{"title":"b"}}`, nil)
		}
		if n := len(getStorage(t, sim, disk).Storage.Backups.Backup); n != 2 {
			t.Fatalf("%d backups", n)
		}
		sim.Do(t, "DELETE", "/storage/"+disk+policy, "", nil)
		var list struct{ Storages struct{ Storage []any } }
		sim.Do(t, "GET", "/storage/backup", "", &list)
		if n := len(list.Storages.Storage); n != want {
			t.Errorf("%s: %d backups are left, want %d", policy, n, want)
		}
	}
}

func TestCloneOfADiskInUseIsRefused(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", zone)
	disk := createStorage(t, sim, "data")
	attach(t, sim, server, disk)
	refused(t, sim, "POST", "/storage/"+disk+"/clone", `{"storage":{"title":"c","zone":"fi-hel1"}}`, 409, "SERVER_STATE_ILLEGAL")
	var backup storageState
	sim.Do(t, "POST", "/storage/"+disk+"/backup", `{"storage":{"title":"b"}}`, &backup)
	sim.Do(t, "POST", "/storage/"+backup.Storage.UUID+"/clone", `{"storage":{"title":"c","zone":"fi-hel1"}}`, nil)
}

func BenchmarkList10000Storages(b *testing.B) {
	sim := simulatortest.Start(b, simulator.Config{})
	for i := range 10000 {
		createStorage(b, sim, fmt.Sprintf("pvc-%d", i), fmt.Sprintf("csi-name=pvc-%d", i))
	}
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			sim.Raw(b, "GET", "/storage/private", "")
		}
	})
	b.Run("one by label", func(b *testing.B) {
		for b.Loop() {
			sim.Raw(b, "GET", "/storage?label=csi-name%3Dpvc-5000", "")
		}
	})
}
