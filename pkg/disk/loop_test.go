package disk_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

const mib = 1 << 20

// machine is a node whose disks are loop devices on files of the test.
type machine struct {
	*disk.Node
	dir, deviceDir string
	registry       *prometheus.Registry
	devices        map[string]string // by volume ID, as last attached
}

func newMachine(t *testing.T, timeout time.Duration) *machine {
	t.Helper()
	requireLoopDevices(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{dir: dir, deviceDir: filepath.Join(dir, "by-id"), registry: prometheus.NewRegistry(),
		devices: make(map[string]string)}
	if err := os.Mkdir(m.deviceDir, 0o755); err != nil {
		t.Fatal(err)
	}
	m.Node, err = disk.New(disk.Config{DeviceDir: m.deviceDir, DeviceTimeout: timeout, ReleaseTimeout: time.Minute,
		ResizeTimeout: timeout, Registerer: m.registry})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
		unmountBelow(t, dir)
	})
	return m
}

// impatient returns the driver on the same machine, started anew, that soon tells who keeps a device.
func (m *machine) impatient(t *testing.T) *disk.Node {
	t.Helper()
	node, err := disk.New(disk.Config{DeviceDir: m.deviceDir, DeviceTimeout: time.Second, ReleaseTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return node
}

// requireLoopDevices skips the test where it cannot make block devices.
func requireLoopDevices(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make loop devices and to mount")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skip("needs loop devices: no /dev/loop-control")
	}
	for _, program := range []string{"losetup", "blkid", "mkfs.ext4", "e2fsck"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
}

// requireFilesystem skips the test where a type of filesystem cannot be made or mounted.
func requireFilesystem(t *testing.T, fsType string) {
	t.Helper()
	if _, err := exec.LookPath("mkfs." + fsType); err != nil {
		t.Skipf("needs mkfs.%s", fsType)
	}
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(known), "\t"+fsType+"\n") || exec.Command("modprobe", fsType).Run() == nil {
		return
	}
	t.Skipf("needs a kernel with %s", fsType)
}

// attach makes a disk of the volume: a sparse file on a loop device with a link by serial. prepare, if not nil, fills
// the file first.
func (m *machine) attach(t *testing.T, sizeMiB int64, prepare func(file string)) (disk.Volume, string) {
	t.Helper()
	vol := m.makeDisk(t, sizeMiB)
	file := m.path(vol.ID + ".img")
	if prepare != nil {
		prepare(file)
	}
	return vol, m.attachFile(t, vol.ID, file)
}

// makeDisk makes a disk that is attached to nothing: a sparse file named after it.
func (m *machine) makeDisk(t *testing.T, sizeMiB int64) disk.Volume {
	t.Helper()
	vol := disk.Volume{ID: "01" + uuid.NewString()[2:], SizeBytes: sizeMiB * mib}
	file := m.path(vol.ID + ".img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, vol.SizeBytes); err != nil {
		t.Fatal(err)
	}
	return vol
}

func (m *machine) attachFile(t *testing.T, volumeID, file string) string {
	t.Helper()
	dev := strings.TrimSpace(run(t, "losetup", "--find", "--show", "--partscan", file))
	run(t, "blockdev", "--setrw", dev) // the kernel remembers how the former disk was
	t.Cleanup(func() {
		unmountBelow(t, m.dir)
		run(t, "losetup", "--detach", dev)
	})
	m.devices[volumeID] = dev
	scanPartitions(t, dev)
	m.link(t, volumeID, dev)
	return dev
}

// scanPartitions tells the kernel of the partitions on a disk, for kernels that do not read partition tables.
func scanPartitions(t *testing.T, dev string) {
	t.Helper()
	out, err := exec.Command("blkid", "-p", "-s", "PTTYPE", "-o", "value", dev).Output()
	if err != nil || strings.TrimSpace(string(out)) == "" {
		return
	}
	if found, err := filepath.Glob(dev + "p*"); err != nil || len(found) > 0 {
		return
	}
	if _, err := exec.LookPath("partx"); err != nil {
		t.Skip("needs partx: this kernel does not read partition tables")
	}
	run(t, "partx", "--add", dev)
}

func (m *machine) link(t *testing.T, volumeID, dev string) {
	t.Helper()
	name, err := disk.LinkName(volumeID)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dev, filepath.Join(m.deviceDir, name)); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// unmountBelow takes down what a failed test left mounted, the newest first.
func unmountBelow(t *testing.T, dir string) {
	t.Helper()
	infos, err := mount.ParseMountInfo("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for i := len(infos) - 1; i >= 0; i-- {
		if strings.HasPrefix(infos[i].MountPoint, dir+"/") {
			run(t, "umount", infos[i].MountPoint)
		}
	}
}

func mountsOn(t *testing.T, path string) (found []mount.MountInfo) {
	t.Helper()
	infos, err := mount.ParseMountInfo("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		if info.MountPoint == path {
			found = append(found, info)
		}
	}
	return found
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// fingerprint tells whether anything was written to a disk: a checksum of all blocks that are not zero, and where they
// are. It reads only what the sparse file holds.
func fingerprint(t *testing.T, dev, path string) uint32 {
	t.Helper()
	run(t, "sync", dev, path)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const block = 4096
	zeros, buffer := make([]byte, block), make([]byte, block)
	sum := crc32.NewIEEE()
	for at := int64(0); ; at += block {
		if at, err = unix.Seek(int(file.Fd()), at, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
			return sum.Sum32()
		}
		if err != nil {
			t.Fatal(err)
		}
		at -= at % block
		if _, err := file.ReadAt(buffer, at); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buffer, zeros) {
			fmt.Fprintf(sum, "at %d:", at)
			sum.Write(buffer)
		}
	}
}

// writeGPT writes a GUID partition table with n partitions of equal size, as parted would.
func writeGPT(t *testing.T, file string, n int) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	const sector, first, entries, entrySize = 512, 2048, 128, 128
	last := uint64(st.Size()/sector) - 1
	each := (last - 34 - first) / uint64(n)
	table := make([]byte, entries*entrySize)
	linux := uuid.MustParse("af3dc60f-8384-7247-8e79-3d69d8477de4") // Linux filesystem data, byte order of the disk
	for i := range n {
		entry := table[i*entrySize:]
		copy(entry, linux[:])
		unique := uuid.New()
		copy(entry[16:], unique[:])
		start := uint64(first) + uint64(i)*each
		binary.LittleEndian.PutUint64(entry[32:], start)
		binary.LittleEndian.PutUint64(entry[40:], start+each-1)
	}
	diskID := uuid.New()
	header := func(self, other, entriesAt uint64) []byte {
		h := make([]byte, sector)
		copy(h, "EFI PART")
		binary.LittleEndian.PutUint32(h[8:], 0x10000)
		binary.LittleEndian.PutUint32(h[12:], 92)
		binary.LittleEndian.PutUint64(h[24:], self)
		binary.LittleEndian.PutUint64(h[32:], other)
		binary.LittleEndian.PutUint64(h[40:], 34)
		binary.LittleEndian.PutUint64(h[48:], last-33)
		copy(h[56:], diskID[:])
		binary.LittleEndian.PutUint64(h[72:], entriesAt)
		binary.LittleEndian.PutUint32(h[80:], entries)
		binary.LittleEndian.PutUint32(h[84:], entrySize)
		binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(table))
		binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	mbr := make([]byte, sector)
	copy(mbr[446:], []byte{0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0})
	binary.LittleEndian.PutUint32(mbr[446+12:], uint32(last))
	mbr[510], mbr[511] = 0x55, 0xaa
	write := func(lba uint64, data []byte) {
		if _, err := f.WriteAt(data, int64(lba*sector)); err != nil {
			t.Fatal(err)
		}
	}
	write(0, bytes.Join([][]byte{mbr, header(1, last, 2), table}, nil))
	write(last-32, bytes.Join([][]byte{table, header(last, 1, last-32)}, nil))
}
