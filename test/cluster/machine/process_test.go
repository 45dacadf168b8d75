package machine

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary play the owner of a child process.
func TestMain(m *testing.M) {
	if os.Getenv("MACHINE_TEST_OWNER") != "" {
		child, err := NewSpawner().Start(Program{Name: "child", Args: []string{"sleep", "infinity"}, LogDir: os.TempDir()})
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(strconv.Itoa(child.PID()) + "\n")
		select {}
	}
	os.Exit(m.Run())
}

func TestChildrenDieWithAKilledOwner(t *testing.T) {
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), "MACHINE_TEST_OWNER=1", "TMPDIR="+t.TempDir())
	output, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("the child does not run: %v", err)
	}
	_ = owner.Process.Kill()
	_ = owner.Wait()
	waitUntil(t, "the child has ended", func() bool { return !running(child) })
}

func TestStopKillsWhatDoesNotEnd(t *testing.T) {
	process, err := NewSpawner().Start(Program{Name: "stubborn", LogDir: t.TempDir(),
		Args: []string{"sh", "-c", `trap "" TERM; echo ready; while :; do sleep 0.05; done`}})
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the process has set its trap", func() bool {
		log, _ := os.ReadFile(process.LogPath)
		return strings.Contains(string(log), "ready")
	})
	process.Stop(t.Context(), 100*time.Millisecond)
	if running(process.PID()) {
		t.Error("the process still runs after Stop")
	}
	if process.Err() == nil || !strings.Contains(process.Err().Error(), process.LogPath) {
		t.Errorf("Err does not say where the log is: %v", process.Err())
	}
}

// running tells whether the process runs; one that has ended and waits to be collected does not.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return fields[0] != "Z"
}

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited 20 s until %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestRemoveCgroupsEndsWhatRunsInThem(t *testing.T) {
	needRoot(t)
	const name = "upcloud-test-cgroup"
	if err := MakeCgroups(name); err != nil {
		t.Skipf("no cgroups can be made here: %v", err)
	}
	sleeper := exec.Command("sleep", "infinity")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = sleeper.Wait() // killed, by what is tested
	}()
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, hierarchy := range hierarchies {
		inner := hierarchy + "/" + name + "/inner"
		if err := os.Mkdir(inner, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := inheritCgroup(hierarchy+"/"+name, inner); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(inner+"/cgroup.procs", []byte(strconv.Itoa(sleeper.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveCgroups(name); err != nil {
		t.Fatal(err)
	}
	<-ended
	for _, hierarchy := range hierarchies {
		if _, err := os.Stat(hierarchy + "/" + name); err == nil {
			t.Errorf("%s/%s is still there", hierarchy, name)
		}
	}
}
