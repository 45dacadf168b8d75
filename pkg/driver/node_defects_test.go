package driver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// What other drivers of UpCloud storage were seen to do wrong on nodes, and this one must not.

// device is the device node of a volume that is attached to the machine.
func (m machine) device(t *testing.T, volumeID string) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(m.link(t, volumeID))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (m machine) link(t *testing.T, volumeID string) string {
	t.Helper()
	name, err := disk.LinkName(volumeID)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(m.byID, name)
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A link that an earlier attachment left behind leads to another volume's disk by now.
func TestStaleLinkIsNotBelieved(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	other := m.create(t, createRequest("pvc-2")).GetVolumeId()
	published, err := m.publish(t, other, m.server)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(m.device(t, other), m.link(t, id)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*csi.VolumeCapability{writer(), blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER)} {
		err := m.stage(t, id, c, published)
		if wantCode(t, err, codes.NotFound); err != nil && !strings.Contains(err.Error(), "wrong device") {
			t.Errorf("the error does not tell of the wrong device: %v", err)
		}
	}
	head := make([]byte, 1<<20)
	file, err := os.Open(m.device(t, other))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Read(head); err != nil || len(bytes.Trim(head, "\x00")) > 0 {
		t.Errorf("the other volume's disk was written to: %v", err)
	}
	if err := os.Remove(m.link(t, id)); err != nil {
		t.Fatal(err)
	}
	m.takeAway(t, other)
}

// wrapper puts a program before the real one of that name. It begins to work when the file go exists, and notes each run.
type wrapper struct{ ran, started, goOn string }

func wrap(t *testing.T, program string) wrapper {
	t.Helper()
	real, err := exec.LookPath(program)
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	w := wrapper{ran: filepath.Join(dir, "ran"), started: filepath.Join(dir, "started"), goOn: filepath.Join(dir, "go")}
	script := fmt.Sprintf("#!/bin/sh\n: >%s\nwhile [ ! -e %s ]; do sleep 0.01; done\n%s \"$@\" || exit\necho \"$@\" >>%s\n",
		w.started, w.goOn, real, w.ran)
	if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Cleanup(func() { w.letGo(t) }) // nothing waits for ever
	return w
}

func (w wrapper) letGo(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(w.goOn, nil, 0o600); err != nil {
		t.Error(err)
	}
}

func (w wrapper) runs() int {
	text, err := os.ReadFile(w.ran)
	if err != nil {
		return 0
	}
	return strings.Count(string(text), "\n")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// A deadline that passes during mkfs must not leave half a filesystem: mkfs goes on, and the repeated call joins it.
func TestDeadlineDoesNotKillMkfs(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	mkfs := wrap(t, "mkfs.ext4")
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	published, err := m.publish(t, id, m.server)
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(callContext(t))
	left := make(chan error, 1)
	go func() {
		_, err := m.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: id, StagingTargetPath: m.staging(id), VolumeCapability: writer(), PublishContext: published,
		})
		left <- err
	}()
	eventually(t, "mkfs is started", func() bool { return exists(mkfs.started) })
	leave()
	wantCode(t, <-left, codes.Canceled)
	mkfs.letGo(t)
	if err := m.stage(t, id, writer(), published); err != nil {
		t.Fatal(err)
	}
	if n := mkfs.runs(); n != 1 {
		t.Errorf("mkfs ran to its end %d times, want once", n)
	}
	m.takeAway(t, id)
}

func TestStageOfAStagedVolumeTouchesNothing(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	published := m.bring(t, id, writer())
	mkfs, fsck := wrap(t, "mkfs.ext4"), wrap(t, "e2fsck")
	mkfs.letGo(t)
	fsck.letGo(t)
	if err := m.stage(t, id, writer(), published); err != nil {
		t.Fatal(err)
	}
	if mkfs.runs() != 0 || fsck.runs() != 0 {
		t.Errorf("mkfs ran %d times, e2fsck %d times, on a mounted disk", mkfs.runs(), fsck.runs())
	}
	m.takeAway(t, id)
}

func TestStackedMountsAreAllTakenDown(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	m.bring(t, id, writer())
	if err := m.mount(t, id, "a", writer(), false); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{m.target("a"), m.staging(id)} {
		if err := unix.Mount(m.staging(id), path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	m.takeAway(t, id, "a")
	for _, path := range []string{m.target("a"), m.staging(id)} {
		if options := mountOptions(t, path); options != nil {
			t.Errorf("%s is mounted still", path)
		}
	}
}

func TestFilesystemWithErrorsIsCheckedBeforeItIsMounted(t *testing.T) {
	if _, err := exec.LookPath("debugfs"); err != nil {
		t.Skip(err)
	}
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	published := m.bring(t, id, writer())
	if err := m.unstage(t, id); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		text := output(t, "dumpe2fs", "-h", m.device(t, id))
		for line := range strings.Lines(text) {
			if rest, ok := strings.CutPrefix(line, "Filesystem state:"); ok {
				return strings.TrimSpace(rest)
			}
		}
		return "unknown"
	}
	output(t, "debugfs", "-w", "-R", "set_super_value state 2", m.device(t, id))
	if got := state(); !strings.Contains(got, "errors") {
		t.Fatalf("the filesystem is %s, not with errors as it was made to be", got)
	}
	if err := m.stage(t, id, writer(), published); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(t, id); err != nil {
		t.Fatal(err)
	}
	if got := state(); got != "clean" {
		t.Errorf("after staging the filesystem is %q, want clean", got)
	}
	m.takeAway(t, id)
}

func TestXFSCloneIsMountedBesideItsSource(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	xfs := mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "xfs")
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	m.bring(t, id, xfs)
	if err := os.WriteFile(filepath.Join(m.staging(id), "file"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.takeAway(t, id)
	clone := m.create(t, copyRequest("clone", 1, fromVolume(id))).GetVolumeId()
	m.bring(t, id, xfs)
	m.bring(t, clone, xfs)
	if data, err := os.ReadFile(filepath.Join(m.staging(clone), "file")); err != nil || string(data) != "data" {
		t.Errorf("the clone has %q, %v", data, err)
	}
	m.takeAway(t, clone)
	m.takeAway(t, id)
}

// Of several partitions none is guessed to be the one that is meant.
func TestDiskWithSeveralPartitionsIsRefused(t *testing.T) {
	if _, err := exec.LookPath("sfdisk"); err != nil {
		t.Skip(err)
	}
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	published, err := m.publish(t, id, m.server)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("sfdisk", "--quiet", m.device(t, id))
	command.Stdin = strings.NewReader("label: gpt\nsize=100M\nsize=100M\n")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	err = m.stage(t, id, writer(), published)
	if wantCode(t, err, codes.FailedPrecondition); err != nil && !strings.Contains(err.Error(), "partition") {
		t.Errorf("the error does not tell of the partitions: %v", err)
	}
	m.takeAway(t, id)
}

// A publish onto a folder where nothing is staged would put the Pod's data on the node's own disk.
func TestPublishOfAnotherVolumesStagingPathIsRefused(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	other := m.create(t, createRequest("pvc-2")).GetVolumeId()
	m.bring(t, id, writer())
	m.bring(t, other, writer())
	_, err := m.node.NodePublishVolume(callContext(t), &csi.NodePublishVolumeRequest{
		VolumeId: id, StagingTargetPath: m.staging(other), TargetPath: m.target("a"), VolumeCapability: writer(),
	})
	wantCode(t, err, codes.FailedPrecondition)
	if exists(m.target("a")) {
		t.Error("the target path was made")
	}
	m.takeAway(t, id)
	m.takeAway(t, other)
}

// What a volume was taken for before it was detached must not be found again under its device's name.
func TestVolumesThatSwapTheirDevices(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	var ids []string
	for _, name := range []string{"pvc-1", "pvc-2"} {
		id := m.create(t, createRequest(name)).GetVolumeId()
		m.bring(t, id, writer())
		if err := os.WriteFile(filepath.Join(m.staging(id), "id"), []byte(id), 0o600); err != nil {
			t.Fatal(err)
		}
		m.takeAway(t, id)
		ids = append(ids, id)
	}
	for range 2 {
		slices.Reverse(ids) // attached in another order, they get each other's device
		for _, id := range ids {
			m.bring(t, id, writer())
			if got, err := os.ReadFile(filepath.Join(m.staging(id), "id")); err != nil || string(got) != id {
				t.Errorf("volume %s holds the data of %q, %v", id, got, err)
			}
		}
		var errs []error
		for _, id := range ids {
			errs = append(errs, m.unstage(t, id), m.unpublish(t, id, m.server))
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
}

// A device that comes late is waited for, and found when it comes.
func TestStageWaitsForTheDevice(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	m.timeout = time.Minute
	m.restart(t)
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	staged := make(chan error, 1)
	go func() { staged <- m.stage(t, id, writer(), nil) }()
	if _, err := m.publish(t, id, m.server); err != nil {
		t.Fatal(err)
	}
	if err := <-staged; err != nil {
		t.Fatal(err)
	}
	m.takeAway(t, id)
}
