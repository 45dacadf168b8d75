package disk_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// hangingMkfs has mkfs.ext4 hang for the devices that are named in a file, until the test ends. It returns the file, and what waits
// for the process that hangs for a device.
func (m *machine) hangingMkfs(t *testing.T) (hang func(dev string), process func(dev string) int) {
	t.Helper()
	real, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Fatal(err)
	}
	folder, notes := t.TempDir(), t.TempDir()
	script := "#!/bin/sh\nfor argument; do\n  case $argument in /dev/*)\n    if [ -e " + notes + "$argument ]; then\n" +
		"      echo $$ >" + notes + "$argument.new && mv " + notes + "$argument.new " + notes + "$argument.pid\n      exec sleep 600\n    fi ;;\n" +
		"  esac\ndone\nexec " + real + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(folder, "mkfs.ext4"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
	hang = func(dev string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(notes+dev), 0o755), os.WriteFile(notes+dev, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return hang, func(dev string) int {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if text, err := os.ReadFile(notes + dev + ".pid"); err == nil {
				pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
				if err != nil {
					t.Fatal(err)
				}
				return pid
			}
			if time.Now().After(deadline) {
				t.Fatalf("mkfs was not run for %s", dev)
			}
		}
	}
}

// hangFormats has two volumes be formatted by an mkfs that hangs, and returns them and their processes.
func (m *machine) hangFormats(t *testing.T) (volumes []disk.Volume, processes []int) {
	t.Helper()
	hang, process := m.hangingMkfs(t)
	outcomes := make(chan error)
	for i := range 2 {
		vol, dev := m.attach(t, 64, nil)
		hang(dev)
		go func() {
			outcomes <- m.Stage(context.Background(), disk.StageRequest{Volume: vol, Path: m.path(fmt.Sprintf("hung-%d", i))})
		}()
		volumes, processes = append(volumes, vol), append(processes, process(dev))
	}
	t.Cleanup(func() {
		for _, pid := range processes {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Error(err)
			}
		}
		for range processes {
			if err := <-outcomes; err == nil {
				t.Error("staged by an mkfs that hangs")
			}
		}
	})
	return volumes, processes
}

// One disk that does not answer stops no other.
func TestFormatsThatHangDoNotKeepOthersFromTheirs(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	m.WithStallTime(200 * time.Millisecond)
	m.hangFormats(t)
	for i := range 3 {
		vol, _ := m.attach(t, 64, nil)
		if err := m.Stage(context.Background(), disk.StageRequest{Volume: vol, Path: m.path(fmt.Sprintf("staging-%d", i))}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhoWaitsToBeFormattedLearnsForWhom(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	hung, processes := m.hangFormats(t)
	vol, _ := m.attach(t, 64, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	req := disk.StageRequest{Volume: vol, Path: m.path("staging")}
	err := m.Stage(ctx, req)
	requireNames(t, err, vol.ID, hung[0].ID, hung[1].ID, "mkfs.ext4", strconv.Itoa(processes[0]), strconv.Itoa(processes[1]), "since 20")
	m.WithStallTime(time.Millisecond)
	if err := m.Stage(context.Background(), req); err != nil {
		t.Error(err)
	}
}

func TestWhoWaitsForABusyVolumeLearnsWhatItDoes(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	hung, processes := m.hangFormats(t)
	for _, call := range map[string]func(ctx context.Context) error{
		"the same again": func(ctx context.Context) error {
			return m.Stage(ctx, disk.StageRequest{Volume: hung[0], Path: m.path("hung-0")})
		},
		"another stage": func(ctx context.Context) error {
			return m.Stage(ctx, disk.StageRequest{Volume: hung[0], Path: m.path("elsewhere")})
		},
		"unstage": func(ctx context.Context) error { return m.Unstage(ctx, hung[0].ID, m.path("hung-0")) },
	} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err := call(ctx)
		cancel()
		requireNames(t, err, hung[0].ID, "mkfs.ext4", strconv.Itoa(processes[0]), "since 20")
	}
}

func TestWhoWaitsForADeviceLearnsWhich(t *testing.T) {
	m := newMachine(t, time.Hour)
	vol := disk.Volume{ID: "01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := m.Stage(ctx, disk.StageRequest{Volume: vol, Path: m.path("staging")})
	requireNames(t, err, vol.ID, "no link")
}

// An error that comes at the deadline is lost: the caller has left.
func TestWhoWaitsIsAnsweredBeforeTheDeadline(t *testing.T) {
	for patience, margin := range map[time.Duration]time.Duration{time.Hour: time.Second, 2 * time.Minute: time.Second, time.Minute: time.Second} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		waiting, end := disk.AnswerBefore(ctx)
		deadline, _ := ctx.Deadline()
		if until, ok := waiting.Deadline(); !ok || deadline.Sub(until) != margin {
			t.Errorf("with %s the answer comes %s before the deadline, want %s", patience, deadline.Sub(until), margin)
		}
		end()
		cancel()
	}
	waiting, end := disk.AnswerBefore(context.Background())
	defer end()
	if until, ok := waiting.Deadline(); ok {
		t.Errorf("without a deadline the answer comes at %s", until)
	}
}

// requireNames checks an error that is due to the end of the caller's patience.
func requireNames(t *testing.T, err error, names ...string) {
	t.Helper()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the deadline", err)
	}
	for _, name := range names {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
}
