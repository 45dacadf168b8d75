//go:build linux

package vm

import (
	"bytes"
	"strings"
	"testing"
)

// The tests of pkg/disk that need the device mapper, or more capabilities than the machine that runs the tests gives, run here.
func testDiskPackage(t *testing.T, r *rig) {
	results := &results{t: t}
	out, err := r.guest.Run(callContext(t), results, []string{"TMPDIR=/tmp", "HOME=/tmp"}, "sh", "-c",
		"modprobe loop && cd /tmp && exec /opt/disk.test -test.v -test.timeout 10m")
	t.Logf("pkg/disk in the machine: %d passed, %d failed, %d skipped", results.passed, results.failed, results.skipped)
	if err != nil || results.passed == 0 || results.failed > 0 {
		t.Errorf("the tests of pkg/disk end with:\n%s", out[max(0, len(out)-4000):])
	}
}

// results counts what a test binary that runs verbosely tells, and shows what did not pass as it comes.
type results struct {
	t                       *testing.T
	passed, failed, skipped int
	rest                    []byte // of a line that has not ended yet
	last                    string // line: before the result of a skipped test it is the reason
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
	defer func() { r.last = line }()
	switch {
	case strings.HasPrefix(line, "--- PASS: "):
		r.passed++
	case strings.HasPrefix(line, "--- FAIL: "):
		r.failed++
		r.t.Log(line)
	case strings.HasPrefix(line, "--- SKIP: "):
		r.skipped++
		r.t.Logf("%s: %s", line, r.last)
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
