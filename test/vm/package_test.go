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
	"sync"
	"testing"
	"time"
)

// packageTimeout is for all tests of pkg/disk: without hardware acceleration, and beside other work, each command takes long.
const packageTimeout = 8 * time.Minute

// needsMachine tells what makes tests of pkg/disk depend on the kernel and its privileges: the device mapper, the growth of
// mounted ext filesystems, and what the kernel says of broken ones.
var needsMachine = regexp.MustCompile(`newCryptMachine\(|MayGrowMountedExt\(|\.Condition\(`)

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

// Tests of pkg/disk that find elsewhere neither the device mapper nor every capability run here, one half beside the other,
// as the machine has two processors. They are the short ones, unless VM_DISK_TESTS asks for some.
func testDiskPackage(t *testing.T, r *rig) {
	pattern := testsForMachine(t)
	var halves [2][]string
	for i, name := range strings.Fields(r.sh(t, "modprobe loop; /opt/disk.test -test.list '%s'", pattern)) {
		halves[i%2] = append(halves[i%2], name)
	}
	var all results
	var running sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), packageTimeout)
	defer cancel()
	for _, names := range halves {
		running.Go(func() {
			part := &results{t: t}
			out, err := r.guest.Run(ctx, part, []string{"TMPDIR=/tmp", "HOME=/tmp"}, "/opt/disk.test", "-test.v",
				"-test.short="+strconv.FormatBool(os.Getenv("VM_DISK_TESTS") == ""),
				"-test.run", "^("+strings.Join(names, "|")+")$")
			if err != nil {
				t.Errorf("tests of pkg/disk end with (%v):\n%s", ctx.Err(), out[max(0, len(out)-4000):])
			}
			all.add(part)
		})
	}
	running.Wait()
	t.Logf("pkg/disk in the machine: %d passed, %d failed, %d skipped", all.passed, all.failed, all.skipped)
	if all.passed == 0 || all.failed > 0 {
		t.Error("not all is well with pkg/disk")
	}
}

// reasonLines is how much of what a test told before it failed is shown.
const reasonLines = 6

// results counts what a test binary that runs verbosely tells, and shows what did not pass as it comes.
type results struct {
	t                       *testing.T
	mu                      sync.Mutex // of add
	passed, failed, skipped int
	rest                    []byte   // of a line that has not ended yet
	last                    []string // lines: before the result of a test that did not pass they say why
}

func (r *results) add(part *results) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed, r.failed, r.skipped = r.passed+part.passed, r.failed+part.failed, r.skipped+part.skipped
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
		r.t.Logf("%s:\n%s", line, strings.Join(r.last, "\n"))
	case strings.HasPrefix(line, "--- SKIP: "):
		r.skipped++
		r.t.Logf("%s: %s", line, strings.Join(r.last[max(0, len(r.last)-1):], ""))
	}
}

func TestResultsAreCounted(t *testing.T) {
	r := &results{t: t}
	for _, part := range []string{"=== RUN   A\n--- PA", "SS: A (0.01s)\n    --- PASS: A/b (0s)\n", "    c_test.go:1: needs more\n--- SKIP: C (0s)\n--- FAIL: D"} {
		if n, err := r.Write([]byte(part)); err != nil || n != len(part) {
			t.Fatal(n, err)
		}
	}
	if r.passed != 2 || r.skipped != 1 || r.failed != 0 {
		t.Errorf("%d passed, %d skipped, %d failed", r.passed, r.skipped, r.failed)
	}
}
