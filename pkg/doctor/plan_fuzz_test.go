package doctor_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded/boundedtest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

var costOfPlan = boundedtest.Cost{Bytes: 4 << 20, BytesPerByte: 2000, CPU: 2 * time.Second, CPUPerByte: 50 * time.Microsecond}

const planHead = "subject: storage\nclusterUID: u\nmade: 2030-01-02T03:04:05Z\nfindings:\n"

// planEntry is an entry of a plan in YAML.
func planEntry(id, action string) string {
	return fmt.Sprintf("- {kind: unused-volume, storageID: %q, action: %s, fingerprint: abcd}\n", id, action)
}

// Two entries for one thing would have the one's rules checked and the other's action done.
func TestAPlanThatNamesAThingTwiceIsRefused(t *testing.T) {
	text := planHead + planEntry("01aaaaaa", "mark") + planEntry("01bbbbbb", "remove") + planEntry("01aaaaaa", "remove")
	if _, err := doctor.ParsePlan([]byte(text)); err == nil || !strings.Contains(err.Error(), "two entries for 01aaaaaa, with the actions mark and remove") {
		t.Errorf("two entries: %v", err)
	}
	r := newRig(t)
	r.provisioned(t, "data")
	id := r.volume(t, r.cloud, pvcName(newUID()))
	r.pass(48 * time.Hour)
	plan := planOf(t, r.examine(t))
	set(t, plan, id, doctor.ActionMark)
	for _, entry := range plan.Entries() {
		entry.Action = doctor.ActionRemove
		plan.Findings = append(plan.Findings, entry)
	}
	if _, err := r.examine(t).Apply(testContext(t), plan); err == nil || !strings.Contains(err.Error(), "two entries") {
		t.Errorf("applied: %v", err)
	}
	if !r.exists(t, id) {
		t.Error("what was to be removed in its quarantine only is gone")
	}
}

func TestPlansBeyondTheLimitsAreRefused(t *testing.T) {
	long := strings.Repeat("x", 257)
	for text, want := range map[string]string{
		planHead + planEntry(long, "remove"):                             "storageID of an entry in the plan is too large: 257 bytes, at most 256",
		planHead + planEntry("a", long):                                  "action of an entry in the plan is too large",
		planHead + planEntry("", "remove"):                               "no storageID",
		planHead + strings.Repeat("- {}\n", 200_001):                     "too many entries: 200001, at most 200000",
		"findings: [" + strings.Repeat("1,[", 4_000_001) + "]":           "too many values",
		"findings: &a [x]\nkeptOnPurpose: *a":                            "anchor",
		"findings: " + strings.Repeat("[", 17) + strings.Repeat("]", 17): "nested too deeply",
	} {
		cost := costOfPlan
		if len(text) > 10<<20 { // what is that large is refused before it is parsed
			cost.BytesPerByte = 6
		}
		cost.Within(t, len(text), func() {
			if _, err := doctor.ParsePlan([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 1000 {
				t.Errorf("%.100q: %v, want %s", text, err, want)
			}
		})
	}
}

// FuzzPlan reads plans that a person has edited: at a cost in proportion to their size, and none that passes asks for two things at once.
func FuzzPlan(f *testing.F) {
	for _, text := range []string{
		planHead + planEntry("01aaaaaa", "remove"), planHead + planEntry("01aaaaaa", "keep") + planEntry("01aaaaaa", "mark"),
		`{"subject":"load-balancers","clusterUID":"u","made":"2030-01-02T03:04:05Z","findings":[{"loadBalancerID":"l","action":"restore","fingerprint":"f"}]}`,
		"", "[]", "findings: &a [*a]", "made: yesterday", "findings: 1", "\x00", "? - : ? -", "<<: {findings: []}", "!!binary aGk=",
	} {
		f.Add(text, "- {}\n", uint16(1))
		f.Add(text, "- [", uint16(200))
		f.Add(text, ",", uint16(2000))
	}
	f.Add("*", "0", uint16(2000)) // an error names the alias
	f.Fuzz(func(t *testing.T, head, part string, times uint16) {
		if len(head)+len(part)*int(times) > 256<<10 {
			return
		}
		text := []byte(head + strings.Repeat(part, int(times)))
		var plan *doctor.Plan
		var err error
		costOfPlan.Within(t, len(text), func() { plan, err = doctor.ParsePlan(text) })
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		seen := map[string]bool{}
		for _, entry := range plan.Entries() {
			id := entry.StorageID + entry.CertificateID
			if id != "" && seen[id] || entry.Fingerprint == "" || entry.Action == "" {
				t.Errorf("accepted: %+v", entry)
			}
			seen[id] = true
		}
	})
}
