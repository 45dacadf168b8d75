package disk_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// bus is a machine whose disks are files only: nodes without a driver behind them, and what sysfs would say of them.
type bus struct {
	*disk.Node
	dir string
}

func newBus(t *testing.T) *bus {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make device nodes")
	}
	b := &bus{dir: t.TempDir()}
	for _, dir := range []string{"dev", "by-id", "sys/block", "sys/dev/block", "sys/devices"} {
		if err := os.MkdirAll(b.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	b.Node, err = disk.New(disk.Config{
		DeviceDir: b.path("by-id"), DevDir: b.path("dev"), SysDir: b.path("sys"), DeviceTimeout: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bus) path(name string) string { return filepath.Join(b.dir, name) }

// plug makes a disk of 1 GiB appear. files are those of its folder in sysfs.
func (b *bus) plug(t *testing.T, name string, minor int, files map[string]string) {
	t.Helper()
	number := fmt.Sprintf("253:%d", minor)
	files["dev"], files["size"] = number, fmt.Sprint(1<<30/512)
	for file, content := range files {
		path := filepath.Join(b.path("sys/devices"), name, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.symlink(t, b.path("sys/devices/"+name), "sys/block/"+name)
	b.symlink(t, b.path("sys/devices/"+name), "sys/dev/block/"+number)
	if err := unix.Mknod(b.path("dev/"+name), unix.S_IFBLK|0o600, int(unix.Mkdev(253, uint32(minor)))); err != nil {
		t.Skipf("needs to make device nodes: %v", err)
	}
}

func (b *bus) symlink(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, b.path(at)); err != nil {
		t.Fatal(err)
	}
}

func (b *bus) unplug(t *testing.T, name string) {
	t.Helper()
	number, err := os.ReadFile(b.path("sys/devices/" + name + "/dev"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"sys/block/" + name, "sys/dev/block/" + string(number), "sys/devices/" + name, "dev/" + name} {
		if err := os.RemoveAll(b.path(path)); err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bus) requireFound(t *testing.T, vol disk.Volume, name string) {
	t.Helper()
	if dev, err := b.Find(context.Background(), vol); err != nil || dev.Name != name {
		t.Errorf("found %q, %v, want %s", dev.Name, err, name)
	}
}

var busVolume = disk.Volume{ID: "014e4257-3672-4563-ab83-0123456789ab", SizeBytes: 1 << 30}

const busSerial = "014e425736724563ab83"

func vpd(serial string) string {
	page := append([]byte{0, 0x80, 0, 0}, serial...)
	binary.BigEndian.PutUint16(page[2:], uint16(len(serial)))
	return string(page)
}

// A volume may be attached at an address of virtio, SCSI or IDE; its serial number is told in another place on each.
func TestDisksAreFoundOnEveryBus(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"vdb":     {"serial": busSerial + "\n"},
		"nvme1n1": {"device/serial": busSerial + "            \n"},
		"sdb":     {"device/vpd_pg80": vpd(busSerial)},
		"sdc":     {"device/vpd_pg80": vpd("014e4257-3672-4563-ab83-0123456789ab")},
		"sdd":     {"device/vpd_pg80": vpd("    " + strings.ToUpper(busSerial))},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBus(t)
			b.plug(t, "vda", 0, map[string]string{"serial": "01aaaaaabbbb4ccc8ddd"})
			b.plug(t, name, 16, files)
			b.requireFound(t, busVolume, name)
		})
	}
}

func TestLinksAreFoundOnEveryBus(t *testing.T) {
	for _, link := range []string{"virtio-" + busSerial, "scsi-0QEMU_QEMU_HARDDISK_" + busSerial, "ata-QEMU_HARDDISK_" + busSerial,
		"nvme-QEMU_NVMe_Ctrl_" + busSerial, "scsi-0QEMU_QEMU_HARDDISK_014e4257-3672-4563-ab83-0123456789ab"} {
		t.Run(link, func(t *testing.T) {
			b := newBus(t)
			b.plug(t, "sdb", 16, map[string]string{"device/vpd_pg80": vpd(busSerial)})
			if err := os.RemoveAll(b.path("sys/block")); err != nil { // so that only the link leads to it
				t.Fatal(err)
			}
			b.symlink(t, b.path("sys/devices"), "sys/block")
			b.symlink(t, b.path("dev/sdb"), "by-id/"+link)
			b.symlink(t, b.path("dev/sdb"), "by-id/"+link+"-part1")
			b.requireFound(t, busVolume, "sdb")
		})
	}
}

func TestOtherSerialNumbersAreNotTheVolumes(t *testing.T) {
	for _, serial := range []string{"", "014e", busSerial[:19], busSerial + "ff", "014e425736724563ab84", "x" + busSerial} {
		b := newBus(t)
		b.plug(t, "sdb", 16, map[string]string{"device/vpd_pg80": vpd(serial)})
		b.symlink(t, b.path("dev/sdb"), "by-id/virtio-"+busSerial)
		if dev, err := b.Find(context.Background(), busVolume); !errors.Is(err, disk.ErrNoDevice) {
			t.Errorf("serial %q: found %+v, %v", serial, dev, err)
		}
	}
}

// A volume that is detached and attached again comes back under another name, and its old name may be another's by then.
func TestAStaleLinkIsNotBelieved(t *testing.T) {
	b := newBus(t)
	b.plug(t, "vdb", 16, map[string]string{"serial": busSerial})
	b.symlink(t, b.path("dev/vdb"), "by-id/virtio-"+busSerial)
	b.requireFound(t, busVolume, "vdb")

	b.unplug(t, "vdb")
	if _, err := b.Find(context.Background(), busVolume); !errors.Is(err, disk.ErrNoDevice) || !strings.Contains(err.Error(), "points to nothing") {
		t.Errorf("detached: got %v", err)
	}
	b.plug(t, "vdb", 32, map[string]string{"serial": "01aaaaaabbbb4ccc8ddd"})
	if _, err := b.Find(context.Background(), busVolume); !errors.Is(err, disk.ErrNoDevice) || !strings.Contains(err.Error(), "01aaaaaabbbb4ccc8ddd") {
		t.Errorf("another disk under its name: got %v", err)
	}
	b.plug(t, "vdc", 48, map[string]string{"serial": busSerial})
	b.requireFound(t, busVolume, "vdc")
}

func TestADiskWithoutANodeIsExplained(t *testing.T) {
	b := newBus(t)
	b.plug(t, "vdb", 16, map[string]string{"serial": busSerial})
	if err := os.Remove(b.path("dev/vdb")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Find(context.Background(), busVolume); !errors.Is(err, disk.ErrNoDevice) || !strings.Contains(err.Error(), "own /dev") {
		t.Errorf("got %v", err)
	}
}

// The node of a new disk is there a moment before the disk can be opened.
func TestADiskThatCannotBeOpenedYetIsWaitedFor(t *testing.T) {
	b := newBus(t)
	b.plug(t, "vdb", 1<<19, map[string]string{"serial": busSerial}) // a number that no disk has
	if file, err := os.Open(b.path("dev/vdb")); !errors.Is(err, unix.ENXIO) {
		_ = file.Close()
		t.Skipf("needs a node without a disk: %v", err)
	}
	ctx := context.Background()
	for what, err := range map[string]error{
		"filesystem": b.Stage(ctx, disk.StageRequest{Volume: busVolume, Path: b.path("staging")}),
		"raw block":  b.StageBlock(ctx, disk.StageBlockRequest{Volume: busVolume, Path: b.path("staging")}),
	} {
		if !errors.Is(err, disk.ErrNoDevice) || !strings.Contains(err.Error(), "cannot be opened after 10ms") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	patient, err := disk.New(disk.Config{DeviceDir: b.path("by-id"), DevDir: b.path("dev"), SysDir: b.path("sys"), DeviceTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	err = patient.Stage(ctx, disk.StageRequest{Volume: busVolume, Path: b.path("staging")})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), b.path("dev/vdb")) {
		t.Errorf("the caller has left: got %v", err)
	}
}

// What is not a device of the server does not count against the number that it can have; what is in use by the machine does.
func TestDisksOfTheMachine(t *testing.T) {
	b := newBus(t)
	b.plug(t, "vda", 0, map[string]string{"serial": "01aaaaaabbbb4ccc8ddd", "device/vendor": "0x1af4", "vda1/partition": "1",
		"vda1/dev": "253:1", "vda1/size": "2048"})
	b.symlink(t, b.path("sys/devices/vda/vda1"), "sys/dev/block/253:1")
	b.plug(t, "vdb", 16, map[string]string{"serial": busSerial, "device/vendor": "0x1af4"})
	b.plug(t, "sr0", 32, map[string]string{"device/vendor": "QEMU"})
	b.plug(t, "zram0", 48, map[string]string{"disksize": "0"})
	if err := os.MkdirAll(b.path("sys/fs/ext4/vda1"), 0o755); err != nil { // mounted, in whatever namespace
		t.Fatal(err)
	}
	disks, err := b.Disks(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]disk.DiskInfo)
	for _, info := range disks {
		got[info.Name] = info
	}
	if len(got) != 3 || got["zram0"].Name != "" {
		t.Errorf("disks %+v, want vda, vdb and sr0", disks)
	}
	if !got["vda"].UsedOutside("/var/lib/kubelet") || got["vdb"].UsedOutside("/var/lib/kubelet") || got["sr0"].InUse {
		t.Errorf("in use: %+v", disks)
	}
	if vdb := got["vdb"]; !disk.MatchesSerial(vdb.Serial, busVolume.ID) || vdb.SizeBytes != 1<<30 {
		t.Errorf("vdb: %+v", vdb)
	}
}

func TestDisksTellWhatIsStagedFromWhatIsNot(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 320, nil)
	find := func() disk.DiskInfo {
		t.Helper()
		disks, err := m.Disks(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range disks {
			if info.Path == dev && disk.MatchesSerial(info.Serial, vol.ID) {
				return info
			}
		}
		t.Fatalf("%s is not among %+v", dev, disks)
		return disk.DiskInfo{}
	}
	if info := find(); info.InUse || info.UsedOutside(m.dir) {
		t.Errorf("attached only: %+v", info)
	}
	for _, fsType := range []string{"ext4", "btrfs"} {
		requireFilesystem(t, fsType)
		run(t, "wipefs", "-aq", dev)
		run(t, "dd", "if=/dev/zero", "of="+dev, "bs=1M", "count=1", "status=none")
		if err := stage(m, vol, fsType); err != nil {
			t.Fatal(err)
		}
		if info := find(); !info.InUse || info.UsedOutside(m.dir) || !info.UsedOutside(m.path("staging")) || len(info.Mounts) != 1 {
			t.Errorf("staged as %s: %+v", fsType, info)
		}
		if err := m.unstage(vol); err != nil {
			t.Fatal(err)
		}
	}
}
