package driver_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// hold has a process work in a folder, so that its mount cannot be taken down.
func hold(t *testing.T, folder string) (process int, end func()) {
	t.Helper()
	inside := exec.Command("sleep", "1000")
	inside.Dir = folder
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			_ = inside.Process.Kill()
			_ = inside.Wait()
		}
	}
	t.Cleanup(end)
	return inside.Process.Pid, end
}

// Nomad detaches a volume right after unstaging it failed, Kubernetes after a forced detachment.
func TestDetachmentAfterAFailedUnstageLosesNothing(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			machines := newMachines(t, "worker-1", "worker-2")
			one, two := machines[0], machines[1]
			c := mountCapability(anyWriter, fsType)
			id := one.begin(t, "pvc-1", c)
			process, end := hold(t, one.staging(id))
			written := bytes.Repeat([]byte("written last\n"), 1000)
			if err := os.WriteFile(filepath.Join(one.target("a"), "file"), written, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := one.unmount(t, id, "a"); err != nil {
				t.Fatal(err)
			}
			err := one.unstage(t, id)
			wantCode(t, err, codes.FailedPrecondition)
			if who := fmt.Sprintf("process %d (sleep)", process); err != nil && !strings.Contains(err.Error(), who) {
				t.Errorf("the error does not name %s: %v", who, err)
			}
			if err := one.unpublish(t, id, one.server); err != nil {
				t.Fatal(err)
			}
			two.bring(t, id, c)
			if got, err := os.ReadFile(filepath.Join(two.staging(id), "file")); err != nil || !bytes.Equal(got, written) {
				t.Errorf("on the next node the file has %d bytes, %v; %d were written", len(got), err, len(written))
			}
			end()
			two.takeAway(t, id)
			if err := one.unstage(t, id); err != nil {
				t.Error(err)
			}
		})
	}
}

// The kubelet publishes a volume to the next Pod on the node without staging it again.
func TestPodAfterAShutDownFilesystem(t *testing.T) {
	if _, err := exec.LookPath("xfs_io"); err != nil {
		t.Skip("needs xfs_io")
	}
	m := newMachines(t, "worker-1")[0]
	c := mountCapability(anyWriter, "xfs")
	id := m.begin(t, "pvc-1", c)
	if out, err := exec.Command("xfs_io", "-x", "-c", "shutdown", m.staging(id)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err := m.mount(t, id, "b", c, false)
	wantCode(t, err, codes.FailedPrecondition)
	if err != nil && (!strings.Contains(err.Error(), m.target("a")) || !strings.Contains(err.Error(), "shut down")) {
		t.Errorf("the error names neither reason nor user: %v", err)
	}
	if err := m.unmount(t, id, "a"); err != nil {
		t.Fatal(err)
	}
	if err := m.mount(t, id, "b", c, false); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.target("b"), "file"), []byte("data"), 0o600); err != nil {
		t.Errorf("the next Pod cannot write: %v", err)
	}
	m.takeAway(t, id, "b")
}

func TestStageWithOtherMountOptionsIsAlreadyExists(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	c := writer()
	c.GetMount().MountFlags = []string{"noatime", "commit=30"}
	published := m.bring(t, id, c)
	if err := m.stage(t, id, c, published); err != nil {
		t.Fatal(err)
	}
	other := writer()
	other.GetMount().MountFlags = []string{"noatime"}
	wantCode(t, m.stage(t, id, other, published), codes.AlreadyExists)
	m.takeAway(t, id)
}

// A container that kept the volume's mount must not keep the next Pod from starting.
func TestStageWhileAnotherMountNamespaceHasTheVolume(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	m.release = 100 * time.Millisecond
	m.restart(t)
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	published := m.bring(t, id, writer())
	// It keeps none of the mounts that other tests have on the machine at this moment.
	const script = `cat /proc/self/mountinfo | while read -r _ _ _ _ at rest; do
		case "$at $rest" in "$1"/*) ;; *" /dev/loop"*|*" /dev/mapper/"*) umount "$at" 2>/dev/null ;; esac
	done; echo ready; exec sleep 1000`
	container := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", m.dir)
	out, err := container.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := container.Start(); err != nil {
		t.Skipf("needs unshare: %v", err)
	}
	defer func() {
		_ = container.Process.Kill()
		_ = container.Wait()
	}()
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Skipf("needs a mount namespace: %v", err)
	}
	err = m.unstage(t, id)
	wantCode(t, err, codes.FailedPrecondition)
	if who := fmt.Sprintf("process %d (", container.Process.Pid); err != nil && !strings.Contains(err.Error(), who) {
		t.Errorf("the error does not name %s: %v", who, err)
	}
	if err := m.stage(t, id, writer(), published); err != nil {
		t.Errorf("staging for the next Pod: %v", err)
	}
	_ = container.Process.Kill()
	_ = container.Wait()
	m.release = time.Minute
	m.restart(t)
	m.takeAway(t, id)
}
