//go:build linux

package vm

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
)

// hold has a process work in a folder of the guest, so that its mount cannot be taken down.
func (r *rig) hold(t *testing.T, folder string) (end func()) {
	t.Helper()
	if err := r.guest.Start(callContext(t), "holder", "sh", "-c", "cd "+folder+" && exec sleep 100000"); err != nil {
		t.Fatal(err)
	}
	r.until(t, "a process works in "+folder, "%s", running("sleep.100000"))
	return func() {
		if err := r.guest.Kill(callContext(t), "holder"); err != nil {
			t.Fatal(err)
		}
	}
}

// Unstaging fails while a process works in the volume, and the disk is detached all the same: what was written is on it.
func testHeld(t *testing.T, r *rig) {
	plain, secret := r.create(t, "plain", writer("ext4"), nil), r.createEncrypted(t, writer("xfs"))
	for _, v := range []*volume{plain, secret} {
		v.bring(t, "a")
		end := r.hold(t, v.staging())
		r.sh(t, "for i in $(seq 1000); do echo '%[2]s'; done >%[1]s/file && sha256sum %[1]s/file >/tmp/sum", v.target("a"), plaintext)
		v.unmount(t, "a")
		err := v.tryUnstage(t)
		wantCode(t, err, codes.FailedPrecondition)
		if err != nil && !strings.Contains(err.Error(), "(sleep)") {
			t.Errorf("the error does not name the process: %v", err)
		}
		v.unpublish(t)
		v.wantGone(t)
		end()
		v.publish(t)
		v.stage(t)
		v.mount(t, "a")
		if out, err := r.try(t, "sha256sum -c /tmp/sum"); err != nil {
			t.Errorf("what was written before the detachment is lost: %s", out)
		}
		v.takeAway(t, "a")
		v.remove(t)
	}
}

// A filesystem that the kernel has shut down is mounted again for the next Pod; and a target published read-only does not keep
// the volume from growing.
func testDeadAndReadOnly(t *testing.T, r *rig) {
	for _, fsType := range []string{"ext4", "xfs"} {
		v := r.create(t, "dead-"+fsType, writer(fsType), nil)
		v.bring(t, "a")
		r.sh(t, "echo kept >%[1]s/file && sync -f %[1]s/file && xfs_io -x -c shutdown %[1]s", v.target("a"))
		wantCode(t, v.tryMount(t, "b", true), codes.FailedPrecondition)
		v.unmount(t, "a")
		if err := errors.Join(v.tryMount(t, "b", true), v.tryMount(t, "c", false)); err != nil {
			t.Fatal(err)
		}
		if got := r.read(t, v.target("b")+"/file"); got != "kept" {
			t.Errorf("%s: the file holds %q", fsType, got)
		}
		r.sh(t, "echo more >%s/file2", v.target("c"))
		v.unmount(t, "c")
		v.grow(t, 2, v.target("b"))
		if after := v.bytes(t, v.target("b")); after < gib*7/4 {
			t.Errorf("%s: the filesystem has %d bytes after it was grown to 2 GiB", fsType, after)
		}
		v.takeAway(t, "b")
		v.remove(t)
	}
}
