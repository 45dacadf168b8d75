package doctor_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

// planOf is the report as a file that a person reviews.
func planOf(t *testing.T, report *doctor.Report) *doctor.Plan {
	t.Helper()
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var plan doctor.Plan
	if err := json.Unmarshal(text, &plan); err != nil {
		t.Fatal(err)
	}
	if err := plan.Check(); err != nil {
		t.Fatal(err)
	}
	return &plan
}

// set is a person's edit.
func set(t *testing.T, plan *doctor.Plan, id string, action doctor.Action) {
	t.Helper()
	for _, list := range [][]doctor.PlanEntry{plan.Findings, plan.Kept} {
		for i := range list {
			if list[i].StorageID == id {
				list[i].Action = action
				return
			}
		}
	}
	t.Fatalf("the plan has no %s", id)
}

func (r *rig) applyPlan(t *testing.T, plan *doctor.Plan) *doctor.Report {
	t.Helper()
	done, err := r.examine(t).Apply(testContext(t), plan)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// A person may decide about what nothing proves but that this cluster made it, and about backups; the plan does that, and nothing else.
func TestAPlanIsDoneExactly(t *testing.T) {
	r := newRig(t)
	volume, _ := r.provisioned(t, "data")
	unwanted := r.volume(t, r.cloud, pvcName(newUID()))
	undecided := r.volume(t, r.cloud, pvcName(newUID()))
	backup := r.snapshot(t, r.cloud, "snapshot-"+newUID(), volume)
	r.pass(48 * time.Hour)
	plan := planOf(t, r.examine(t))
	if len(plan.Entries()) != 0 {
		t.Fatalf("without an edit it asks for %v", plan.Entries())
	}
	set(t, plan, unwanted, doctor.ActionQuarantine)
	set(t, plan, backup, doctor.ActionQuarantine)
	if done := r.applyPlan(t, plan); len(done.Findings) != 2 || !strings.Contains(done.Findings[0].Kept, "first looked at") {
		t.Errorf("at once: %d, %s", len(done.Findings), done.Findings[0].Kept)
	}
	r.pass(safetyAge)
	for _, f := range r.applyPlan(t, plan).Findings {
		if f.Outcome != doctor.OutcomeQuarantined {
			t.Errorf("%s: %s %s", f.StorageID, f.Outcome, f.Kept)
		}
	}
	r.fixForLong(t)
	if !r.exists(t, backup) {
		t.Error("a backup was removed without a plan that says so")
	}
	plan = planOf(t, r.examine(t))
	set(t, plan, backup, doctor.ActionRemove)
	r.applyPlan(t, plan)
	if r.exists(t, unwanted) || r.exists(t, backup) || !r.exists(t, undecided) || !r.exists(t, volume) {
		t.Errorf("unwanted %t, backup %t, undecided %t, volume %t", r.exists(t, unwanted), r.exists(t, backup), r.exists(t, undecided), r.exists(t, volume))
	}
}

// Whatever a plan says: what has changed since, is in use, or is not this cluster's stays.
func TestAPlanBreaksNoRule(t *testing.T) {
	cases := map[string]func(t *testing.T, r *rig, id, pv string){
		"attached": func(t *testing.T, r *rig, id, _ string) { r.attach(t, id, r.node(t, "worker-1")) },
		"labelled": func(t *testing.T, r *rig, id, _ string) { r.relabel(t, id, "", "anything", "else") },
		"named":    func(t *testing.T, r *rig, id, pv string) { r.apply(t, persistentVolume(pv, driverName, id)) },
		"titled":   func(t *testing.T, r *rig, id, _ string) { r.relabel(t, id, "mine") },
		"waited": func(t *testing.T, r *rig, _, pv string) {
			r.apply(t, claim(strings.TrimPrefix(pv, "pvc-"), "waiting", ""))
		},
	}
	for name, happen := range cases {
		r := newRig(t)
		r.provisioned(t, "data")
		pv := pvcName(newUID())
		id := r.volume(t, r.cloud, pv)
		r.pass(48 * time.Hour)
		plan := planOf(t, r.examine(t))
		set(t, plan, id, doctor.ActionRemove)
		r.config.Now = true
		happen(t, r, id, pv)
		done := r.applyPlan(t, plan)
		if !r.exists(t, id) || done.Findings[0].Outcome == doctor.OutcomeRemoved {
			t.Errorf("%s: removed", name)
		}
	}
	r := newRig(t)
	r.provisioned(t, "data")
	foreign := r.volume(t, newCloud(t, r.sim, "test"), pvcName(newUID()))
	r.pass(48 * time.Hour)
	plan := planOf(t, r.examine(t))
	set(t, plan, foreign, doctor.ActionRemove)
	r.config.Now = true
	if done := r.applyPlan(t, plan); !r.exists(t, foreign) || !strings.Contains(done.Findings[0].Kept, "no label says") {
		t.Errorf("without a UID: %s %s", done.Findings[0].Outcome, done.Findings[0].Kept)
	}
}

func TestPlansThatSayNothingAreErrors(t *testing.T) {
	for text, says := range map[string]string{
		`{}`:              "clusterUID",
		`{"subject":"x"}`: "clusterUID",
		`{"subject":"x","clusterUID":"u","made":"2030-01-02T03:04:05Z"}`:                                                                         "subject",
		`{"subject":"storage","clusterUID":"u","made":"2030-01-02T03:04:05Z","findings":[{"storageID":"i","action":"purge","fingerprint":"f"}]}`: "purge",
		`{"subject":"storage","clusterUID":"u","made":"2030-01-02T03:04:05Z","findings":[{"storageID":"i","action":"remove"}]}`:                  "fingerprint",
	} {
		var plan doctor.Plan
		if err := json.Unmarshal([]byte(text), &plan); err != nil {
			t.Fatal(err)
		}
		if err := plan.Check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What a person takes back stays for good.
func TestRestoreTakesBack(t *testing.T) {
	r := newRig(t)
	id, pv := r.left(t, "data")
	other, _ := r.left(t, "other")
	r.pass(2 * safetyAge)
	r.fix(t)
	r.pass(safetyAge)
	r.fix(t)
	if title, _ := r.state(t, id); title == pv {
		t.Fatal("it is not in quarantine")
	}
	report, err := r.doctor(t).Restore(testContext(t), []string{id})
	if err != nil || len(report.Findings) != 1 || report.Findings[0].Outcome != doctor.OutcomeRestored {
		t.Fatalf("%v, %v", report, err)
	}
	if title, labels := r.state(t, id); title != pv || labels["keep"] != "restored" || labels[doctor.LabelQuarantine] != "" {
		t.Errorf("restored as %q, %v", title, labels)
	}
	r.fixForLong(t)
	if !r.exists(t, id) || r.exists(t, other) {
		t.Errorf("restored exists %t, the other %t", r.exists(t, id), r.exists(t, other))
	}
	if _, err := r.doctor(t).Restore(testContext(t), []string{newUID()}); err == nil {
		t.Error("an unknown ID was restored")
	}
}

// Each leftover has its price beside it.
func TestFindingsSayWhatTheyCost(t *testing.T) {
	r := newRig(t)
	r.provisioned(t, "data")
	id := r.volume(t, r.cloud, pvcName(newUID()))
	r.pass(48 * time.Hour)
	if f := of(t, r.examine(t), id); f.CreditsPerMonth < 22.6 || f.CreditsPerMonth > 22.7 { // 0.031 credits an hour
		t.Errorf("%f credits", f.CreditsPerMonth)
	}
}

// With credentials of another account every volume looks lost: the error says what it is, as it does of a wrong or a missing ID.
func TestMismatches(t *testing.T) {
	a, b := newRig(t), newRig(t)
	_, pv := a.provisioned(t, "data")
	a.node(t, "worker-1")
	wrong := a.config
	wrong.Cloud = b.cloud
	d, err := doctor.New(wrong)
	if err != nil {
		t.Fatal(err)
	}
	wantMismatch := func(what string, err error, says string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "do not belong together") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = d.Examine(testContext(t))
	wantMismatch("another account", err, "credentials")
	for _, id := range []string{"", "prodction"} {
		a.config.ClusterID = id
		_, err = a.doctor(t).Examine(testContext(t))
		wantMismatch("cluster ID "+id, err, "csi-cluster=test")
	}
	a.config.ClusterID = "test"
	a.change(t, pv, func(v *corev1.PersistentVolume) { v.Spec.CSI.VolumeHandle = newUID() })
	if findings := found(a.examine(t).Findings); len(findings) == 0 {
		t.Error("a volume that is gone is not found where a node shows that the account is the right one")
	}
}
