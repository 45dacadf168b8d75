package disk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// work is what a process of its own does, to be killed in the middle.
type work struct {
	DeviceDir string
	Stage     disk.StageRequest
	Block     bool
	Unstage   bool
}

const workVariable = "DISK_TEST_WORK"

func TestMain(m *testing.M) {
	if text := os.Getenv(killVariable); text != "" {
		os.Exit(killAtWrite(text, os.Args[1:]))
	}
	text := os.Getenv(workVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := doWork(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func doWork(text string) error {
	var w work
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		return err
	}
	node, err := disk.New(disk.Config{DeviceDir: w.DeviceDir, DeviceTimeout: 10 * time.Second, ReleaseTimeout: time.Minute})
	if err != nil {
		return err
	}
	node.WithCheapKeys()
	ctx := context.Background()
	if w.Block {
		err = node.StageBlock(ctx, disk.StageBlockRequest{Volume: w.Stage.Volume, Path: w.Stage.Path, Encryption: w.Stage.Encryption})
	} else {
		err = node.Stage(ctx, w.Stage)
	}
	if err == nil && w.Unstage {
		err = node.Unstage(ctx, w.Stage.Volume.ID, w.Stage.Path)
	}
	return err
}

// programs are those that are wrapped to kill the process that runs them.
var programs = []string{"blkid", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "e2fsck", "resize2fs", "xfs_growfs", "btrfs", "mount", "umount",
	"cryptsetup", "dmsetup"}

// killingPrograms makes a folder of programs that count how many were run, and kill who runs them before or after the
// program of a number has done its work.
func killingPrograms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range programs {
		real, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		script := `#!/bin/sh
count=$(cat "$CRASH_COUNT" 2>/dev/null)
count=$((count + 1))
echo $count >"$CRASH_COUNT"
if [ "$CRASH_POINT" = "before $count" ]; then kill -9 $PPID; exit 1; fi
` + real + ` "$@"
status=$?
if [ "$CRASH_POINT" = "after $count" ]; then kill -9 $PPID; fi
exit $status
`
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// command is a process that does the work with the programs of a folder before all others.
func (w work) command(t *testing.T, programs string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workVariable+"="+string(text), "PATH="+programs+":"+os.Getenv("PATH"),
		"TMPDIR="+t.TempDir()) // mount-utils has a folder there when the process is killed
	return cmd
}

// crash does the work in a process that dies at a point, and tells whether it did.
func crash(t *testing.T, programs, point string, w work) (died bool) {
	t.Helper()
	cmd := w.command(t, programs)
	cmd.Env = append(cmd.Env, "CRASH_POINT="+point, "CRASH_COUNT="+filepath.Join(t.TempDir(), "count"))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		return true
	}
	if err != nil {
		t.Fatalf("%s: %v: %s", point, err, out)
	}
	return false
}

// eachCrash has the work done by processes that die before and after each program that they run, each on a volume of its own,
// and calls then for what must hold afterwards. The last one does not die.
func eachCrash(t *testing.T, prepare func(*testing.T) work, then func(t *testing.T, w work)) {
	t.Helper()
	folder := killingPrograms(t)
	deaths := 0
	for count := 1; ; count++ {
		ended := false
		for _, when := range []string{"before", "after"} {
			point := when + " " + strconv.Itoa(count)
			t.Run(strings.ReplaceAll(point, " ", "-"), func(t *testing.T) {
				w := prepare(t)
				if crash(t, folder, point, w) {
					deaths++
				} else {
					ended = true
				}
				then(t, w)
			})
		}
		if ended || t.Failed() {
			break
		}
	}
	if deaths < 4 {
		t.Errorf("the work died at %d points only", deaths)
	}
}

type crashCase struct {
	name       string
	filesystem string
	encryption *disk.Encryption
}

func crashCases(t *testing.T) []crashCase {
	t.Helper()
	cases := []crashCase{{"ext4", "ext4", nil}, {"xfs", "xfs", nil}, {"btrfs", "btrfs", nil}, {"encrypted", "ext4", encrypted("secret")}}
	if testing.Short() { // an emulated processor needs half an hour for all
		return cases[:1]
	}
	return cases
}

func crashMachine(t *testing.T, c crashCase) *machine {
	t.Helper()
	if c.encryption != nil {
		return newCryptMachine(t, true)
	}
	m := newMachine(t, 10*time.Second)
	requireFilesystem(t, c.filesystem)
	return m
}

// Wherever the driver dies while it formats and mounts a new volume, the retry comes to a good end, and what is written to
// the volume then is never formatted away.
func TestStagingANewVolumeMayEndAnywhere(t *testing.T) {
	for _, c := range crashCases(t) {
		t.Run(c.name, func(t *testing.T) {
			m := crashMachine(t, c)
			prepare := func(t *testing.T) work {
				vol, _ := m.attach(t, 320, nil)
				closeAfter(t, m, vol)
				return work{DeviceDir: m.deviceDir, Stage: disk.StageRequest{
					Volume: vol, Path: m.path("staging-" + vol.ID), Filesystem: c.filesystem, Encryption: c.encryption}}
			}
			eachCrash(t, prepare, func(t *testing.T, w work) { requireKept(t, m, w.Stage, false) })
		})
	}
}

// Nor does it lose what is there when it dies while it mounts and unmounts.
func TestStagingAndUnstagingAVolumeWithDataMayEndAnywhere(t *testing.T) {
	for _, c := range crashCases(t) {
		t.Run(c.name, func(t *testing.T) {
			m := crashMachine(t, c)
			prepare := func(t *testing.T) work {
				vol, dev := m.attach(t, 320, nil)
				closeAfter(t, m, vol)
				req := disk.StageRequest{Volume: vol, Path: m.path("staging-" + vol.ID), Filesystem: c.filesystem, Encryption: c.encryption}
				if err := m.Stage(context.Background(), req); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(req.Path, "file"), []byte("data"), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := m.Unstage(context.Background(), vol.ID, req.Path); err != nil {
					t.Fatal(err)
				}
				req.Volume = m.enlarge(t, vol, dev, 400)
				return work{DeviceDir: m.deviceDir, Stage: req, Unstage: true}
			}
			eachCrash(t, prepare, func(t *testing.T, w work) { requireKept(t, m, w.Stage, true) })
		})
	}
}

// A program that goes on formatting when its driver has died gets into the way of the next driver, which begins anew.
func TestFormattingEndsWithTheDriver(t *testing.T) {
	for name, encryption := range map[string]*disk.Encryption{"mkfs.ext4": nil, "cryptsetup": encrypted("secret")} {
		t.Run(name, func(t *testing.T) {
			m := newCryptMachine(t, false)
			vol, _ := m.attach(t, 64, nil)
			programs := t.TempDir()
			script := "#!/bin/sh\necho $$ >&3\nexec sleep 600\n"
			if err := os.WriteFile(filepath.Join(programs, name), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			w := work{DeviceDir: m.deviceDir, Stage: disk.StageRequest{Volume: vol, Path: m.path("staging"), Encryption: encryption}}
			driver := w.command(t, programs)
			ours, theirs, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			driver.ExtraFiles = []*os.File{theirs} // number 3 there, and in the programs that it runs
			if err := errors.Join(driver.Start(), theirs.Close(), ours.SetReadDeadline(time.Now().Add(time.Minute))); err != nil {
				t.Fatal(err)
			}
			var formatter int
			_, begun := fmt.Fscan(ours, &formatter)
			if err := driver.Process.Kill(); err != nil {
				t.Error(err)
			}
			_ = driver.Wait() // it was killed
			if begun != nil {
				t.Fatalf("the volume is not formatted: %v", begun)
			}
			if _, err := io.Copy(io.Discard, ours); err != nil { // ends with the last that has theirs
				t.Errorf("%s goes on: %v", name, err)
				_ = unix.Kill(formatter, unix.SIGKILL)
			}
		})
	}
}

// requireKept stages what an earlier process left, and again, and requires that the data stays.
func requireKept(t *testing.T, m *machine, req disk.StageRequest, written bool) {
	t.Helper()
	for range 2 {
		if err := m.Stage(context.Background(), req); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(req.Path, "file")
		if data, err := os.ReadFile(file); written && (err != nil || string(data) != "data") {
			t.Fatalf("the file is %q, %v", data, err)
		}
		if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
		written = true
		if err := m.Unstage(context.Background(), req.Volume.ID, req.Path); err != nil {
			t.Fatal(err)
		}
	}
	if left := mountsOn(t, req.Path); len(left) > 0 {
		t.Errorf("still mounted: %+v", left)
	}
	if req.Encryption != nil {
		requireClosed(t, req.Volume)
	}
}
