package doctor_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func of(t *testing.T, report *doctor.Report, id string) *doctor.Finding {
	t.Helper()
	for _, f := range slices.Concat(report.Findings, report.Kept, report.Undecided) {
		if f.StorageID == id && f.Removable() {
			return f
		}
	}
	t.Fatalf("no finding about %s among %v", id, found(slices.Concat(report.Findings, report.Kept, report.Undecided)))
	return nil
}

// state is a storage's title and labels.
func (r *rig) state(t *testing.T, id string) (title string, labels map[string]string) {
	t.Helper()
	var answer struct {
		Storage struct {
			Title  string
			Labels []struct{ Key, Value string }
		}
	}
	r.sim.Do(t, "GET", "/storage/"+id, "", &answer)
	labels = map[string]string{}
	for _, label := range answer.Storage.Labels {
		labels[label.Key] = label.Value
	}
	return answer.Storage.Title, labels
}

// A leftover goes away in three steps, each seen in the account, and none before its time.
func TestFixMarksQuarantinesAndRemoves(t *testing.T) {
	r := newRig(t)
	id, pv := r.left(t, "data")
	r.pass(48 * time.Hour)

	r.fix(t)
	title, labels := r.state(t, id)
	if title != pv || labels[doctor.LabelLeft] == "" {
		t.Fatalf("after the first look: %q, %v", title, labels)
	}
	r.pass(safetyAge - time.Minute)
	if f := of(t, r.fix(t), id); f.Outcome != doctor.OutcomeWaiting || f.Due == nil {
		t.Errorf("before the safety age is over: %s", f.Outcome)
	}
	r.pass(time.Minute)
	r.fix(t)
	title, labels = r.state(t, id)
	if !strings.Contains(title, "to be removed after 2030-01-") || !strings.HasSuffix(title, pv) || labels[doctor.LabelQuarantine] == "" || labels[doctor.LabelLeft] != "" {
		t.Fatalf("in quarantine: %q, %v", title, labels)
	}
	r.pass(quarantine - time.Minute)
	if r.fix(t); !r.exists(t, id) {
		t.Fatal("removed before the quarantine was over")
	}
	r.pass(time.Minute)
	report := r.fix(t)
	if r.exists(t, id) || of(t, report, id).Outcome != doctor.OutcomeRemoved || report.Left() != 0 {
		t.Errorf("after the quarantine: %s", of(t, report, id).Outcome)
	}
	var steps []string
	for _, entry := range r.journal {
		steps = append(steps, string(entry.Action)+" "+entry.Outcome)
	}
	if want := []string{"mark begun", "mark done", "quarantine begun", "quarantine done", "remove begun", "remove done"}; !slices.Equal(steps, want) {
		t.Errorf("the journal has %v", steps)
	}
}

// What is wanted again at any stage is given back as it was, and never removed.
func TestWhatIsWantedAgainIsRestored(t *testing.T) {
	for _, stage := range []doctor.Stage{doctor.StageMarked, doctor.StageQuarantine} {
		r := newRig(t)
		id, pv := r.left(t, "data")
		before, labels := r.state(t, id)
		r.pass(48 * time.Hour)
		r.fix(t)
		if stage == doctor.StageQuarantine {
			r.pass(safetyAge)
			r.fix(t)
		}
		r.apply(t, persistentVolume(pv, driverName, id))
		report := r.examine(t)
		if f := of(t, report, id); f.Kind != doctor.WantedAgain || f.Stage != stage {
			t.Errorf("%s: %s in stage %s", stage, f.Kind, f.Stage)
		}
		r.fix(t)
		if title, now := r.state(t, id); title != before || len(now) != len(labels) {
			t.Errorf("%s: restored as %q, %v", stage, title, now)
		}
		r.fixForLong(t)
		if !r.exists(t, id) {
			t.Errorf("%s: it was removed", stage)
		}
	}
}

func TestNowSkipsTheWaitsAndNoOtherRule(t *testing.T) {
	r := newRig(t)
	id, _ := r.left(t, "data")
	attached, _ := r.left(t, "attached")
	r.attach(t, attached, r.node(t, "worker-1"))
	unproven := r.volume(t, newCloud(t, r.sim, "test"), pvcName(newUID()))
	r.pass(2 * safetyAge)
	r.config.Now = true
	r.fix(t)
	if r.exists(t, id) || !r.exists(t, attached) || !r.exists(t, unproven) {
		t.Errorf("left: %t, attached: %t, unproven: %t", r.exists(t, id), r.exists(t, attached), r.exists(t, unproven))
	}
}

// Whatever happens between the look and the step is seen before the step.
func TestFixLooksAgain(t *testing.T) {
	cases := []struct {
		name   string
		happen func(t *testing.T, r *rig, id, pv string)
	}{
		{"attached", func(t *testing.T, r *rig, id, _ string) { r.attach(t, id, r.node(t, "worker-1")) }},
		{"made a PersistentVolume", func(t *testing.T, r *rig, id, _ string) { r.apply(t, persistentVolume("rescued", driverName, id)) }},
		{"made another driver's PersistentVolume", func(t *testing.T, r *rig, id, _ string) {
			r.apply(t, persistentVolume("rescued", "other.example", upper(id)))
		}},
		{"named by a content", func(t *testing.T, r *rig, id, _ string) {
			r.apply(t, snapshotContent("content-1", driverName, "", id, ""))
		}},
		{"waited for", func(t *testing.T, r *rig, _, pv string) {
			r.apply(t, claim(strings.TrimPrefix(pv, "pvc-"), "waiting", ""))
		}},
		{"given another title", func(t *testing.T, r *rig, id, _ string) {
			r.sim.Do(t, "PUT", "/storage/"+id, `{"storage":{"title":"wanted"}}`, nil)
		}},
		{"made a favourite", func(t *testing.T, r *rig, id, _ string) { r.sim.Do(t, "POST", "/storage/"+id+"/favorite", "", nil) }},
		{"nothing", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			id, pv := r.left(t, "data")
			r.pass(2 * safetyAge)
			r.config.Now = true
			report := r.examine(t)
			if f := of(t, report, id); f.Action != doctor.ActionRemove {
				t.Fatalf("%s: %s", f.Action, f.Kept)
			}
			if err := report.Fix(testContext(t), func(*doctor.Finding) (bool, error) {
				if c.happen != nil {
					c.happen(t, r, id, pv)
				}
				return true, nil
			}); err != nil {
				t.Fatal(err)
			}
			if r.exists(t, id) != (c.happen != nil) {
				t.Errorf("exists: %t", r.exists(t, id))
			}
		})
	}
}

func TestFixAsks(t *testing.T) {
	r := newRig(t)
	var volumes []string
	for _, name := range []string{"a", "b", "c"} {
		id, _ := r.left(t, name)
		volumes = append(volumes, id)
	}
	r.pass(2 * safetyAge)
	r.config.Now = true
	report, asked := r.examine(t), 0
	if err := report.Fix(testContext(t), func(*doctor.Finding) (bool, error) {
		asked++
		if asked == 3 {
			return true, doctor.ErrStop
		}
		return asked == 2, nil
	}); err != nil {
		t.Fatal(err)
	}
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

// The report says what failed and what to do: nothing repeats it.
func TestFixReportsWhatFailed(t *testing.T) {
	for _, fault := range []simulator.Fault{{Status: 403}, {Status: 409, Code: "STORAGE_STATE_ILLEGAL"}} {
		r := newRig(t)
		id, _ := r.left(t, "data")
		r.pass(2 * safetyAge)
		r.config.Now = true
		fault.Operation = "DELETE /storage/{uuid}"
		undo := r.sim.Inject(fault)
		report := r.fix(t)
		undo()
		f := of(t, report, id)
		if f.Outcome != doctor.OutcomeFailed || f.Error == "" || !report.OneFailed() {
			t.Errorf("outcome %s, %q", f.Outcome, f.Error)
		}
		if strings.Contains(f.Error, "by itself") || fault.Status == 409 && !strings.Contains(f.Error, "run upcloud-doctor again") {
			t.Errorf("the error says %q", f.Error)
		}
	}
}

// A journal that cannot be written stops the run before anything is changed.
func TestWhatCannotBeNotedIsNotDone(t *testing.T) {
	r := newRig(t)
	id, _ := r.left(t, "data")
	r.pass(2 * safetyAge)
	r.config.Now = true
	full := errors.New("no space left on device")
	r.config.Journal = func(doctor.Entry) error { return full }
	if err := r.examine(t).Fix(testContext(t), nil); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	if !r.exists(t, id) {
		t.Error("it was removed")
	}
}

// An answer that is lost, or a run that ends in the middle, leaves nothing that the next run does not go on from.
func TestInterruptedRunsAreGoneOnWith(t *testing.T) {
	for _, operation := range []string{"PUT /storage/{uuid}", "DELETE /storage/{uuid}"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprint(operation, " with its effect ", after), func(t *testing.T) {
				t.Parallel() // the client waits between its tries
				r := newRig(t)
				id, _ := r.left(t, "data")
				wanted, _ := r.provisioned(t, "wanted")
				undo := r.sim.Inject(simulator.Fault{Operation: operation, Status: 500, AfterEffect: after, Count: 5})
				r.fixForLong(t)
				undo()
				r.fixForLong(t)
				if r.exists(t, id) || !r.exists(t, wanted) {
					t.Errorf("left exists %t, wanted %t", r.exists(t, id), r.exists(t, wanted))
				}
			})
		}
	}
}
