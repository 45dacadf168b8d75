package disk_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// markedDisk attaches a volume whose format was interrupted right after its disk was marked.
func (m *machine) markedDisk(t *testing.T, sizeMiB int64) (vol disk.Volume, dev string) {
	t.Helper()
	vol = m.makeDisk(t, sizeMiB)
	image := m.path(vol.ID + ".img")
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte("cloud-provider-upcloud: formatting volume "+vol.ID+"\n"), vol.SizeBytes-192<<10); err != nil {
		t.Fatal(err)
	}
	return vol, m.attachFile(t, vol.ID, image)
}

// haveExclusively opens a device exclusively, as a program that formats it does.
func haveExclusively(t *testing.T, dev string) *os.File {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		file, err := os.OpenFile(dev, os.O_RDWR|unix.O_EXCL, 0)
		if err == nil {
			return file
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// untilItWaitsFor waits until the work on a volume waits for its disk, which is in use.
func untilItWaitsFor(t *testing.T, dev string, again func(context.Context) error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		err := again(ctx)
		cancel()
		if err != nil && strings.Contains(err.Error(), "waiting until "+dev+" is not in use") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A disk whose format was interrupted may be in use by another program for a moment, which puts it to use.
func TestADiskThatIsPutToUseWhileItIsWaitedForIsNotErased(t *testing.T) {
	const size = 320
	for _, as := range []struct {
		name, fsType string
		encryption   *disk.Encryption
	}{{"ext4", "ext4", nil}, {"btrfs", "btrfs", nil}, {"encrypted", "ext4", encrypted("secret")}} {
		for name, use := range map[string]func(t *testing.T, image string, dev *os.File){
			"an xfs": func(t *testing.T, image string, dev *os.File) {
				run(t, "dd", "if="+image, "of="+dev.Name(), "bs=64k", "conv=sparse,notrunc", "status=none")
			},
			"data over the marker": func(t *testing.T, _ string, dev *os.File) {
				if _, err := dev.WriteAt([]byte("precious"), size<<20-192<<10); err != nil {
					t.Fatal(err)
				}
			},
		} {
			t.Run(as.name+"/"+name, func(t *testing.T) {
				m := newMachine(t, time.Minute)
				requireFilesystem(t, as.fsType)
				requireFilesystem(t, "xfs")
				if _, err := exec.LookPath("cryptsetup"); as.encryption != nil && err != nil {
					t.Skip("needs cryptsetup")
				}
				vol, dev := m.markedDisk(t, size)
				req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: as.fsType, Encryption: as.encryption}
				image := m.path(m.makeDisk(t, size).ID + ".img")
				run(t, "mkfs.xfs", "-q", image)
				theirs := haveExclusively(t, dev)
				outcome := make(chan error)
				go func() { outcome <- m.Stage(context.Background(), req) }()
				untilItWaitsFor(t, dev, func(ctx context.Context) error { return m.Stage(ctx, req) })
				use(t, image, theirs)
				run(t, "sync", dev)
				written := m.exceptMarker(t, vol, dev)
				if err := theirs.Close(); err != nil {
					t.Fatal(err)
				}
				if err := <-outcome; !errors.Is(err, disk.ErrRefused) {
					t.Errorf("got %v, want a refusal", err)
				}
				if m.exceptMarker(t, vol, dev) != written {
					t.Error("the disk was written to")
				}
			})
		}
	}
}

// A raw block volume loses the marker of a format, unless something else is there by the time that the disk is free.
func TestWhatIsWrittenOverAMarkerWhileTheDiskIsWaitedForStays(t *testing.T) {
	m := newMachine(t, time.Minute)
	vol, dev := m.markedDisk(t, 64)
	req := disk.StageBlockRequest{Volume: vol, Path: m.path("raw")}
	theirs := haveExclusively(t, dev)
	outcome := make(chan error)
	go func() { outcome <- m.StageBlock(context.Background(), req) }()
	untilItWaitsFor(t, dev, func(ctx context.Context) error { return m.StageBlock(ctx, req) })
	const precious = "precious"
	if _, err := theirs.WriteAt([]byte(precious), vol.SizeBytes-192<<10); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-outcome; err != nil {
		t.Error(err)
	}
	if got := readAt(t, dev, vol.SizeBytes-192<<10, len(precious)); got != precious {
		t.Errorf("on the disk is %q", got)
	}
}

func readAt(t *testing.T, dev string, at int64, length int) string {
	t.Helper()
	file, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	data := make([]byte, length)
	if _, err := file.ReadAt(data, at); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A program that gets the disk as soon as it was proved to be blank keeps what it writes.
func TestADiskThatIsPutToUseAfterItWasProvedBlankIsNotMarked(t *testing.T) {
	const precious = "precious"
	for range 3 {
		m := newMachine(t, time.Minute)
		vol, dev := m.attach(t, 64, nil)
		stage := func(ctx context.Context) error {
			return m.Stage(ctx, disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: "ext4"})
		}
		opened := make(chan *os.File)
		go func() { opened <- openOnceItIsFree(dev) }()
		outcome := make(chan error)
		go func() { outcome <- stage(context.Background()) }()
		theirs, marker := <-opened, vol.SizeBytes-192<<10
		if theirs == nil {
			t.Fatal("the device was not in use, or could not be opened")
		}
		if readAt(t, dev, marker, 1) != "\x00" { // it was marked in the same breath
			theirs.Close()
			if <-outcome != nil { // mkfs may have come while the device was busy
				if err := stage(context.Background()); err != nil {
					t.Error(err)
				}
			}
			continue
		}
		if _, err := theirs.WriteAt([]byte(precious), marker); err != nil {
			t.Fatal(err)
		}
		untilItWaitsFor(t, dev, stage)
		theirs.Close()
		if err := <-outcome; !errors.Is(err, disk.ErrRefused) {
			t.Errorf("got %v, want a refusal", err)
		}
		if got := readAt(t, dev, marker, len(precious)); got != precious {
			t.Fatalf("on the disk is %q", got)
		}
	}
}

// openOnceItIsFree waits until a device is open exclusively elsewhere, and opens it as soon as it is not any more.
func openOnceItIsFree(dev string) *os.File {
	busy := false
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		file, err := os.OpenFile(dev, os.O_RDWR|unix.O_EXCL, 0)
		switch {
		case errors.Is(err, unix.EBUSY):
			busy = true
		case err != nil:
			return nil
		case busy:
			return file
		default:
			file.Close()
			time.Sleep(time.Millisecond) // not to keep it from others
		}
	}
	return nil
}
