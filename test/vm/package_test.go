//go:build linux

package vm

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// packageTimeout is for all tests of pkg/disk: without hardware acceleration, and beside other work, each command takes long.
const packageTimeout = time.Hour

// needsMachine tells what makes tests of pkg/disk depend on the kernel and its privileges: the device mapper, the growth of
// mounted ext filesystems, and what the kernel says of broken ones, does for mounts elsewhere, and shows of mount options.
var needsMachine = regexp.MustCompile(`newCryptMachine\(|MayGrowMountedExt\(|\.Condition\(|shutDown\(|occupyStaging\(|OptionConflict\(`)

// testsForMachine names the tests of pkg/disk whose files have such tests, or those that VM_DISK_TESTS asks for.
func testsForMachine(t *testing.T) (pattern string) {
	t.Helper()
	if pattern = os.Getenv("VM_DISK_TESTS"); pattern != "" {
		return pattern
	}
	files, err := filepath.Glob("../../pkg/disk/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !needsMachine.Match(text) {
			continue
		}
		for _, name := range testName.FindAllSubmatch(text, -1) {
			names = append(names, string(name[1]))
		}
	}
	if len(names) == 0 {
		t.Fatal("no test of pkg/disk needs the machine: the way to tell them is out of date")
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

var testName = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// packageRun is a run of tests of pkg/disk in the machine, beside cases.
type packageRun struct {
	results
	done   chan struct{}
	output string
	err    error
}

// startDiskPackage begins with the tests of pkg/disk that find elsewhere neither the device mapper nor every capability. They
// are the short ones, unless VM_DISK_TESTS asks for some. Some of them make mount namespaces, which would have the volumes of the cases
// that run beside them, and keep these in use: so they begin in one that mounts of the machine do not reach.
func (r *rig) startDiskPackage(t *testing.T) *packageRun {
	t.Helper()
	short := "-test.short=" + strconv.FormatBool(os.Getenv("VM_DISK_TESTS") == "")
	run := &packageRun{done: make(chan struct{})}
	pattern := testsForMachine(t)
	r.sh(t, "modprobe loop")
	ctx, cancel := context.WithTimeout(t.Context(), packageTimeout)
	go func() {
		defer close(run.done)
		defer cancel()
		run.output, run.err = r.guest.Run(ctx, run, []string{"TMPDIR=/tmp", "HOME=/tmp"},
			"unshare", "--mount", "--propagation", "private", "/opt/disk.test", "-test.v", short, "-test.run", pattern)
	}()
	t.Cleanup(func() {
		cancel()
		<-run.done
	})
	return run
}

// await tells how the run ended.
func (run *packageRun) await(t *testing.T) {
	t.Helper()
	<-run.done
	for _, line := range run.notes {
		t.Log(line)
	}
	t.Logf("pkg/disk in the machine: %d passed, %d failed, %d skipped", run.passed, run.failed, run.skipped)
	if run.err != nil || run.passed == 0 || run.failed > 0 {
		t.Errorf("the tests of pkg/disk end with:\n%s", run.output[max(0, len(run.output)-4000):])
	}
}

// reasonLines is how much of what a test told before it failed is shown.
const reasonLines = 6

// results counts what a test binary that runs verbosely tells, and notes what did not pass.
type results struct {
	notes                   []string
	passed, failed, skipped int
	rest                    []byte   // of a line that has not ended yet
	last                    []string // lines: before the result of a test that did not pass they say why
}

func (r *results) Write(b []byte) (int, error) {
	r.rest = append(r.rest, b...)
	for {
		line, rest, whole := bytes.Cut(r.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		r.rest = rest
		r.line(strings.TrimSpace(string(line)))
	}
}

func (r *results) line(line string) {
	defer func() { r.last = append(r.last, line)[max(0, len(r.last)+1-reasonLines):] }()
	switch {
	case strings.HasPrefix(line, "--- PASS: "):
		r.passed++
	case strings.HasPrefix(line, "--- FAIL: "):
		r.failed++
		r.notes = append(r.notes, line+":\n"+strings.Join(r.last, "\n"))
	case strings.HasPrefix(line, "--- SKIP: "):
		r.skipped++
		r.notes = append(r.notes, line+": "+strings.Join(r.last[max(0, len(r.last)-1):], ""))
	}
}

func TestResultsAreCounted(t *testing.T) {
	r := &results{}
	for _, part := range []string{"=== RUN   A\n--- PA", "SS: A (0.01s)\n    --- PASS: A/b (0s)\n", "    c_test.go:1: needs more\n--- SKIP: C (0s)\n--- FAIL: D"} {
		if n, err := r.Write([]byte(part)); err != nil || n != len(part) {
			t.Fatal(n, err)
		}
	}
	if r.passed != 2 || r.skipped != 1 || r.failed != 0 {
		t.Errorf("%d passed, %d skipped, %d failed", r.passed, r.skipped, r.failed)
	}
	if len(r.notes) != 1 || r.notes[0] != "--- SKIP: C (0s): c_test.go:1: needs more" {
		t.Errorf("notes: %q", r.notes)
	}
}
