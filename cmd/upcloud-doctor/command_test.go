package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

func TestExitStatusTellsWhatWasFound(t *testing.T) {
	w := newWorld(t)
	known := w.volume(t, "pvc-known")
	w.cluster(t, known)
	out, _, exit, err := w.storage(t, "")
	if exit != 0 || err != nil || !strings.Contains(out, "Nothing was left behind") {
		t.Errorf("nothing to find: %d, %v\n%s", exit, err, out)
	}
	orphan := w.volume(t, "pvc-orphan")
	w.clock.Advance(48 * time.Hour)
	out, _, exit, _ = w.storage(t, "")
	for _, want := range []string{orphan, "pvc-orphan", "no PersistentVolume knows: 1", "1 GiB", "fi-hel1", "Findings: 1"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table has no %q:\n%s", want, out)
		}
	}
	if exit != statusFindings || strings.Contains(out, known) {
		t.Errorf("exit status %d:\n%s", exit, out)
	}
	w.kubeconfig = kubeconfig(t, "http://127.0.0.1:1")
	if _, _, exit, err := w.storage(t, ""); exit != statusError || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("no API server: %d, %v", exit, err)
	}
}

func TestJSON(t *testing.T) {
	w := newWorld(t)
	w.cluster(t)
	orphan := w.volume(t, "pvc-orphan")
	w.clock.Advance(48 * time.Hour)
	out, _, exit, _ := w.storage(t, "", "--output", "json")
	var report struct {
		Findings  []struct{ Kind, StorageID, Title, Claim string }
		Undecided []any
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if exit != statusFindings || len(report.Findings) != 1 || report.Findings[0].StorageID != orphan ||
		report.Findings[0].Kind != "orphan-volume" || report.Undecided == nil {
		t.Errorf("%d: %s", exit, out)
	}
}

func TestFixAsksAndTells(t *testing.T) {
	w := newWorld(t)
	w.cluster(t, w.volume(t, "pvc-known"))
	first, second := w.left(t, "pvc-1"), w.left(t, "pvc-2")
	w.clock.Advance(48 * time.Hour)
	out, questions, exit, err := w.storage(t, "maybe\nyes\n", "--fix", "--now")
	if exit != statusFindings || strings.Count(questions, "Delete storage") != 2 || !strings.Contains(out, "removed") {
		t.Fatalf("%d, %v\n%s\n%s", exit, err, questions, out)
	}
	if w.exists(t, first) == w.exists(t, second) {
		t.Errorf("one yes was said: %t, %t are left", w.exists(t, first), w.exists(t, second))
	}
	if _, _, exit, err := w.storage(t, "", "--fix", "--now"); exit != statusError || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("no answer: %d, %v", exit, err)
	}
	if out, _, exit, err := w.storage(t, "", "--fix", "--now", "--yes", "-o", "json"); exit != 0 || !json.Valid([]byte(out)) {
		t.Errorf("with --yes: %d, %v\n%s", exit, err, out)
	}
	if w.exists(t, first) || w.exists(t, second) {
		t.Error("something is left")
	}
}

// Ctrl-C at a question ends the program at once, with the report of what was done before.
func TestInterruptAtAQuestionEndsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.cluster(t, w.volume(t, "pvc-known"))
	w.left(t, "pvc-1")
	w.left(t, "pvc-2")
	w.clock.Advance(48 * time.Hour)
	answers, typing := io.Pipe()
	t.Cleanup(func() { typing.Close() })
	ctx, interrupt := context.WithCancel(t.Context())
	journal := filepath.Join(t.TempDir(), "journal")
	command, out, questions := newCommand(), &syncBuffer{}, &syncBuffer{}
	command.SetIn(answers)
	command.SetOut(out)
	command.SetErr(questions)
	command.SetArgs([]string{"storage", "--kubeconfig", w.kubeconfig, "--cluster-id", "test", "--fix", "--now", "--journal", journal})
	ended := make(chan error, 1)
	go func() { ended <- command.ExecuteContext(ctx) }()
	if _, err := typing.Write([]byte("yes\n")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); strings.Count(questions.String(), "Delete storage") < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("there was no second question")
		}
	}
	interrupt()
	select {
	case err := <-ended:
		if status(err) != statusInterrupted {
			t.Errorf("error %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	if !strings.Contains(out.String(), "removed") {
		t.Errorf("the report does not say what was removed:\n%s", out)
	}
	text, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"outcome":"begun"`) || !strings.Contains(lines[1], `"outcome":"done"`) {
		t.Errorf("the journal has %s", text)
	}
}

// syncBuffer is a buffer that is written and read at one time.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// A report is a plan: with an edit, apply does what it says, and restore takes it back.
func TestApplyAndRestore(t *testing.T) {
	w := newWorld(t)
	w.cluster(t, w.volume(t, "pvc-known"))
	unwanted, wanted := w.volume(t, "pvc-unwanted"), w.volume(t, "pvc-wanted")
	w.clock.Advance(48 * time.Hour)
	for _, form := range []string{"yaml", "json"} {
		out, _, _, err := w.storage(t, "", "--output", form)
		if !errors.Is(err, errFindings) {
			t.Fatal(err)
		}
		plan := filepath.Join(t.TempDir(), "plan")
		var report doctor.Plan
		if err := yaml.Unmarshal([]byte(out), &report); err != nil {
			t.Fatal(err)
		}
		for i := range report.Findings {
			if report.Findings[i].StorageID == unwanted {
				report.Findings[i].Action = doctor.ActionQuarantine
			}
		}
		edited, err := yaml.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(plan, edited, 0o600); err != nil {
			t.Fatal(err)
		}
		w.clock.Advance(2 * time.Hour)
		args := []string{"apply", plan, "--kubeconfig", w.kubeconfig, "--cluster-id", "test"}
		if out, errOut, exit, err := execute(t, "", args...); exit != statusFindings || !strings.Contains(out, "quarantined") {
			t.Errorf("apply: %d, %v\n%s%s", exit, err, out, errOut)
		}
		args = []string{"restore", unwanted, "--kubeconfig", w.kubeconfig, "--cluster-id", "test"}
		if out, errOut, exit, err := execute(t, "", args...); exit != 0 || !strings.Contains(out, "restored") {
			t.Errorf("restore: %d, %v\n%s%s", exit, err, out, errOut)
		}
		w.sim.Do(t, "PUT", "/storage/"+unwanted, `{"storage":{"labels":[{"key":"csi-name","value":"pvc-unwanted"},{"key":"csi-cluster","value":"test"},
			{"key":"csi-cluster-uid","value":"`+clusterUID+`"}]}}`, nil) // as it was
	}
	if !w.exists(t, unwanted) || !w.exists(t, wanted) {
		t.Error("something was removed")
	}
}

// A plan in which one value stands for another is refused before it is read: a small one could stand for more than memory holds.
func TestPlanWithReferencesIsRefused(t *testing.T) {
	plan := filepath.Join(t.TempDir(), "plan")
	if err := os.WriteFile(plan, []byte("findings: [&f {id: x}, *f]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readPlan(plan); err == nil || !strings.Contains(err.Error(), "plan "+plan+": line 1: YAML anchor &f is not allowed") {
		t.Errorf("error %v", err)
	}
	if _, err := readPlan("/dev/zero"); err == nil || !strings.Contains(err.Error(), "/dev/zero is too large") {
		t.Errorf("error %v", err)
	}
}

// Routes are listed, and nothing can be done to them.
func TestRoutesCommandLists(t *testing.T) {
	w := newWorld(t)
	w.cluster(t)
	w.sim.Do(t, "POST", "/router", `{"router":{"name":"shared","static_routes":[{"name":"ccm-00112233-001122334455-4","route":"10.1.0.0/24","nexthop":"172.16.9.9"}]}}`, nil)
	out, _, exit, err := execute(t, "", "routes", "--kubeconfig", w.kubeconfig)
	if exit != statusFindings || !strings.Contains(out, "10.1.0.0/24 via 172.16.9.9, which is no server's address") {
		t.Errorf("%d, %v\n%s", exit, err, out)
	}
	if _, _, exit, err := execute(t, "", "routes", "--fix"); exit != statusError || !strings.Contains(err.Error(), "--fix") {
		t.Errorf("--fix: %d, %v", exit, err)
	}
}

// What is not of one cluster has an exit status of its own.
func TestAMismatchHasItsOwnExitStatus(t *testing.T) {
	w := newWorld(t)
	w.cluster(t, w.volume(t, "pvc-known"))
	_, _, exit, err := w.storage(t, "", "--cluster-id", "other")
	if exit != statusMismatch || !strings.Contains(err.Error(), "csi-cluster=test") {
		t.Errorf("a wrong cluster ID: %d, %v", exit, err)
	}
	w.cluster(t, "01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee")
	w.sim.Do(t, "DELETE", "/storage/"+w.only(t), "", nil)
	if _, _, exit, err := w.storage(t, ""); exit != statusMismatch || !strings.Contains(err.Error(), "credentials") {
		t.Errorf("another account: %d, %v", exit, err)
	}
}

// only is the ID of the only storage.
func (w *world) only(t *testing.T) string {
	t.Helper()
	all, err := w.account.Inventory(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	return all[0].ID
}

func TestStartUpErrorsAreOneLineThatNamesTheSetting(t *testing.T) {
	cases := []struct {
		name        string
		environment map[string]string
		args        []string
		says        []string
	}{
		{"no credentials", map[string]string{"UPCLOUD_TOKEN": ""}, []string{"storage"}, []string{"UPCLOUD_TOKEN", "--credentials-dir"}},
		{"wrong credentials", map[string]string{"UPCLOUD_TOKEN": "ucat_wrong"}, []string{"storage"}, []string{"UPCLOUD_TOKEN"}},
		{"no listener", map[string]string{"UPCLOUD_DEBUG_API_BASE_URL": "http://127.0.0.1:1"}, []string{"storage"}, []string{"UPCLOUD_DEBUG_API_BASE_URL"}},
		{"no folder", nil, []string{"storage", "--credentials-dir", "/no/such/folder"}, []string{"/no/such/folder"}},
		{"no API server", nil, []string{"storage"}, []string{"--kubeconfig", "Pod"}},
		{"no kubeconfig", nil, []string{"storage", "--kubeconfig", "/no/such/file"}, []string{"--kubeconfig", "/no/such/file"}},
		{"no kubeconfig in it", nil, []string{"storage", "--kubeconfig", "command_test.go"}, []string{"--kubeconfig", "command_test.go"}},
		{"no such context", nil, []string{"storage", "--kubeconfig", "KUBECONFIG", "--context", "nowhere"}, []string{"nowhere"}},
		{"no such form", nil, []string{"storage", "--output", "xml"}, []string{"--output", "xml", "json"}},
		{"yes to nothing", nil, []string{"storage", "--yes"}, []string{"--yes", "--fix"}},
		{"unclaimed things removed", nil, []string{"storage", "--unclaimed", "remove"}, []string{"--unclaimed", "never removed"}},
		{"no plan", nil, []string{"apply"}, []string{"plan"}},
		{"no such plan", nil, []string{"apply", "/no/such/plan"}, []string{"/no/such/plan"}},
		{"no plan in it", nil, []string{"apply", "command_test.go"}, []string{"command_test.go"}},
		{"unclaimed", nil, []string{"storage", "--unclaimed", "keep"}, []string{"--unclaimed", "keep", "ignore"}},
		{"negative age", nil, []string{"storage", "--safety-age", "-1h"}, []string{"--safety-age"}},
		{"no driver", nil, []string{"storage", "--driver-name", ""}, []string{"--driver-name"}},
		{"a bad cluster ID", nil, []string{"storage", "--cluster-id", "a\nb"}, []string{"cluster ID"}},
		{"unknown flag", nil, []string{"storage", "--purge"}, []string{"--purge", "--help"}},
		{"no command", nil, nil, []string{"storage", "--help"}},
		{"another command", nil, []string{"network"}, []string{"network", "storage"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			for name, value := range c.environment {
				t.Setenv(name, value)
			}
			for i, arg := range c.args {
				if arg == "KUBECONFIG" {
					c.args[i] = w.kubeconfig
				}
			}
			out, errOut, exit, err := execute(t, "", c.args...)
			if err == nil || exit != statusError {
				t.Fatalf("exit status %d, %v", exit, err)
			}
			if out+errOut != "" || strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q, %v", out+errOut, err)
			}
			for _, word := range c.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %s: %v", word, err)
				}
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"storage", "--help"}} {
		help, _, exit, err := execute(t, "", args...)
		if err != nil || exit != 0 {
			t.Fatal(err)
		}
		for _, want := range []string{"Usage:", "Examples:", "--help", "General:"} {
			if !strings.Contains(help, want) {
				t.Errorf("%v has no %s", args, want)
			}
		}
	}
	if version, _, _, err := execute(t, "", "--version"); err != nil || !strings.HasPrefix(version, "upcloud-doctor ") {
		t.Errorf("%q, %v", version, err)
	}
}
