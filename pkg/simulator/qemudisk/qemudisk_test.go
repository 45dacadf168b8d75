//go:build linux

package qemudisk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// bench is a simulator with disks for QEMU machines, and a server in it.
type bench struct {
	*simulatortest.Server
	plane  *Plane
	server string

	mu       sync.Mutex
	failures []string
}

func start(t *testing.T, cfg Config) *bench {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("needs qemu-system-x86_64: package qemu-system-x86")
	}
	b := &bench{}
	cfg.Dir = filepath.Join(shortDir(t), "sim")
	cfg.ErrorLog = func(err error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.failures = append(b.failures, err.Error())
	}
	plane, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.plane = plane
	b.Server = simulatortest.Start(t, simulator.Config{Disks: plane, ErrorLog: cfg.ErrorLog})
	b.server = b.CreateServer(t, "node-1", "fi-hel1")
	return b
}

// shortDir is a folder whose name leaves room for sockets' names.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (b *bench) reported() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.failures, "\n")
}

func (b *bench) create(t *testing.T, title string) string {
	t.Helper()
	var answer struct{ Storage struct{ UUID string } }
	b.Do(t, "POST", "/storage", fmt.Sprintf(`{"storage":{"size":1,"tier":"maxiops","title":%q,"zone":"fi-hel1"}}`, title), &answer)
	return answer.Storage.UUID
}

// attach answers with the status and the body.
func (b *bench) attach(t *testing.T, storage, address string) (int, string) {
	t.Helper()
	status, body := b.Raw(t, "POST", "/server/"+b.server+"/storage/attach",
		fmt.Sprintf(`{"storage_device":{"type":"disk","address":%q,"storage":%q}}`, address, storage))
	return status, string(body)
}

func (b *bench) detach(t *testing.T, address string) (int, string) {
	t.Helper()
	status, body := b.Raw(t, "POST", "/server/"+b.server+"/storage/detach",
		fmt.Sprintf(`{"storage_device":{"address":%q}}`, address))
	return status, string(body)
}

func wantStatus(t *testing.T, want, got int, body string) {
	t.Helper()
	if got != want {
		t.Fatalf("status %d, want %d: %s", got, want, body)
	}
}

// qemu is a machine whose guest does nothing: its processors stand still.
type qemu struct {
	*qmpClient
	process *exec.Cmd
}

// boot runs a machine for the server until the test ends.
func (b *bench) boot(t *testing.T, args ...string) *qemu {
	t.Helper()
	monitor := filepath.Join(shortDir(t), "monitor.sock")
	args = append([]string{
		"-S", "-machine", "pc", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none",
		"-qmp", "unix:" + b.plane.Socket(b.server) + ",server=on,wait=off", "-qmp", "unix:" + monitor + ",server=on,wait=off",
	}, args...)
	q := &qemu{process: exec.Command("qemu-system-x86_64", args...)}
	q.process.Stderr = os.Stderr
	if err := q.process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.kill(t) })
	until(t, "the machine's monitor answers", func() (err error) {
		q.qmpClient, err = dialQMP(t.Context(), monitor, func(qmpEvent) {})
		return err
	})
	return q
}

func (q *qemu) kill(t *testing.T) {
	t.Helper()
	if q.process.ProcessState != nil {
		return
	}
	if err := q.process.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = q.process.Wait() // it was killed
	if q.qmpClient != nil {
		q.close()
	}
}

// property is one of the disk's device, an error when there is no such device.
func (q *qemu) property(t *testing.T, storage, name string) (value any, err error) {
	t.Helper()
	return value, q.ask(t.Context(), &value, "qom-get",
		map[string]any{"path": "/machine/peripheral/" + deviceID(storage), "property": name})
}

func (q *qemu) wantDisk(t *testing.T, storage, driver string) {
	t.Helper()
	if serial, err := q.property(t, storage, "serial"); err != nil || serial != strings.ReplaceAll(storage, "-", "")[:20] {
		t.Fatalf("the disk %s has the serial number %v, %v", storage, serial, err)
	}
	if kind, err := q.property(t, storage, "type"); err != nil || kind != driver {
		t.Fatalf("the disk %s is a %v, want %s", storage, kind, driver)
	}
}

func (q *qemu) wantNoDisk(t *testing.T, storage string) {
	t.Helper()
	if serial, err := q.property(t, storage, "serial"); err == nil {
		t.Fatalf("the disk %s is there, with the serial number %v", storage, serial)
	}
	if size := q.size(t, storage); size != 0 {
		t.Fatalf("the image of %s is still open, with %d bytes", storage, size)
	}
}

// size is that of the disk as the guest sees it, 0 if QEMU has not got its image.
func (q *qemu) size(t *testing.T, storage string) int64 {
	t.Helper()
	var nodes []struct {
		Name  string `json:"node-name"`
		Image struct {
			Size int64 `json:"virtual-size"`
		}
	}
	if err := q.ask(t.Context(), &nodes, "query-named-block-nodes", nil); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if n.Name == nodeName(storage) {
			return n.Image.Size
		}
	}
	return 0
}

func until(t *testing.T, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	for ; ctx.Err() == nil; sleep(ctx, 5*time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("a minute has passed until %s: %v", what, err)
}

func TestDisksArePluggedIntoARunningMachine(t *testing.T) {
	b := start(t, Config{})
	q := b.boot(t)
	disk := b.create(t, "data")
	status, body := b.attach(t, disk, "virtio:3")
	wantStatus(t, http.StatusOK, status, body)
	q.wantDisk(t, disk, "virtio-blk-pci")
	if addr, err := q.property(t, disk, "addr"); err != nil || addr != float64(11<<3) {
		t.Errorf("PCI slot and function %v, %v, want slot 11", addr, err)
	}
	b.Do(t, "PUT", "/storage/"+disk, `{"storage":{"size":3}}`, nil)
	if size := q.size(t, disk); size != 3*gib {
		t.Errorf("after the resize the guest sees %d bytes", size)
	}
	if reported := b.reported(); reported != "" {
		t.Errorf("reported: %s", reported)
	}
}

func TestSCSIDisksComeAndGo(t *testing.T) {
	b := start(t, Config{})
	q := b.boot(t)
	one, two := b.create(t, "one"), b.create(t, "two")
	for range 2 {
		for disk, address := range map[string]string{one: "scsi:0:1", two: "scsi:0:15"} {
			status, body := b.attach(t, disk, address)
			wantStatus(t, http.StatusOK, status, body)
			q.wantDisk(t, disk, "scsi-hd")
		}
		for disk, address := range map[string]string{one: "scsi:0:1", two: "scsi:0:15"} {
			status, body := b.detach(t, address)
			wantStatus(t, http.StatusOK, status, body)
			q.wantNoDisk(t, disk)
		}
	}
	b.Do(t, "PUT", "/storage/"+one, `{"storage":{"size":2}}`, nil)
	if st, err := os.Stat(b.plane.images.Path(one)); err != nil || st.Size() != 2*gib {
		t.Errorf("the image of a disk that is in no machine: %v, %v", st, err)
	}
}

func TestAMachineThatComesLaterGetsItsDisks(t *testing.T) {
	b := start(t, Config{})
	disk, gone := b.create(t, "data"), b.create(t, "gone")
	for address, d := range map[string]string{"virtio:1": disk, "virtio:2": gone} {
		status, body := b.attach(t, d, address)
		wantStatus(t, http.StatusOK, status, body)
	}
	status, body := b.detach(t, "virtio:2")
	wantStatus(t, http.StatusOK, status, body)
	b.Do(t, "PUT", "/storage/"+disk, `{"storage":{"size":2}}`, nil)
	for range 2 {
		q := b.boot(t)
		until(t, "the machine has its disk", func() error { _, err := q.property(t, disk, "serial"); return err })
		if size := q.size(t, disk); size != 2*gib {
			t.Errorf("the guest sees %d bytes", size)
		}
		q.wantNoDisk(t, gone)
		q.kill(t) // and comes again
	}
	b.Do(t, "PUT", "/storage/"+disk, `{"storage":{"size":3}}`, nil)
	q := b.boot(t)
	until(t, "the machine has its disk", func() error { _, err := q.property(t, disk, "serial"); return err })
	if size := q.size(t, disk); size != 3*gib {
		t.Errorf("the guest sees %d bytes", size)
	}
}

// A guest whose processors stand still lets go of nothing on the PCI bus.
func TestAGuestThatKeepsADiskKeepsItInTheAPI(t *testing.T) {
	b := start(t, Config{ReleaseTimeout: 50 * time.Millisecond})
	q := b.boot(t)
	disk := b.create(t, "data")
	status, body := b.attach(t, disk, "virtio:1")
	wantStatus(t, http.StatusOK, status, body)
	for range 2 {
		status, body = b.detach(t, "virtio:1")
		wantStatus(t, http.StatusServiceUnavailable, status, body)
		if !strings.Contains(body, "the guest has not let go of the disk") {
			t.Errorf("the answer does not say why: %s", body)
		}
		q.wantDisk(t, disk, "virtio-blk-pci")
		var answer struct {
			Storage struct{ Servers struct{ Server []string } }
		}
		b.Do(t, "GET", "/storage/"+disk, "", &answer)
		if len(answer.Storage.Servers.Server) != 1 {
			t.Errorf("the storage is attached to %v", answer.Storage.Servers.Server)
		}
	}
	q.kill(t)
	status, body = b.detach(t, "virtio:1")
	wantStatus(t, http.StatusOK, status, body)
}

func TestADiskThatQEMUDoesNotTakeIsNotAttached(t *testing.T) {
	b := start(t, Config{})
	b.boot(t, "-device", "virtio-rng-pci,addr=9") // where virtio:1 belongs
	disk := b.create(t, "data")
	status, body := b.attach(t, disk, "virtio:1")
	wantStatus(t, http.StatusServiceUnavailable, status, body)
	if !strings.Contains(body, "QEMU") {
		t.Errorf("the answer does not say who refused: %s", body)
	}
	status, body = b.attach(t, disk, "virtio:2")
	wantStatus(t, http.StatusOK, status, body)
	status, body = b.attach(t, b.create(t, "ide"), "ide:0:1")
	if status < 400 {
		t.Errorf("an IDE disk was plugged into a machine that runs: %d %s", status, body)
	}
}

func TestDeletingTheServerTakesItsDisks(t *testing.T) {
	b := start(t, Config{})
	q := b.boot(t)
	disk := b.create(t, "data")
	status, body := b.attach(t, disk, "scsi:0:2")
	wantStatus(t, http.StatusOK, status, body)
	if err := b.RemoveServer(b.server); err != nil {
		t.Fatal(err)
	}
	until(t, "the image is closed", func() error {
		if size := q.size(t, disk); size != 0 {
			return errors.New("it is open")
		}
		return nil
	})
	b.Do(t, "DELETE", "/storage/"+disk, "", nil)
	if _, err := os.Stat(b.plane.images.Path(disk)); !os.IsNotExist(err) {
		t.Errorf("the image of a deleted storage: %v", err)
	}
}

// Another plane finds a machine as the one before it left it.
func TestAMachineOutlivesThePlane(t *testing.T) {
	b := start(t, Config{})
	dir := filepath.Join(shortDir(t), "kept")
	const kept, dropped, server = "01a00000-0000-4000-8000-000000000001", "01b00000-0000-4000-8000-000000000002", "s"
	const second = "01c00000-0000-4000-8000-000000000003"
	run := func() *Plane {
		plane, err := New(Config{Dir: dir, Keep: true, ErrorLog: func(err error) { t.Error(err) }})
		if err != nil {
			t.Fatal(err)
		}
		missing, unknown, err := plane.Keep(map[string]simulator.KeptDisk{
			kept: {Size: 1, Server: server}, second: {Size: 1, Server: server}, dropped: {Size: 1},
		}, true)
		if err != nil || len(missing)+len(unknown) != 0 {
			t.Fatal(missing, unknown, err)
		}
		return plane
	}
	plane := run()
	for disk, address := range map[string]string{kept: "virtio:1", dropped: "scsi:0:1", second: "scsi:0:2"} {
		if err := plane.Attach(t.Context(), server, disk, address); err != nil {
			t.Fatal(err)
		}
	}
	b.plane, b.server = plane, server
	q := b.boot(t)
	until(t, "the machine has its disks", func() error {
		_, err := q.property(t, kept, "serial")
		_, other := q.property(t, dropped, "serial")
		return errors.Join(err, other)
	})
	if err := plane.Close(); err != nil {
		t.Fatal(err)
	}
	q.wantDisk(t, kept, "virtio-blk-pci")
	if err := os.Truncate(filepath.Join(dir, "disks", kept+".img"), 2*gib); err != nil {
		t.Fatal(err)
	}
	plane = run()
	if err := errors.Join(plane.Attach(t.Context(), server, kept, "virtio:1"), plane.Attach(t.Context(), server, second, "scsi:0:2")); err != nil {
		t.Fatal(err)
	}
	q.wantDisk(t, kept, "virtio-blk-pci")
	q.wantDisk(t, second, "scsi-hd")
	if size := q.size(t, kept); size != 2*gib {
		t.Errorf("the guest sees %d bytes", size)
	}
	until(t, "the disk that was detached meanwhile is gone", func() error {
		if _, err := q.property(t, dropped, "serial"); err == nil || q.size(t, dropped) != 0 {
			return errors.New("it is there")
		}
		return nil
	})
	q.kill(t)
	if err := plane.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestClosingLeavesNothing(t *testing.T) {
	dir := filepath.Join(shortDir(t), "sim")
	plane, err := New(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	const disk = "01a00000-0000-4000-8000-000000000001"
	if err := errors.Join(plane.Create(disk, 1), plane.Attach(t.Context(), "s", disk, "virtio:1")); err != nil {
		t.Fatal(err)
	}
	if err := plane.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
	if err := plane.Attach(t.Context(), "s", disk, "virtio:1"); err == nil {
		t.Error("a closed plane attaches disks")
	}
}
