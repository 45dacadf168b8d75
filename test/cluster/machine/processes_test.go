package machine

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestFindProcessFindsAGrandchild(t *testing.T) {
	child := exec.Command("sh", "-c", "sleep 1000001 & sleep 1000002 & wait")
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-child.Process.Pid, syscall.SIGKILL)
		_ = child.Wait()
	}()
	var found int
	waitUntil(t, "the grandchild runs", func() (ok bool) {
		pid, err := FindProcess(os.Getpid(), "sleep", "1000002")
		found = pid
		return err == nil
	})
	line, err := os.ReadFile("/proc/" + strconv.Itoa(found) + "/cmdline")
	if err != nil || !strings.Contains(string(line), "1000002") {
		t.Errorf("found process %d: %q, %v", found, line, err)
	}
	if pid, err := FindProcess(os.Getpid(), "sleep"); err == nil {
		t.Errorf("found %d, one of two", pid)
	}
	if pid, err := FindProcess(found, "sleep"); err == nil {
		t.Errorf("found %d below a process that has no children", pid)
	}
}
