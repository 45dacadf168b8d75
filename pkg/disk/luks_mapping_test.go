package disk_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// The tests called TestEncrypted… open encrypted volumes: they need a kernel with dm-crypt, and run in the machine of make
// test-vm where this one has none.

// encryptedFilesystems are those that are tried on encrypted volumes: one in short runs, as an emulated processor takes
// its time for ciphers.
func encryptedFilesystems() []string {
	if testing.Short() {
		return []string{"xfs"}
	}
	return []string{"ext4", "xfs", "btrfs"}
}

func mappingOf(vol disk.Volume) string { return "/dev/mapper/upcloud-" + vol.ID }

// closeAfter takes down what a failed test left open.
func closeAfter(t *testing.T, m *machine, vol disk.Volume) {
	t.Helper()
	t.Cleanup(func() {
		unmountBelow(t, m.dir)
		if _, err := os.Stat(mappingOf(vol)); err == nil {
			run(t, "cryptsetup", "close", "upcloud-"+vol.ID)
		}
	})
}

func requireClosed(t *testing.T, vol disk.Volume) {
	t.Helper()
	if out, err := exec.Command("dmsetup", "info", "upcloud-"+vol.ID).CombinedOutput(); err == nil {
		t.Errorf("the mapping is still open: %s", out)
	}
}

func TestEncryptedVolumeKeepsItsData(t *testing.T) {
	for _, fsType := range encryptedFilesystems() {
		t.Run(fsType, func(t *testing.T) {
			m := newCryptMachine(t, true)
			requireFilesystem(t, fsType)
			vol, dev := m.attach(t, 400, nil)
			closeAfter(t, m, vol)
			as := func(req *disk.StageRequest) { req.Filesystem = fsType }
			for range 2 {
				if err := stageEncrypted(m, vol, "secret", as); err != nil {
					t.Fatal(err)
				}
			}
			data := bytes.Repeat([]byte("in the clear "), 1000)
			if err := os.WriteFile(m.path("staging/file"), data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := m.Publish(context.Background(), disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path("target")}); err != nil {
				t.Fatal(err)
			}
			if stats, err := m.Stats(t.Context(), vol.ID, m.path("target")); err != nil || stats.TotalBytes == 0 {
				t.Errorf("stats %+v, %v", stats, err)
			}
			if err := stage(m, vol, ""); !errors.Is(err, disk.ErrConflict) {
				t.Errorf("staged encrypted, in the clear asked: got %v", err)
			}
			if err := m.Unpublish(context.Background(), vol.ID, m.path("target")); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := m.unstage(vol); err != nil {
					t.Fatal(err)
				}
			}
			requireClosed(t, vol)
			run(t, "sync", dev)
			if image, err := os.ReadFile(m.path(vol.ID + ".img")); err != nil || bytes.Contains(image, []byte("in the clear")) {
				t.Errorf("the data is on the disk in the clear, %v", err)
			}
			if err := stageEncrypted(m, vol, "other", as); !errors.Is(err, disk.ErrInvalid) {
				t.Errorf("another passphrase: got %v", err)
			}
			if err := stageEncrypted(m, vol, "secret", nil); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(m.path("staging/file")); err != nil || !bytes.Equal(got, data) {
				t.Errorf("the data is not what it was: %d bytes, %v", len(got), err)
			}
			if err := m.unstage(vol); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestEncryptedVolumeGrowsWhileInUse(t *testing.T) {
	for _, fsType := range encryptedFilesystems() {
		t.Run(fsType, func(t *testing.T) {
			m := newCryptMachine(t, true)
			requireFilesystem(t, fsType)
			if fsType == "ext4" && !disk.MayGrowMountedExt() {
				t.Skip("needs CAP_SYS_RESOURCE")
			}
			vol, dev := m.attach(t, 400, nil)
			closeAfter(t, m, vol)
			if err := stageEncrypted(m, vol, "secret", func(req *disk.StageRequest) { req.Filesystem = fsType }); err != nil {
				t.Fatal(err)
			}
			before := filesystemMiB(t, m.path("staging"))
			vol = m.enlarge(t, vol, dev, 800)
			for range 2 {
				if size, err := m.grow(vol); err != nil || size != 800*mib {
					t.Fatalf("grown to %d, %v", size, err)
				}
			}
			if after := filesystemMiB(t, m.path("staging")); after < before+350 {
				t.Errorf("the filesystem has %d MiB, it had %d", after, before)
			}
			if err := m.unstage(vol); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A key that others put into the kernel's keyring cannot be used for growing without the passphrase.
func TestEncryptedVolumeWithItsKeyInTheKeyringGrowsWithThePassphrase(t *testing.T) {
	m := newCryptMachine(t, true)
	vol, dev := m.attach(t, 64, nil)
	closeAfter(t, m, vol)
	if err := stageEncrypted(m, vol, "secret", nil); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	open := exec.Command("cryptsetup", "open", "--key-file=-", dev, "upcloud-"+vol.ID)
	open.Stdin = bytes.NewReader([]byte("secret"))
	if out, err := open.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if table := run(t, "dmsetup", "table", "upcloud-"+vol.ID); !bytes.Contains([]byte(table), []byte(" :")) {
		t.Skip("needs a kernel with a keyring for dm-crypt")
	}
	if err := stageEncrypted(m, vol, "secret", nil); err != nil {
		t.Fatal(err)
	}
	vol = m.enlarge(t, vol, dev, 128)
	if _, err := m.grow(vol); !errors.Is(err, disk.ErrInvalid) {
		t.Errorf("without the passphrase: got %v", err)
	}
	req := disk.GrowRequest{Volume: vol, Path: m.path("staging"), Encryption: encrypted("guess")}
	if _, err := m.Grow(context.Background(), req); !errors.Is(err, disk.ErrInvalid) {
		t.Errorf("with another passphrase: got %v", err)
	}
	req.Encryption = encrypted("secret")
	if _, err := m.Grow(context.Background(), req); err != nil {
		t.Errorf("with the passphrase: got %v", err)
	}
}

func TestEncryptedRawBlockVolume(t *testing.T) {
	m := newCryptMachine(t, true)
	vol, dev := m.attach(t, 64, nil)
	closeAfter(t, m, vol)
	req := disk.StageBlockRequest{Volume: vol, Path: m.path("staging"), Encryption: encrypted("secret")}
	write := func(target string) error {
		file, err := os.OpenFile(m.path(target), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = file.WriteAt([]byte("in the clear"), 8192)
		return errors.Join(err, file.Sync(), file.Close())
	}
	for range 2 {
		if err := m.StageBlock(context.Background(), req); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.publishBlock(vol, "target", nil); err != nil {
		t.Fatal(err)
	}
	if err := write("target"); err != nil {
		t.Fatal(err)
	}
	vol = m.enlarge(t, vol, dev, 128)
	if _, err := m.Grow(context.Background(), disk.GrowRequest{Volume: vol, Path: m.path("target")}); err != nil {
		t.Fatal(err)
	}
	if stats, err := m.Stats(t.Context(), vol.ID, m.path("target")); err != nil || stats.TotalBytes < 110*mib || stats.TotalBytes >= 128*mib {
		t.Errorf("stats %+v, %v: want the 128 MiB of the disk less the head", stats, err)
	}
	if err := m.Unpublish(context.Background(), vol.ID, m.path("target")); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	requireClosed(t, vol)
	if err := m.publishBlock(vol, "target", nil); !errors.Is(err, disk.ErrNotStaged) {
		t.Errorf("published the encrypted side: %v", err)
	}
	req.Volume = vol
	if err := m.StageBlock(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	if err := m.publishBlock(vol, "target", readOnly); err != nil {
		t.Fatal(err)
	}
	if err := m.StageBlock(context.Background(), req); err != nil { // before each publication there is one
		t.Error(err)
	}
	got := make([]byte, 12)
	file, err := os.Open(m.path("target"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.ReadAt(got, 8192); err != nil || string(got) != "in the clear" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := write("target"); err == nil {
		t.Error("written to through a read-only publication")
	}
	if err := m.Unpublish(context.Background(), vol.ID, m.path("target")); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
}

// Whatever was taken down by hand or by a crash, the mapping goes with the volume.
func TestEncryptedVolumeThatWasLeftOpenIsClosed(t *testing.T) {
	m := newCryptMachine(t, true)
	vol, _ := m.attach(t, 64, nil)
	closeAfter(t, m, vol)
	if err := stageEncrypted(m, vol, "secret", nil); err != nil {
		t.Fatal(err)
	}
	run(t, "umount", m.path("staging"))
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	requireClosed(t, vol)
}

func TestEncryptedVolumeInUseIsNotClosed(t *testing.T) {
	m := newCryptMachine(t, true)
	vol, _ := m.attach(t, 64, nil)
	closeAfter(t, m, vol)
	if err := stageEncrypted(m, vol, "secret", nil); err != nil {
		t.Fatal(err)
	}
	elsewhere := m.path("elsewhere")
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "--bind", m.path("staging"), elsewhere)
	err := m.impatient(t).Unstage(context.Background(), vol.ID, m.path("staging"))
	if !errors.Is(err, disk.ErrInUse) || !bytes.Contains([]byte(err.Error()), []byte(elsewhere)) {
		t.Errorf("got %v, want who uses it", err)
	}
	run(t, "umount", elsewhere)
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	requireClosed(t, vol)
}

// A copy has the passphrase of its origin, and may be larger.
func TestEncryptedCopyBesideItsOrigin(t *testing.T) {
	for _, fsType := range encryptedFilesystems() {
		t.Run(fsType, func(t *testing.T) {
			m := newCryptMachine(t, true)
			requireFilesystem(t, fsType)
			vol, dev := m.attach(t, 400, nil)
			closeAfter(t, m, vol)
			as := func(req *disk.StageRequest) { req.Filesystem = fsType }
			if err := stageEncrypted(m, vol, "secret", as); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(m.path("staging/file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "sync", "-f", m.path("staging"))
			run(t, "sync", dev)
			if fsType == "btrfs" && !temporaryIDs() {
				t.Skip("needs Linux 6.7 for two btrfs with the same UUID")
			}
			copied, _ := m.attach(t, 800, func(file string) {
				run(t, "dd", "if="+m.path(vol.ID+".img"), "of="+file, "bs=1M", "conv=notrunc,sparse", "status=none")
			})
			closeAfter(t, m, copied)
			err := m.Stage(context.Background(), disk.StageRequest{
				Volume: copied, Path: m.path("copy"), Encryption: encrypted("secret"), Origin: vol.ID, Filesystem: fsType,
			})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(m.path("copy"), "file")); err != nil || string(got) != "data" {
				t.Errorf("the file of the copy: %q, %v", got, err)
			}
			if got := filesystemMiB(t, m.path("copy")); got < 700 {
				t.Errorf("the copy has %d MiB", got)
			}
			for path, vol := range map[string]disk.Volume{"copy": copied, "staging": vol} {
				if err := m.Unstage(context.Background(), vol.ID, m.path(path)); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
