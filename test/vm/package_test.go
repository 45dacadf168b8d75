//go:build linux

package vm

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// packageTimeout is for all tests of pkg/disk: without hardware acceleration, and beside other work, each command takes long.
const packageTimeout = 8 * time.Minute

// The tests of pkg/disk that need the device mapper, or more capabilities than the machine that runs the tests gives, run
// here, and all others, too: half of them beside the other half, as the machine has two processors. VM_DISK_TESTS chooses.
func testDiskPackage(t *testing.T, r *rig) {
	pattern := os.Getenv("VM_DISK_TESTS")
	if pattern == "" {
		pattern = "."
	}
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
			out, err := r.guest.Run(ctx, part, []string{"TMPDIR=/tmp", "HOME=/tmp"}, "/opt/disk.test", "-test.v", "-test.short",
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
