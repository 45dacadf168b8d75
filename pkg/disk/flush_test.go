package disk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// container runs a process that keeps, in a mount namespace of its own, the mounts below the machine's folder. It returns the
// process, and what ends it.
func (m *machine) container(t *testing.T) (process int, end func()) {
	t.Helper()
	// It keeps none of the mounts that other tests have on the machine at this moment.
	const script = `cat /proc/self/mountinfo | while read -r _ _ _ _ at rest; do
		case "$at $rest" in "$1"/*) ;; *" /dev/loop"*|*" /dev/mapper/"*) umount "$at" 2>/dev/null ;; esac
	done; echo ready; exec sleep 1000`
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", m.dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("needs unshare")
	}
	end = startProcess(t, cmd)
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Skipf("needs a mount namespace: %v", err)
	}
	return cmd.Process.Pid, end
}

// occupant keeps a volume that is staged in use, and tells how it is named in errors and where it can write.
type occupant struct {
	name   string
	folder string
	end    func()
}

// occupyStaging returns what keeps the staged filesystem in use: a process that works in it, or a mount in another namespace.
func (m *machine) occupyStaging(t *testing.T, elsewhere bool) occupant {
	t.Helper()
	if elsewhere {
		pid, end := m.container(t)
		return occupant{fmt.Sprintf("process %d (", pid), fmt.Sprintf("/proc/%d/root%s", pid, m.path("staging")), end}
	}
	inside := exec.Command("sleep", "1000")
	inside.Dir = m.path("staging")
	end := startProcess(t, inside)
	return occupant{fmt.Sprintf("process %d (sleep)", inside.Process.Pid), m.path("staging"), end}
}

// startProcess starts a process that ends with the test or when end is called.
func startProcess(t *testing.T, cmd *exec.Cmd) (end func()) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(end)
	return end
}

// onDisk tells whether the cloud's side of the volume's disk holds the text: what a detachment would leave.
func (m *machine) onDisk(t *testing.T, vol disk.Volume, text string) bool {
	t.Helper()
	image, err := os.ReadFile(m.path(vol.ID + ".img"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(image, []byte(text))
}

// content is the text of a file, long enough for no filesystem to keep it beside its inode.
func content(mark string) []byte { return bytes.Repeat([]byte(mark+"\n"), 1000) }

func TestUnstageThatFailsHasWrittenEverythingToDisk(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		for _, elsewhere := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in another namespace %t", fsType, elsewhere), func(t *testing.T) {
				m := newMachine(t, 10*time.Second)
				requireFilesystem(t, fsType)
				vol, _ := m.attach(t, 320, nil)
				if err := stage(m, vol, fsType); err != nil {
					t.Fatal(err)
				}
				user := m.occupyStaging(t, elsewhere)
				for _, mark := range []string{"written before", "written between two tries"} {
					if err := os.WriteFile(filepath.Join(user.folder, mark), content(mark), 0o600); err != nil {
						t.Fatal(err)
					}
					err := m.impatient(t).Unstage(t.Context(), vol.ID, m.path("staging"))
					if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), user.name) {
						t.Fatalf("got %v, want that %s uses it", err, user.name)
					}
					if !m.onDisk(t, vol, mark) {
						t.Errorf("what was %s would be lost if the disk was detached now", mark)
					}
				}
				user.end()
				if err := m.unstage(vol); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestUnstageThatFailsHasWrittenWhatCameWhileItWaited(t *testing.T) {
	m, req := stagedVolume(t)
	user := m.occupyStaging(t, true)
	result := make(chan error, 1)
	go func() {
		node, err := disk.New(disk.Config{DeviceDir: m.deviceDir, DeviceTimeout: time.Second, ReleaseTimeout: 2 * time.Second})
		if err == nil {
			err = node.Unstage(context.Background(), req.Volume.ID, req.StagingPath)
		}
		result <- err
	}()
	for len(mountsOn(t, req.StagingPath)) > 0 {
		time.Sleep(time.Millisecond)
	}
	if err := os.WriteFile(filepath.Join(user.folder, "file"), content("written late"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, disk.ErrInUse) {
		t.Fatal(err)
	}
	if !m.onDisk(t, req.Volume, "written late") {
		t.Error("what was written while unstaging waited would be lost if the disk was detached now")
	}
}

func TestUnpublishThatFailsHasWrittenEverythingToDisk(t *testing.T) {
	m, req := stagedVolume(t)
	if err := m.Publish(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(req.Path, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(content("written by a Pod")); err != nil {
		t.Fatal(err)
	}
	reader := exec.Command("sleep", "1000") // with a file of the volume open
	reader.Stdin = file
	end := startProcess(t, reader)
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	err = m.Unpublish(t.Context(), req.Volume.ID, req.Path)
	who := fmt.Sprintf("process %d (sleep) has open %s/file", reader.Process.Pid, req.Path)
	if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), who) {
		t.Errorf("got %v, want %q", err, who)
	}
	if !m.onDisk(t, req.Volume, "written by a Pod") {
		t.Error("what the Pod wrote would be lost if the disk was detached now")
	}
	end()
	if err := m.Unpublish(t.Context(), req.Volume.ID, req.Path); err != nil {
		t.Error(err)
	}
}

func TestRawBlockVolumesAreWrittenToDiskWhenTheyAreTakenDown(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	if err := stageBlock(m, vol); err != nil {
		t.Fatal(err)
	}
	if err := m.publishBlock(vol, "target", nil); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) *os.File {
		device, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { device.Close() })
		if _, err := device.Write(content(text)); err != nil {
			t.Fatal(err)
		}
		if m.onDisk(t, vol, text) {
			t.Fatal("the kernel has no data in memory: the test proves nothing")
		}
		return device
	}
	device := write(m.path("target"), "through the target path")
	err := m.Unpublish(t.Context(), vol.ID, m.path("target"))
	who := fmt.Sprintf("process %d (", os.Getpid())
	if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), who) {
		t.Errorf("got %v, want that %s has it open", err, who)
	}
	if !m.onDisk(t, vol, "through the target path") {
		t.Error("what was written would be lost if the disk was detached after unpublishing failed")
	}
	if err := device.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Unpublish(t.Context(), vol.ID, m.path("target")); err != nil {
		t.Fatal(err)
	}
	write(dev, "through the node's own /dev") // which keeps nothing from being unstaged
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	if !m.onDisk(t, vol, "through the node's own /dev") {
		t.Error("what was written would be lost if the disk was detached after unstaging")
	}
}

// freeze makes the disk of a volume hang: the filesystem that its file is on takes no writes until thaw is called.
func freeze(t *testing.T, folder string) (thaw func()) {
	t.Helper()
	dir, err := os.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	const fifreeze, fithaw = 0xc0045877, 0xc0045878 // _IOWR('X', 119, int), _IOWR('X', 120, int)
	if err := unix.IoctlSetInt(int(dir.Fd()), fifreeze, 0); err != nil {
		t.Skipf("needs a filesystem that can be frozen: %v", err)
	}
	frozen := true
	thaw = func() {
		if frozen {
			frozen = false
			if err := errors.Join(unix.IoctlSetInt(int(dir.Fd()), fithaw, 0), dir.Close()); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(thaw)
	return thaw
}

// A disk that hangs keeps its own volume from being taken down, for as long as the caller waits, and no other.
func TestADiskThatHangsHoldsUpItsOwnVolumeOnly(t *testing.T) {
	cloud := newMachine(t, 10*time.Second)
	images, _ := cloud.attach(t, 400, nil)
	if err := stage(cloud, images, "ext4"); err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, 10*time.Second)
	vol := m.makeDisk(t, 64)
	image := cloud.path("staging/" + vol.ID + ".img")
	run(t, "mv", m.path(vol.ID+".img"), image)
	if err := os.Symlink(image, m.path(vol.ID+".img")); err != nil {
		t.Fatal(err)
	}
	m.attachFile(t, vol.ID, image)
	if err := m.Stage(t.Context(), disk.StageRequest{Volume: vol, Path: m.path("staging")}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path("staging/file"), content("kept in memory"), 0o600); err != nil {
		t.Fatal(err)
	}
	thaw := freeze(t, cloud.path("staging"))
	defer thaw()
	for range 2 { // the second call waits for what the first one left
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := m.Unstage(ctx, vol.ID, m.path("staging"))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), m.devices[vol.ID]) {
			t.Errorf("got %v, want a deadline that names %s", err, m.devices[vol.ID])
		}
	}
	for what, call := range map[string]func(context.Context) error{
		"stage": func(ctx context.Context) error {
			return m.Stage(ctx, disk.StageRequest{Volume: vol, Path: m.path("staging")})
		},
		"publish": func(ctx context.Context) error {
			return m.Publish(ctx, disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path("target")})
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := call(ctx)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), m.path("staging")+" does not answer") {
			t.Errorf("%s: got %v, want a deadline that names %s", what, err, m.path("staging"))
		}
	}
	if len(mountsOn(t, m.path("staging"))) != 1 {
		t.Error("it was taken down before its data was written")
	}
	other, _ := m.attach(t, 64, nil)
	if err := m.Stage(t.Context(), disk.StageRequest{Volume: other, Path: m.path("other")}); err != nil {
		t.Error(err)
	}
	if _, err := m.Stats(t.Context(), other.ID, m.path("other")); err != nil {
		t.Error(err)
	}
	if err := m.Unstage(t.Context(), other.ID, m.path("other")); err != nil {
		t.Error(err)
	}
	thaw()
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	if !m.onDisk(t, vol, "kept in memory") {
		t.Error("the data is not on the disk")
	}
}

// What looks at a volume on a disk that hangs is waited for until the caller's deadline, and looked for once at a time.
func TestLookingAtADiskThatHangsEndsWithTheCallersContext(t *testing.T) {
	m := newMachine(t, time.Second)
	answer := make(chan struct{})
	looks := 0 // one at a time
	hang := func() {
		looks++
		<-answer
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := m.Look(ctx, "volume-1", "/hanging", hang)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "/hanging") {
			t.Errorf("got %v, want a deadline that names the path", err)
		}
	}
	if err := m.Look(t.Context(), "volume-2", "/well", func() {}); err != nil {
		t.Errorf("another volume: %v", err)
	}
	close(answer)
	if err := m.Look(t.Context(), "volume-1", "/hanging", func() { looks++ }); err != nil {
		t.Error(err)
	}
	if looks != 2 {
		t.Errorf("it was looked at %d times, want once while it hung and once after", looks)
	}
}
