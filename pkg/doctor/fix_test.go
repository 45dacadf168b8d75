package doctor_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func (r *rig) fix(t *testing.T, report *doctor.Report, ask doctor.Ask) {
	t.Helper()
	if err := r.doctor(t).Fix(testContext(t), report, ask); err != nil {
		t.Fatal(err)
	}
}

func of(t *testing.T, report *doctor.Report, id string) *doctor.Finding {
	t.Helper()
	for _, f := range report.Findings {
		if f.StorageID == id && f.Removable() {
			return f
		}
	}
	t.Fatalf("no finding about %s among %v", id, found(report.Findings))
	return nil
}

func TestFixRemovesWhatWasLeft(t *testing.T) {
	r := newRig(t)
	healthy(t, r)
	volume, _ := r.provisioned(t, "source")
	orphan := r.volume(t, r.cloud, pvcName(newUID()))
	unfinished := r.clone(t, volume, pvcName(newUID()), "test")
	snapshot := r.snapshot(t, r.cloud, "snapshot-"+newUID(), volume)
	old := r.plain(t, pvcName(newUID()))
	before := len(r.storages(t))

	report := r.examine(t)
	r.fix(t, report, nil)
	for _, id := range []string{orphan, unfinished, snapshot} {
		if f := of(t, report, id); f.Outcome != doctor.OutcomeRemoved || r.exists(t, id) {
			t.Errorf("%s: %s, %s", f.Kind, f.Outcome, f.Kept)
		}
	}
	if f := of(t, report, old); f.Outcome != doctor.OutcomeKept || !r.exists(t, old) {
		t.Errorf("what UpCloud's own driver made: %s", f.Outcome)
	}
	if now := len(r.storages(t)); now != before-3 {
		t.Errorf("of %d storages %d are left", before, now)
	}
	if report.Left() != 1 {
		t.Errorf("%d are left of the findings", report.Left())
	}

	r.config.Unclaimed = doctor.UnclaimedRemove
	r.fix(t, r.examine(t), nil)
	if r.exists(t, old) {
		t.Error("what UpCloud's own driver made is still there when it was asked for")
	}
	wantFound(t, "afterwards", r.examine(t).Findings)
}

func (r *rig) storages(t *testing.T) []struct{ UUID string } {
	t.Helper()
	var answer struct {
		Storages struct{ Storage []struct{ UUID string } }
	}
	r.sim.Do(t, "GET", "/storage/private", "", &answer)
	return answer.Storages.Storage
}

// Each rule alone keeps a storage that would be removed without it: the last case shows that.
func TestFixKeeps(t *testing.T) {
	cases := []struct {
		name string
		make func(t *testing.T, r *rig) (id string)
		says string
	}{
		{"what is attached", func(t *testing.T, r *rig) string {
			id := r.volume(t, r.cloud, pvcName(newUID()))
			r.attach(t, id, r.sim.CreateServer(t, "worker-1", zone))
			return id
		}, "attached"},
		{"what a content of any driver names", func(t *testing.T, r *rig) string {
			id := r.volume(t, r.cloud, pvcName(newUID()))
			r.apply(t, snapshotContent("content-1", "other.example", newUID(), "fi-hel1/"+id, ""))
			return id
		}, "VolumeSnapshotContent content-1"},
		{"a claim's whose PersistentVolume is gone", func(t *testing.T, r *rig) string {
			uid := newUID()
			r.apply(t, claim(uid, "lost", pvcName(uid)))
			return r.volume(t, r.cloud, pvcName(uid))
		}, "claim default/lost"},
		{"a volume made without a cluster ID", func(t *testing.T, r *rig) string {
			return r.volume(t, newCloud(t, r.sim, ""), pvcName(newUID()))
		}, "--unclaimed"},
		{"a copy begun without a cluster ID", func(t *testing.T, r *rig) string {
			source, _ := r.provisioned(t, "source")
			return r.clone(t, source, pvcName(newUID()), "")
		}, "--unclaimed"},
		{"a backup made without a cluster ID", func(t *testing.T, r *rig) string {
			source, _ := r.provisioned(t, "source")
			return r.snapshot(t, newCloud(t, r.sim, ""), "snapshot-"+newUID(), source)
		}, "--unclaimed"},
		{"nothing else", func(t *testing.T, r *rig) string { return r.volume(t, r.cloud, pvcName(newUID())) }, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.provisioned(t, "data")
			id := c.make(t, r)
			report := r.examine(t)
			f := of(t, report, id)
			r.fix(t, report, nil)
			if kept := r.exists(t, id); kept != (c.says != "") {
				t.Errorf("exists: %t", kept)
			}
			if !strings.Contains(f.Kept, c.says) {
				t.Errorf("the reason is %q", f.Kept)
			}
		})
	}
}

// Whatever happens while the question is open is seen before the removal.
func TestFixLooksAgain(t *testing.T) {
	cases := []struct {
		name   string
		happen func(t *testing.T, r *rig, id, uid string)
	}{
		{"attached", func(t *testing.T, r *rig, id, _ string) { r.attach(t, id, r.sim.CreateServer(t, "worker-1", zone)) }},
		{"made a PersistentVolume", func(t *testing.T, r *rig, id, _ string) { r.apply(t, persistentVolume("rescued", driverName, id)) }},
		{"made another driver's PersistentVolume", func(t *testing.T, r *rig, id, _ string) {
			r.apply(t, persistentVolume("rescued", "other.example", upper(id)))
		}},
		{"named by a content", func(t *testing.T, r *rig, id, _ string) {
			r.apply(t, snapshotContent("content-1", driverName, "", id, ""))
		}},
		{"waited for", func(t *testing.T, r *rig, _, uid string) { r.apply(t, claim(uid, "waiting", "")) }},
		{"given to another cluster", func(t *testing.T, r *rig, id, _ string) {
			r.sim.Do(t, "PUT", "/storage/"+id, `{"storage":{"labels":[{"key":"csi-name","value":"`+pvcName(newUID())+`"},{"key":"csi-cluster","value":"other"}]}}`, nil)
		}},
		{"given another title", func(t *testing.T, r *rig, id, _ string) {
			r.sim.Do(t, "PUT", "/storage/"+id, `{"storage":{"title":"wanted"}}`, nil)
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.provisioned(t, "data")
			uid := newUID()
			id := r.volume(t, r.cloud, pvcName(uid))
			report := r.examine(t)
			if f := of(t, report, id); f.Kept != "" {
				t.Fatalf("kept already: %s", f.Kept)
			}
			r.fix(t, report, func(*doctor.Finding) (bool, error) { c.happen(t, r, id, uid); return true, nil })
			if !r.exists(t, id) {
				t.Error("it was removed")
			}
		})
	}
}

// A backup that a content came to know while the question was open.
func TestFixLooksAgainForSnapshots(t *testing.T) {
	for _, handle := range []bool{true, false} {
		r := newRig(t)
		volume, _ := r.provisioned(t, "data")
		uid := newUID()
		id := r.snapshot(t, r.cloud, "snapshot-"+uid, volume)
		report := r.examine(t)
		r.fix(t, report, func(*doctor.Finding) (bool, error) {
			content := snapshotContent("content-1", driverName, "", volume, uid)
			if handle {
				content = snapshotContent("content-1", driverName, id, "", "")
			}
			r.apply(t, content)
			return true, nil
		})
		if f := of(t, report, id); handle && f.Outcome != doctor.OutcomeResolved {
			t.Errorf("the outcome is %s", f.Outcome)
		}
		if !r.exists(t, id) {
			t.Errorf("the backup was removed (handle %t)", handle)
		}
	}
}

func TestFixKeepsTheYoung(t *testing.T) {
	clock := simulator.NewManualClockAt(time.Now().Add(-48 * time.Hour))
	r := newRigOf(t, simulator.Config{Clock: clock})
	r.provisioned(t, "data")
	clock.Advance(48*time.Hour - 30*time.Minute)
	young := r.volume(t, r.cloud, pvcName(newUID()))
	r.config.SafetyAge = 10 * time.Minute
	report := r.examine(t)
	of(t, report, young)
	r.config.SafetyAge = time.Hour // as another Doctor sees it, the finding is too young
	r.fix(t, report, nil)
	if !r.exists(t, young) {
		t.Error("it was removed")
	}
}

func TestFixKeepsWhatIsBusy(t *testing.T) {
	clock := simulator.NewManualClockAt(time.Now().Add(-48 * time.Hour))
	r := newRigOf(t, simulator.Config{Clock: clock, Profile: simulator.Realistic})
	source := r.plain(t, "source")
	clock.Advance(time.Hour)
	begun := r.clone(t, source, pvcName(newUID()), "test") // and the clock stands still: the copy is not finished
	r.apply(t, persistentVolume("pv", driverName, source))
	report := r.examine(t)
	if f := of(t, report, begun); !strings.Contains(f.Kept, "maintenance") {
		t.Errorf("kept: %q", f.Kept)
	}
}

// The backups of a volume outlive it even if its label says otherwise: contents may know them.
func TestFixKeepsBackupsOfWhatItRemoves(t *testing.T) {
	r := newRig(t)
	r.provisioned(t, "data")
	id := r.volume(t, r.cloud, pvcName(newUID()))
	backup := r.backup(t, id, "by hand")
	var now struct {
		Storage struct{ Labels []struct{ Key, Value string } }
	}
	r.sim.Do(t, "GET", "/storage/"+id, "", &now)
	labels := `{"key":"csi-backups-on-delete","value":"delete"}`
	for _, label := range now.Storage.Labels {
		labels += `,{"key":"` + label.Key + `","value":"` + label.Value + `"}`
	}
	r.sim.Do(t, "PUT", "/storage/"+id, `{"storage":{"labels":[`+labels+`]}}`, nil)
	r.fix(t, r.examine(t), nil)
	if r.exists(t, id) || !r.exists(t, backup) {
		t.Errorf("the volume exists: %t, its backup: %t", r.exists(t, id), r.exists(t, backup))
	}
}

func TestFixAsks(t *testing.T) {
	r := newRig(t)
	volumes := []string{r.volume(t, r.cloud, pvcName(newUID())), r.volume(t, r.cloud, pvcName(newUID())), r.volume(t, r.cloud, pvcName(newUID()))}
	report := r.examine(t)
	asked := 0
	r.fix(t, report, func(*doctor.Finding) (bool, error) {
		asked++
		if asked == 3 {
			return true, doctor.ErrStop
		}
		return asked == 2, nil
	})
	left := 0
	for _, id := range volumes {
		if r.exists(t, id) {
			left++
		}
	}
	if asked != 3 || left != 2 || report.Left() != 2 {
		t.Errorf("asked %d times, %d volumes and %d findings are left", asked, left, report.Left())
	}
}

// With the kubeconfig of another cluster everything looks left behind.
func TestFixDoesNotTrustAStrangeCluster(t *testing.T) {
	r := newRig(t)
	id := r.volume(t, r.cloud, pvcName(newUID()))
	if err := r.doctor(t).Fix(testContext(t), r.examine(t), nil); !errors.Is(err, doctor.ErrOtherCluster) {
		t.Errorf("without a question: %v", err)
	}
	if !r.exists(t, id) {
		t.Error("it was removed")
	}
}

func TestFixTellsWhatFailed(t *testing.T) {
	r := newRig(t)
	r.provisioned(t, "data")
	id := r.volume(t, r.cloud, pvcName(newUID()))
	report := r.examine(t)
	defer r.sim.Inject(simulator.Fault{Operation: "DELETE /storage/{uuid}", Status: 403})()
	r.fix(t, report, nil)
	if f := of(t, report, id); f.Outcome != doctor.OutcomeFailed || f.Error == "" || !report.OneFailed() {
		t.Errorf("outcome %s, %q", f.Outcome, f.Error)
	}
}
