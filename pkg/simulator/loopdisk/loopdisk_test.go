//go:build linux

package loopdisk_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	sdk "github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"
	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/loopdisk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const testZone = "fi-hel1"

// bench is a simulator with real disks, and one server.
type bench struct {
	*simulatortest.Server
	dir, server string
	api         *service.Service
}

func start(t *testing.T) *bench {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "disks")
	plane, err := loopdisk.New(dir)
	if err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	sim := simulatortest.Start(t, simulator.Config{Disks: plane})
	return &bench{
		Server: sim, dir: dir, server: sim.CreateServer(t, "node-1", testZone),
		api: client(sim),
	}
}

func client(sim *simulatortest.Server) *service.Service {
	return service.New(sdk.New(sim.Username, sim.Password, sdk.WithBaseURL(sim.URL)))
}

func (b *bench) disk(t *testing.T, title string) string {
	t.Helper()
	st, err := b.api.CreateStorage(t.Context(), &request.CreateStorageRequest{Size: 1, Tier: "maxiops", Title: title,
		Zone: testZone})
	if err != nil {
		t.Fatal(err)
	}
	return st.UUID
}

func (b *bench) attach(t *testing.T, disk string) (path string) {
	t.Helper()
	_, err := b.api.AttachStorage(t.Context(), &request.AttachStorageRequest{
		ServerUUID: b.server, StorageUUID: disk, Type: upcloud.StorageTypeDisk, Address: "virtio"})
	if err != nil {
		t.Fatal(err)
	}
	return b.link(disk)
}

func (b *bench) link(disk string) string {
	return filepath.Join(b.dir, "servers", b.server, "by-id", loopdisk.LinkName(disk))
}

func (b *bench) detach(t *testing.T, disk string) {
	t.Helper()
	v, err := b.api.GetServerDetails(t.Context(), &request.GetServerDetailsRequest{UUID: b.server})
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.api.DetachStorage(t.Context(), &request.DetachStorageRequest{ServerUUID: b.server,
		Address: v.StorageDevice(disk).Address})
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) waitOnline(t *testing.T, disk string) {
	t.Helper()
	for {
		st, err := b.api.GetStorageDetails(t.Context(), &request.GetStorageDetailsRequest{UUID: disk})
		if err != nil {
			t.Fatal(err)
		}
		switch st.State {
		case "online":
			return
		case "error":
			t.Fatalf("storage %s is in the state error", disk)
		}
	}
}

func writeAt(t *testing.T, path string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func readAt(t *testing.T, path string, at int64, n int) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, n)
	if _, err := f.ReadAt(data, at); err != nil {
		t.Fatal(err)
	}
	return data
}

func deviceSize(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func TestDiskAppearsGrowsAndDisappears(t *testing.T) {
	b := start(t)
	disk := b.disk(t, "data")
	path := b.attach(t, disk)
	if size := deviceSize(t, path); size != 1<<30 {
		t.Errorf("attached: %d bytes, want 1 GiB", size)
	}
	device, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	backing, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file"))
	if err != nil || !strings.HasPrefix(filepath.Base(string(backing)), disk) {
		t.Errorf("backing file %q (%v), want one whose name begins with %s", backing, err, disk)
	}
	if _, err := b.api.ModifyStorage(t.Context(), &request.ModifyStorageRequest{UUID: disk, Size: 2}); err != nil {
		t.Fatal(err)
	}
	if size := deviceSize(t, path); size != 2<<30 {
		t.Errorf("after the resize: %d bytes, want 2 GiB", size)
	}
	b.detach(t, disk)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("after the detach the link is still there: %v", err)
	}
	if err := b.api.DeleteStorage(t.Context(), &request.DeleteStorageRequest{UUID: disk}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "disks", disk+".img")); !os.IsNotExist(err) {
		t.Errorf("after the deletion the file is still there: %v", err)
	}
}

func TestBackupCloneAndRestoreCarryBytes(t *testing.T) {
	b := start(t)
	disk := b.disk(t, "data")
	path := b.attach(t, disk)
	first, second := []byte("first content"), []byte("other content")
	const near, far = 0, 700 << 20
	writeAt(t, path, near, first)
	writeAt(t, path, far, first)

	backup, err := b.api.CreateBackup(t.Context(), &request.CreateBackupRequest{UUID: disk, Title: "snapshot"})
	if err != nil {
		t.Fatal(err)
	}
	b.waitOnline(t, backup.UUID)
	b.waitOnline(t, disk)
	writeAt(t, path, near, second)

	clone, err := b.api.CloneStorage(t.Context(), &request.CloneStorageRequest{UUID: backup.UUID, Title: "clone",
		Zone: testZone, Tier: "maxiops"})
	if err != nil {
		t.Fatal(err)
	}
	b.waitOnline(t, clone.UUID)
	cloned := b.attach(t, clone.UUID)
	for _, at := range []int64{near, far} {
		if got := readAt(t, cloned, at, len(first)); !bytes.Equal(got, first) {
			t.Errorf("the clone holds %q at %d, want %q", got, at, first)
		}
	}

	b.detach(t, disk)
	if err := b.api.RestoreBackup(t.Context(), &request.RestoreBackupRequest{UUID: backup.UUID}); err != nil {
		t.Fatal(err)
	}
	b.waitOnline(t, disk)
	if got := readAt(t, b.attach(t, disk), near, len(first)); !bytes.Equal(got, first) {
		t.Errorf("restored: %q, want %q", got, first)
	}
}

func TestSparseFilesStaySparse(t *testing.T) {
	b := start(t)
	disk := b.disk(t, "data")
	writeAt(t, b.attach(t, disk), 512<<20, []byte("in the middle"))
	backup, err := b.api.CreateBackup(t.Context(), &request.CreateBackupRequest{UUID: disk, Title: "snapshot"})
	if err != nil {
		t.Fatal(err)
	}
	b.waitOnline(t, backup.UUID)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(b.dir, "disks", backup.UUID+".img"), &st); err != nil {
		t.Fatal(err)
	}
	if used := st.Blocks * 512; used > 16<<20 || st.Size != 1<<30 {
		t.Errorf("the backup of one written block uses %d bytes of %d", used, st.Size)
	}
}

func TestCloseRemovesEverything(t *testing.T) {
	b := start(t)
	path := b.attach(t, b.disk(t, "data"))
	device, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(b.dir); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
	backing, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(device), "loop/backing_file"))
	if err == nil && strings.HasPrefix(string(backing), b.dir) {
		t.Errorf("%s is still backed by %s", device, backing)
	}
}

func TestPlaneKilledLeavesNothingToItsSuccessor(t *testing.T) {
	dir := t.TempDir()
	killed, err := loopdisk.New(dir)
	if err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	const disk, server = "01e51df3-2b1c-4a16-8a52-2f1927f2993c", "00e51df3-2b1c-4a16-8a52-2f1927f2993c"
	if err := killed.Create(disk, 1); err != nil {
		t.Fatal(err)
	}
	if err := killed.Attach(t.Context(), server, disk, "virtio:1"); err != nil {
		t.Fatal(err)
	}
	next, err := loopdisk.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := next.Create(disk, 1); err != nil {
		t.Errorf("the file of the killed plane is in the way: %v", err)
	}
	if links, _ := filepath.Glob(filepath.Join(dir, "servers", "*", "by-id", "*")); len(links) > 0 {
		t.Errorf("links of the killed plane: %v", links)
	}
}
