package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// asProgram makes this test binary the program.
const asProgram = "UPCLOUD_DOCTOR_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// A program that is killed in the middle of a removal has said what was removed before, and what it had begun, on the terminal and on disk.
func TestTheReportSurvivesACrash(t *testing.T) {
	w := newWorld(t)
	w.cluster(t, w.volume(t, "pvc-known"))
	w.left(t, "pvc-1")
	w.left(t, "pvc-2")
	w.clock.Advance(48 * time.Hour)
	journal := filepath.Join(t.TempDir(), "journal")
	program := exec.Command(os.Args[0], "storage", "--kubeconfig", w.kubeconfig, "--cluster-id", "test", "--fix", "--now", "--journal", journal)
	program.Env = append(os.Environ(), asProgram+"=1")
	answers, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	printed, err := program.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	giveUp := time.AfterFunc(time.Minute, func() { _ = program.Process.Kill() })
	defer giveUp.Stop()

	var said []string
	lines := bufio.NewScanner(printed)
	until := func(outcome string) {
		for lines.Scan() {
			said = append(said, lines.Text())
			if strings.Contains(lines.Text(), outcome) {
				return
			}
		}
		t.Fatalf("it ended before it said %q: %q", outcome, said)
	}
	if _, err := answers.Write([]byte("yes\n")); err != nil {
		t.Fatal(err)
	}
	until("done: remove orphan-volume")
	defer w.sim.Inject(simulator.Fault{Operation: "DELETE /storage/{uuid}", Latency: time.Hour})()
	if _, err := answers.Write([]byte("yes\n")); err != nil {
		t.Fatal(err)
	}
	until("begun: remove orphan-volume")
	if err := program.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = program.Wait()
	text, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	entries := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(entries) != 3 || !strings.Contains(entries[1], `"outcome":"done"`) || !strings.Contains(entries[2], `"outcome":"begun"`) {
		t.Errorf("the journal has %s", text)
	}
}
