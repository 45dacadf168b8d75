package disk_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// A disk waits for its turn to be formatted for minutes, in which it can be put to use.
func TestADiskThatIsWrittenToBeforeItsTurnIsNotFormatted(t *testing.T) {
	const size = 320
	writeTo := func(dev, at string) string {
		return "printf precious | dd of=" + dev + " bs=1 seek=" + at + " conv=notrunc status=none && sync " + dev
	}
	uses := []struct {
		name string
		use  func(dev string) string // a command
		says string
	}{
		{"an xfs", func(dev string) string { return "mkfs.xfs -q -K " + dev }, "xfs"},
		{"an xfs that takes the whole disk", func(dev string) string { return "mkfs.xfs -q " + dev }, "xfs"},
		{"an ext4", func(dev string) string { return "mkfs.ext4 -q -E nodiscard " + dev }, "ext4"},
		{"swap", func(dev string) string { return "mkswap " + dev }, "swap"},
		{"unknown data at the start", func(dev string) string { return writeTo(dev, "70000") }, "byte 70000"},
		{"unknown data at the end", func(dev string) string { return writeTo(dev, "335544000") }, "byte 335544000"},
		{"unknown data over the marker", func(dev string) string { return writeTo(dev, "335347712") }, "overwritten"},
	}
	for _, as := range []struct {
		name, fsType string
		encryption   *disk.Encryption
	}{{"mkfs.ext4", "ext4", nil}, {"mkfs.xfs", "xfs", nil}, {"mkfs.btrfs", "btrfs", nil}, {"luksFormat", "ext4", encrypted("secret")}} {
		for _, use := range uses {
			t.Run(as.name+" over "+use.name, func(t *testing.T) {
				m := newMachine(t, time.Minute)
				requireFilesystem(t, as.fsType)
				if _, err := exec.LookPath("cryptsetup"); as.encryption != nil && err != nil {
					t.Skip("needs cryptsetup")
				}
				vol, dev := m.attach(t, size, nil)
				req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: as.fsType, Encryption: as.encryption}
				release := sync.OnceFunc(m.HoldFormats())
				t.Cleanup(release)
				outcome := make(chan error)
				go func() { outcome <- m.Stage(context.Background(), req) }()
				m.untilMarked(t, vol)
				untilFree(t, dev)
				run(t, "sh", "-c", use.use(dev))
				written := m.exceptMarker(t, vol, dev)
				release()
				if err := <-outcome; !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), use.says) {
					t.Errorf("got %v, want a refusal that says %q", err, use.says)
				}
				if m.exceptMarker(t, vol, dev) != written {
					t.Fatal("the disk was written to")
				}
				if as.encryption == nil && strings.HasPrefix(use.name, "an "+as.fsType) {
					return // the next try uses the filesystem that is there, as it is what was asked for
				}
				if err := m.Stage(context.Background(), req); !errors.Is(err, disk.ErrRefused) { // nor does the next try format it
					t.Errorf("the next try: got %v, want a refusal", err)
				}
				if m.exceptMarker(t, vol, dev) != written {
					t.Error("the disk was written to by the next try")
				}
			})
		}
	}
}

// untilFree waits until a device is not open exclusively.
func untilFree(t *testing.T, dev string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		err := disk.TryExclusively(dev)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// exceptMarker tells whether anything but the marker of a format was written to a disk.
func (m *machine) exceptMarker(t *testing.T, vol disk.Volume, dev string) uint32 {
	t.Helper()
	run(t, "sync", dev)
	run(t, "cp", "--sparse=always", m.path(vol.ID+".img"), m.path("copy"))
	marker := make([]byte, 4096)
	file, err := os.OpenFile(m.path("copy"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	at := vol.SizeBytes - 192<<10
	if _, err := file.ReadAt(marker, at); err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(string(marker), "cloud-provider-upcloud") {
		if _, err := file.WriteAt(make([]byte, len(marker)), at); err != nil {
			t.Fatal(err)
		}
	}
	return fingerprint(t, dev, m.path("copy"))
}

func TestADiskThatIsMountedBeforeItsTurnIsNotFormatted(t *testing.T) {
	m := newMachine(t, time.Minute)
	vol, dev := m.attach(t, 64, nil)
	release := sync.OnceFunc(m.HoldFormats())
	t.Cleanup(release)
	outcome := make(chan error)
	go func() { outcome <- stage(m, vol, "ext4") }()
	m.untilMarked(t, vol)
	untilFree(t, dev)
	run(t, "mkfs.ext4", "-q", "-Enodiscard", dev)
	if err := os.Mkdir(m.path("by-hand"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", dev, m.path("by-hand"))
	if err := os.WriteFile(m.path("by-hand/file"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	release()
	if err := <-outcome; !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), m.path("by-hand")) {
		t.Errorf("got %v, want a refusal that says where it is mounted", err)
	}
	if data, err := os.ReadFile(m.path("by-hand/file")); err != nil || string(data) != "data" {
		t.Errorf("the file is %q, %v", data, err)
	}
	run(t, "umount", m.path("by-hand"))
	if err := stage(m, vol, "ext4"); !errors.Is(err, disk.ErrRefused) {
		t.Errorf("the next try: got %v, want a refusal", err)
	}
}
