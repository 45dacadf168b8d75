//go:build linux

package vm

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// pauseUdev makes udev act on nothing until the returned function is called: links stay as they are, whatever comes and
// goes.
func (r *rig) pauseUdev(t *testing.T) (goOn func()) {
	t.Helper()
	r.sh(t, "udevadm settle && udevadm control --stop-exec-queue")
	var once sync.Once
	goOn = func() {
		once.Do(func() { r.sh(t, "udevadm control --start-exec-queue && udevadm settle") })
	}
	t.Cleanup(goOn)
	return goOn
}

// name is the kernel's name of the volume's disk: vdb.
func (v *volume) name(t *testing.T) string {
	t.Helper()
	return v.sh(t, "for s in /sys/block/*/serial; do if [ \"$(cat $s)\" = %s ]; then basename $(dirname $s); fi; done", v.serial())
}

// wantRightDisk checks that what is mounted at the path is the volume's disk.
func (v *volume) wantRightDisk(t *testing.T, path string) {
	t.Helper()
	if source, want := v.sh(t, "findmnt -n -o SOURCE %s", path), "/dev/"+v.name(t); source != want {
		t.Errorf("at %s is %s, and the volume's disk is %s", path, source, want)
	}
}

// A link by serial that udev has not removed yet leads to another disk, once that has got the name of the one before.
func testStaleLink(t *testing.T, r *rig) {
	first, other := r.create(t, "first", writer("ext4"), nil), r.create(t, "other", writer("ext4"), nil)
	first.publish(t)
	r.until(t, "udev has made the link", "[ -b %s ]", first.link())
	name := first.name(t)
	goOn := r.pauseUdev(t)
	first.unpublish(t)
	r.until(t, "the disk is gone", "! [ -e /sys/block/%s ]", name)
	other.publish(t)
	r.until(t, "the next disk has its name", "grep -q %s /sys/block/%s/serial", other.serial(), name)
	r.sh(t, "[ \"$(readlink -f %s)\" = /dev/%s ]", first.link(), name)

	first.publish(t)
	r.until(t, "the disk is back", "grep -q %s /sys/block/*/serial", first.serial())
	if again := first.name(t); again == name {
		t.Fatalf("the disk has the name %s again", again)
	}
	for _, v := range []*volume{first, other} {
		v.stage(t)
		v.wantRightDisk(t, v.staging())
	}
	goOn()
	first.takeAway(t)
	other.takeAway(t)
	first.remove(t)
	other.remove(t)
}

// Links that lead to each other's disks must not make two volumes change places.
func testSwappedLinks(t *testing.T, r *rig) {
	a, b := r.create(t, "a", writer("xfs"), nil), r.create(t, "b", writer("xfs"), nil)
	for _, v := range []*volume{a, b} {
		v.publish(t)
		r.until(t, "udev has made the link", "[ -b %s ]", v.link())
	}
	goOn := r.pauseUdev(t)
	r.sh(t, "a=$(readlink %[1]s) && b=$(readlink %[2]s) && ln -sfn $b %[1]s && ln -sfn $a %[2]s", a.link(), b.link())
	for _, v := range []*volume{a, b} {
		v.stage(t)
		v.wantRightDisk(t, v.staging())
		v.mount(t, "pod")
		v.wantRightDisk(t, v.target("pod"))
	}
	r.sh(t, "a=$(readlink %[1]s) && b=$(readlink %[2]s) && ln -sfn $b %[1]s && ln -sfn $a %[2]s", a.link(), b.link())
	goOn()
	a.takeAway(t, "pod")
	b.takeAway(t, "pod")
	a.remove(t)
	b.remove(t)
}

// A disk that takes long to come is waited for, without help from udev.
func testLateDisk(t *testing.T, r *rig) {
	v := r.create(t, "late", writer("ext4"), nil)
	goOn := r.pauseUdev(t)
	staged := make(chan error, 1)
	go func() {
		ctx := callContext(t)
		_, err := v.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: v.id, StagingTargetPath: v.staging(), VolumeCapability: v.capability, PublishContext: map[string]string{},
		})
		staged <- err
	}()
	v.publish(t)
	if err := <-staged; err != nil {
		t.Fatal(err)
	}
	v.wantRightDisk(t, v.staging())
	goOn()
	v.takeAway(t)
	v.remove(t)
}

// A disk that somebody attached by hand, to the SCSI bus, is the volume's as well: its serial number says so.
func testSCSIDisk(t *testing.T, r *rig) {
	v := r.create(t, "scsi", writer("ext4"), nil)
	r.sim.Do(t, "POST", "/server/"+r.server+"/storage/attach",
		fmt.Sprintf(`{"storage_device":{"type":"disk","address":"scsi:0:3","storage":%q}}`, v.id), nil)
	v.publish(t) // finds it attached
	v.stage(t)
	if source := r.sh(t, "findmnt -n -o SOURCE %s", v.staging()); !strings.HasPrefix(source, "/dev/sd") {
		t.Errorf("the volume is mounted from %s", source)
	}
	r.sh(t, "udevadm settle && ls /dev/disk/by-id | grep -q '^scsi-.*%s'", v.serial())
	v.mount(t, "a")
	v.grow(t, 2, v.target("a"))
	if size := v.bytes(t, v.target("a")); size < gib*3/2 {
		t.Errorf("after the growth there are %d bytes", size)
	}
	v.takeAway(t, "a")
	r.until(t, "the disk is gone", "! ls /dev/disk/by-id | grep -q %s", v.serial())
	v.remove(t)
}

// As many volumes as the node says that it has room for can be attached and used, all at once; what the server cannot take
// is refused.
func testLimit(t *testing.T, r *rig) {
	info, err := r.node.NodeGetInfo(callContext(t), &csi.NodeGetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	room := int(info.GetMaxVolumesPerNode())
	if room < 10 || room > 16 {
		t.Fatalf("the node says that it has room for %d volumes", room)
	}
	volumes := make([]*volume, room)
	for i := range volumes {
		volumes[i] = r.create(t, fmt.Sprint(i), rawBlock(), nil)
	}
	var all sync.WaitGroup
	for _, v := range volumes {
		all.Go(func() {
			resp, err := v.controller.ControllerPublishVolume(callContext(t), &csi.ControllerPublishVolumeRequest{
				VolumeId: v.id, NodeId: v.server, VolumeCapability: v.capability, VolumeContext: v.context,
			})
			if err != nil {
				t.Error(err)
				return
			}
			v.published = resp.GetPublishContext()
			if err := v.tryStage(t); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	names := map[string]bool{}
	for _, v := range volumes {
		names[v.name(t)] = true
	}
	if len(names) != room || names[""] {
		t.Errorf("%d volumes have the disks %v", room, names)
	}
	full := r.fill(t, 16-room)
	all = sync.WaitGroup{}
	for _, v := range append(volumes, full...) {
		all.Go(func() {
			_, err := v.controller.ControllerUnpublishVolume(callContext(t), &csi.ControllerUnpublishVolumeRequest{VolumeId: v.id, NodeId: v.server})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, v := range append(volumes, full...) {
		v.wantGone(t)
		v.remove(t)
	}
}

// fill attaches more volumes until the server takes no more, and returns those.
func (r *rig) fill(t *testing.T, most int) (attached []*volume) {
	t.Helper()
	for {
		v := r.create(t, fmt.Sprint("more", len(attached)), rawBlock(), nil)
		_, err := v.controller.ControllerPublishVolume(callContext(t), &csi.ControllerPublishVolumeRequest{
			VolumeId: v.id, NodeId: v.server, VolumeCapability: v.capability,
		})
		if err != nil {
			wantCode(t, err, codes.ResourceExhausted)
			v.remove(t)
			return attached
		}
		if attached = append(attached, v); len(attached) > most {
			t.Errorf("the server takes %d volumes more than it has room for", len(attached))
			return attached
		}
	}
}

// A raw block volume is the disk itself.
func testRawBlock(t *testing.T, r *rig) {
	v := r.create(t, "raw", rawBlock(), nil)
	v.bring(t, "a")
	path := v.target("a")
	pattern := r.sh(t, "[ -b %[1]s ] && head -c 1000000 /dev/urandom >/tmp/pattern && dd if=/tmp/pattern of=%[1]s conv=fsync,notrunc status=none && sha256sum </tmp/pattern", path)
	if size := v.bytes(t, path); size != gib {
		t.Errorf("the volume has %d bytes", size)
	}
	v.grow(t, 2, path)
	r.until(t, "the device has grown", "[ $(blockdev --getsize64 %s) = %d ]", path, 2*gib)
	v.takeAway(t, "a")

	v.publish(t)
	v.stage(t)
	if err := v.tryMount(t, "b", true); err != nil {
		t.Fatal(err)
	}
	if got := r.sh(t, "head -c 1000000 %s | sha256sum", v.target("b")); got != pattern {
		t.Errorf("the device begins with %s, want %s", got, pattern)
	}
	if out, err := r.try(t, "dd if=/dev/zero of=%s bs=4096 count=1 conv=fsync,notrunc", v.target("b")); err == nil {
		t.Errorf("a device that was published read-only can be written to: %s", out)
	}
	v.takeAway(t, "b")
	v.remove(t)
}

// The node plugin can die at any moment, and what it was doing is gone on from when it is asked again.
func testKill(t *testing.T, r *rig) {
	v := r.create(t, "data", writer("ext4"), nil)
	v.publish(t)
	r.restartPlugin(t)
	half := make(chan error, 1)
	go func() { half <- v.tryStage(t) }()
	r.until(t, "the volume is being formatted, or has been", "grep -qs mkfs.ext4 /proc/*/comm || grep -q %s /proc/mounts", v.serial())
	r.restartPlugin(t)
	if err := <-half; err != nil {
		t.Logf("the call in which the plugin died: %v", err)
	}
	v.stageInTheEnd(t)
	r.restartPlugin(t)
	v.stage(t)
	v.mount(t, "a")
	r.restartPlugin(t)
	v.mount(t, "a")
	if n := r.sh(t, "grep -c %s /proc/mounts", v.target("a")); n != "1" {
		t.Errorf("the volume is mounted %s times", n)
	}
	r.sh(t, "echo kept >%s/file", v.target("a"))
	v.grow(t, 2, v.target("a"))
	r.restartPlugin(t)
	v.grow(t, 2, v.target("a"))
	if size := v.bytes(t, v.target("a")); size < gib*3/2 {
		t.Errorf("after the growth there are %d bytes", size)
	}
	v.unmount(t, "a")
	r.restartPlugin(t)
	v.unmount(t, "a")
	v.mount(t, "b")
	if got := r.read(t, v.target("b")+"/file"); got != "kept" {
		t.Errorf("the file holds %q", got)
	}
	r.restartPlugin(t)
	v.unmount(t, "b")
	v.unstage(t)
	r.restartPlugin(t)
	v.takeAway(t, "b")
	v.remove(t)
}

// A disk that is pulled while it is mounted leaves what can be taken down, and comes back with its data.
func testPulled(t *testing.T, r *rig) {
	for _, fsType := range []string{"ext4", "xfs"} {
		v := r.create(t, "pulled-"+fsType, writer(fsType), nil)
		v.bring(t, "a")
		r.sh(t, "echo kept >%[1]s/file && sync -f %[1]s/file", v.target("a"))
		if c := v.stats(t, v.target("a")).GetVolumeCondition(); c == nil || c.GetAbnormal() {
			t.Errorf("%s: the condition of a volume in use: %v", fsType, c)
		}
		v.unpublish(t)
		v.wantGone(t)
		if c := v.stats(t, v.target("a")).GetVolumeCondition(); !c.GetAbnormal() || c.GetMessage() == "" {
			t.Errorf("%s: the condition of a volume whose disk is gone: %v", fsType, c)
		}
		if out, err := r.try(t, "echo lost >%[1]s/file2 && sync -f %[1]s/file2", v.target("a")); err == nil {
			t.Errorf("%s: writing to a disk that is gone: %q", fsType, out)
		}
		v.publish(t) // it is attached elsewhere, or here again, while the old mount is still there
		v.stage(t)
		v.wantRightDisk(t, v.staging())
		if got := r.read(t, v.staging()+"/file"); got != "kept" {
			t.Errorf("%s: the file holds %q", fsType, got)
		}
		v.takeAway(t, "a")
		v.remove(t)
	}
}
