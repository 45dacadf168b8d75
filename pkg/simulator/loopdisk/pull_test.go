//go:build linux

package loopdisk_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/loopdisk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func until(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s: %v", what, err)
		}
	}
}

// direct opens a device past the kernel's cache.
func direct(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// aligned returns a block that direct access takes, which begins with text.
func aligned(t *testing.T, text string) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	copy(b, text)
	return b
}

func TestPulledDiskFailsAndLosesNothing(t *testing.T) {
	b := start(t)
	disk := b.disk(t, "data")
	path := b.attach(t, disk)
	used := direct(t, path)
	device, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := used.WriteAt(aligned(t, "before"), 1<<20); err != nil {
		t.Fatal(err)
	}
	writeAt(t, path, 2<<20, []byte("through the cache"))
	b.detach(t, disk)

	if _, err := used.ReadAt(aligned(t, ""), 1<<20); err == nil {
		t.Error("the pulled disk still can be read")
	}
	if _, err := used.WriteAt(aligned(t, "after"), 1<<20); err == nil {
		t.Error("the pulled disk still can be written")
	}
	// the same bytes, in another machine, while the first still has the dead device open
	b.server = b.CreateServer(t, "node-2", testZone)
	elsewhere := b.attach(t, disk)
	for at, want := range map[int64]string{1 << 20: "before", 2 << 20: "through the cache"} {
		if got := readAt(t, elsewhere, at, len(want)); string(got) != want {
			t.Errorf("at %d the disk holds %q, want %q", at, got, want)
		}
	}
	if size := deviceSize(t, elsewhere); size != 1<<30 {
		t.Errorf("elsewhere the disk has %d bytes", size)
	}
	if err := used.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the device that nobody uses is gone", func() error {
		backing, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file"))
		if err == nil && strings.Contains(string(backing), disk) {
			return fmt.Errorf("%s is backed by %s", device, backing)
		}
		return nil
	})
}

func TestPulledFilesystemFailsAndLosesNothing(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Skip("mkfs.ext4 is missing: package e2fsprogs")
	}
	b := start(t)
	disk := b.disk(t, "data")
	path := b.attach(t, disk)
	if out, err := exec.Command(mkfs, "-q", path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs: %s", out)
	}
	mounted := t.TempDir()
	mount := func() {
		t.Helper()
		device, err := os.Readlink(b.link(disk))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(device, mounted, "ext4", 0, ""); err != nil {
			t.Fatalf("mount %s: %v", device, err)
		}
	}
	mount()
	defer func() { _ = unix.Unmount(mounted, unix.MNT_DETACH) }()
	file := filepath.Join(mounted, "file")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
	b.detach(t, disk)
	err = os.WriteFile(filepath.Join(mounted, "more"), bytes.Repeat([]byte("x"), 1<<20), 0o600)
	if f, openErr := os.Open(mounted); openErr == nil {
		if syncErr := unix.Syncfs(int(f.Fd())); syncErr != nil {
			err = syncErr
		}
		f.Close()
	}
	if err == nil {
		t.Error("the filesystem of a pulled disk works on")
	}
	if err := unix.Unmount(mounted, 0); err != nil {
		t.Fatalf("unmount: %v", err)
	}
	b.attach(t, disk)
	mount()
	if got, err := os.ReadFile(file); err != nil || string(got) != "kept" {
		t.Errorf("after the disk came back the file holds %q, %v", got, err)
	}
	if err := unix.Unmount(mounted, 0); err != nil {
		t.Fatalf("unmount: %v", err)
	}
}

// partitionTable is one with a partition from 1 MiB to the disk's end.
func partitionTable(sectors uint32) []byte {
	table := make([]byte, 512)
	entry := table[446:]
	entry[4] = 0x83 // Linux
	binary.LittleEndian.PutUint32(entry[8:], 2048)
	binary.LittleEndian.PutUint32(entry[12:], sectors-2048)
	table[510], table[511] = 0x55, 0xaa
	return table
}

func reread(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0); err != nil {
		t.Fatalf("read the partition table again: %v", err)
	}
}

func TestPartitionsAppearBesideTheDisk(t *testing.T) {
	b := start(t)
	disk := b.disk(t, "data")
	path := b.attach(t, disk)
	first := path + "-part1"
	absent := func() error {
		if _, err := os.Lstat(first); !os.IsNotExist(err) {
			return fmt.Errorf("%s is there: %s", first, fmt.Sprint(err))
		}
		return nil
	}
	if err := absent(); err != nil {
		t.Fatal(err)
	}
	writeAt(t, path, 0, partitionTable(1<<30/512))
	until(t, "the partition's link is there", func() error { _, err := os.Stat(first); return err })
	writeAt(t, first, 0, []byte("in the partition"))
	if got := readAt(t, filepath.Join(b.dir, "disks", disk+".img"), 1<<20, 16); string(got) != "in the partition" {
		t.Errorf("the file holds %q at 1 MiB", got)
	}
	node, err := os.Readlink(first)
	if err != nil {
		t.Fatal(err)
	}
	b.detach(t, disk)
	if err := absent(); err != nil {
		t.Errorf("after the detach: %v", err)
	}
	until(t, "the partition's node is gone", func() error {
		if _, err := os.Stat("/sys/class/block/" + filepath.Base(node)); !os.IsNotExist(err) {
			return fmt.Errorf("%s: %s", node, fmt.Sprint(err))
		}
		return nil
	})
	b.attach(t, disk)
	if got := readAt(t, first, 0, 16); string(got) != "in the partition" {
		t.Errorf("attached again the partition holds %q", got)
	}
	writeAt(t, path, 0, make([]byte, 512))
	reread(t, path)
	until(t, "the link of the partition that is no more is gone", absent)
}

func TestDisksOutliveTheSimulator(t *testing.T) {
	stateDir, dir := t.TempDir(), filepath.Join(t.TempDir(), "disks")
	var reports []string
	run := func() *bench {
		plane, err := loopdisk.Open(dir)
		if err != nil {
			t.Skipf("no loop devices here: %v", err)
		}
		sim := simulatortest.Start(t, simulator.Config{Disks: plane, StateDir: stateDir, ErrorLog: func(err error) {
			reports = append(reports, err.Error())
		}})
		return &bench{Server: sim, dir: dir, api: client(sim)}
	}
	b := run()
	b.server = b.CreateServer(t, "node-1", testZone)
	attached, idle, inUse := b.disk(t, "attached"), b.disk(t, "idle"), b.disk(t, "in use")
	writeAt(t, b.attach(t, attached), 0, []byte("attached"))
	writeAt(t, b.attach(t, idle), 0, []byte("idle"))
	b.detach(t, idle)
	used := direct(t, b.attach(t, inUse))
	device, err := os.Readlink(b.link(inUse))
	if err != nil {
		t.Fatal(err)
	}
	server := b.server
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = run()
	b.server = server
	if got := readAt(t, b.link(attached), 0, 8); string(got) != "attached" {
		t.Errorf("the attached disk holds %q", got)
	}
	if now, err := os.Readlink(b.link(inUse)); err != nil || now != device {
		t.Errorf("the disk in use was %s, is %s, %v", device, now, err)
	}
	if _, err := used.WriteAt(aligned(t, "on"), 0); err != nil {
		t.Errorf("the machine that uses the disk: %v", err)
	}
	if got := readAt(t, b.attach(t, idle), 0, 4); string(got) != "idle" {
		t.Errorf("the idle disk holds %q", got)
	}
	b.detach(t, inUse)
	if _, err := used.WriteAt(aligned(t, "on"), 0); err == nil {
		t.Error("a disk that was taken over works on after its detach")
	}
	used.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	orphan := filepath.Join(dir, "disks", "01e51df3-2b1c-4a16-8a52-2f1927f2993c.img")
	if err := os.Rename(filepath.Join(dir, "disks", idle+".img"), orphan); err != nil {
		t.Fatal(err)
	}
	b = run()
	if _, err := os.Stat(orphan); err != nil || !strings.Contains(strings.Join(reports, "\n"), orphan) ||
		!strings.Contains(strings.Join(reports, "\n"), idle) {
		t.Errorf("a file of no storage, and a storage of no file: %v, reported %q", err, reports)
	}
	st, err := b.api.GetStorageDetails(t.Context(), &request.GetStorageDetailsRequest{UUID: idle})
	if err != nil || st.State != "error" {
		t.Errorf("the storage whose file is gone: %+v, %v", st, err)
	}
}

// UpCloud's own driver gives a disk a GPT with one partition.
func TestPartitionOfAGPTAppears(t *testing.T) {
	sfdisk, err := exec.LookPath("sfdisk")
	if err != nil {
		t.Skip("sfdisk is missing: package fdisk")
	}
	b := start(t)
	path := b.attach(t, b.disk(t, "data"))
	cmd := exec.Command(sfdisk, path)
	cmd.Stdin = strings.NewReader("label: gpt\n,,\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %s", out)
	}
	until(t, "the partition's link is there", func() error { _, err := os.Stat(path + "-part1"); return err })
	if size := deviceSize(t, path+"-part1"); size < 1<<30-4<<20 || size > 1<<30-2<<20 {
		t.Errorf("the partition has %d bytes", size)
	}
}
