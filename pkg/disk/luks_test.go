package disk_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// newCryptMachine is a machine that can encrypt; with mappings, one whose kernel can open what is encrypted.
func newCryptMachine(t *testing.T, mappings bool) *machine {
	t.Helper()
	m := newMachine(t, 10*time.Second)
	m.WithCheapKeys()
	if _, err := exec.LookPath("cryptsetup"); err != nil {
		t.Skip("needs cryptsetup")
	}
	if mappings && !mapperPresent() {
		t.Skip("needs a kernel with the device mapper and dm-crypt")
	}
	return m
}

func mapperPresent() bool { return exec.Command("dmsetup", "version").Run() == nil }

func encrypted(passphrase string) *disk.Encryption {
	return &disk.Encryption{Passphrase: []byte(passphrase)}
}

func stageEncrypted(m *machine, vol disk.Volume, passphrase string, change func(*disk.StageRequest)) error {
	req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Encryption: encrypted(passphrase)}
	if change != nil {
		change(&req)
	}
	return m.Stage(context.Background(), req)
}

func (m *machine) unstage(vol disk.Volume) error {
	return m.Unstage(context.Background(), vol.ID, m.path("staging"))
}

// opens tells whether a passphrase opens an encrypted disk; it needs no device mapper.
func opens(dev, passphrase string) bool {
	cmd := exec.Command("cryptsetup", "open", "--test-passphrase", "--key-file=-", dev)
	cmd.Stdin = strings.NewReader(passphrase)
	return cmd.Run() == nil
}

func encryptByHand(t *testing.T, dev, passphrase string) {
	t.Helper()
	cmd := exec.Command("cryptsetup", "luksFormat", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file=-", dev)
	cmd.Stdin = strings.NewReader(passphrase)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestEncryptionNeedsAPassphrase(t *testing.T) {
	m := newMachine(t, time.Second)
	vol, _ := m.attach(t, 64, nil)
	if err := stageEncrypted(m, vol, "", nil); !errors.Is(err, disk.ErrInvalid) || !strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	err := m.StageBlock(context.Background(), disk.StageBlockRequest{Volume: vol, Path: m.path("staging"), Encryption: encrypted("")})
	if !errors.Is(err, disk.ErrInvalid) {
		t.Errorf("raw block: got %v", err)
	}
}

// Whatever becomes of a mapping, a blank disk is encrypted with the passphrase given, all bytes of it, before anything
// else is written to it.
func TestABlankDiskIsEncryptedFirst(t *testing.T) {
	m := newCryptMachine(t, false)
	vol, dev := m.attach(t, 64, nil)
	passphrase := "correct horse\nbattery\x00staple\n"
	err := stageEncrypted(m, vol, passphrase, nil)
	if !mapperPresent() {
		if !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), "dm_crypt") {
			t.Errorf("without a device mapper: got %v, want what to load", err)
		}
	} else if err != nil {
		t.Fatal(err)
	}
	if !opens(dev, passphrase) || opens(dev, strings.TrimSpace(passphrase)) {
		t.Error("the disk is not opened by the passphrase, or by another")
	}
	if got := strings.TrimSpace(run(t, "cryptsetup", "luksUUID", dev)); got != strings.ToLower(vol.ID) {
		t.Errorf("the UUID is %s, the volume's is %s", got, vol.ID)
	}
}

func TestEncryptionRefusesWhatIsInTheClear(t *testing.T) {
	m := newCryptMachine(t, false)
	for name, make := range map[string]func(dev string){
		"ext4": func(dev string) { run(t, "mkfs.ext4", "-q", dev) },
		"swap": func(dev string) { run(t, "mkswap", dev) },
		"unknown": func(dev string) {
			run(t, "dd", "if=/dev/urandom", "of="+dev, "bs=4096", "seek=8", "count=4", "conv=notrunc")
		},
	} {
		t.Run(name, func(t *testing.T) {
			vol, dev := m.attach(t, 64, nil)
			make(dev)
			before := fingerprint(t, dev, m.path(vol.ID+".img"))
			if err := stageEncrypted(m, vol, "secret", nil); !errors.Is(err, disk.ErrRefused) {
				t.Errorf("got %v", err)
			}
			req := disk.StageBlockRequest{Volume: vol, Path: m.path("staging"), Encryption: encrypted("secret")}
			if err := m.StageBlock(context.Background(), req); !errors.Is(err, disk.ErrRefused) {
				t.Errorf("raw block: got %v", err)
			}
			if fingerprint(t, dev, m.path(vol.ID+".img")) != before {
				t.Error("the disk was written to")
			}
		})
	}
}

func TestABlankCopyOrReadOnlyVolumeIsNotEncrypted(t *testing.T) {
	m := newCryptMachine(t, false)
	vol, dev := m.attach(t, 64, nil)
	for name, change := range map[string]func(*disk.StageRequest){
		"a copy":    func(req *disk.StageRequest) { req.Origin = "01000000-0000-4000-8000-000000000001" },
		"read-only": func(req *disk.StageRequest) { req.ReadOnly = true },
	} {
		if err := stageEncrypted(m, vol, "secret", change); !errors.Is(err, disk.ErrRefused) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if out, err := exec.Command("blkid", "-p", dev).CombinedOutput(); err == nil {
		t.Errorf("the disk was written to: %s", out)
	}
}

func TestAnEncryptedVolumeInTheClearIsRefused(t *testing.T) {
	m := newCryptMachine(t, false)
	vol, dev := m.attach(t, 64, nil)
	encryptByHand(t, dev, "secret")
	before := fingerprint(t, dev, m.path(vol.ID+".img"))
	err := stage(m, vol, "ext4")
	if !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), "LUKS") {
		t.Errorf("got %v", err)
	}
	if fingerprint(t, dev, m.path(vol.ID+".img")) != before {
		t.Error("the disk was written to")
	}
}

func TestEncryptedVolumeWithTheWrongPassphraseIsNotTouched(t *testing.T) {
	m := newCryptMachine(t, true)
	vol, dev := m.attach(t, 64, nil)
	encryptByHand(t, dev, "secret")
	before := fingerprint(t, dev, m.path(vol.ID+".img"))
	err := stageEncrypted(m, vol, "guess", nil)
	if !errors.Is(err, disk.ErrInvalid) || !strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "guess") {
		t.Errorf("got %v", err)
	}
	if fingerprint(t, dev, m.path(vol.ID+".img")) != before {
		t.Error("the disk was written to")
	}
}

// A luksFormat that was cut short leaves a disk that is neither blank nor encrypted.
func TestEncryptionBeginsAnewAfterAnInterruption(t *testing.T) {
	m := newCryptMachine(t, false)
	real, err := exec.LookPath("cryptsetup")
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]string{
		"before anything was written": "",
		"without a head":              "dd if=/dev/urandom of=$device bs=4096 seek=9 count=8 conv=notrunc status=none",
		"when it was all done":        real + ` "$@"`,
	} {
		t.Run(name, func(t *testing.T) {
			vol, dev := m.attach(t, 64, nil)
			programs := t.TempDir()
			script := "#!/bin/sh\nfor device; do :; done\ncase \"$*\" in *luksFormat*) ;; *) exec " + real + " \"$@\";; esac\n" +
				damage + "\nkill -9 $$\n"
			if err := os.WriteFile(filepath.Join(programs, "cryptsetup"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			path := os.Getenv("PATH")
			t.Setenv("PATH", programs+":"+path)
			if err := stageEncrypted(m, vol, "first", nil); err == nil {
				t.Fatal("staged by a cryptsetup that was killed")
			}
			t.Setenv("PATH", path)
			copied := func(req *disk.StageRequest) { req.Origin = "01000000-0000-4000-8000-000000000001" }
			if err := stageEncrypted(m, vol, "second", copied); !errors.Is(err, disk.ErrRefused) {
				t.Errorf("a copy: got %v", err)
			}
			_ = stageEncrypted(m, vol, "second", nil) // opens where there is a device mapper
			if !opens(dev, "second") || opens(dev, "first") {
				t.Error("not encrypted anew with the passphrase of the second try")
			}
		})
	}
}

// A disk that somebody encrypted by hand after a format was interrupted may hold data.
func TestEncryptionDoesNotBeginAnewOnSomebodyElsesLUKS(t *testing.T) {
	m := newCryptMachine(t, false)
	vol, dev := m.attach(t, 1024, nil)
	interrupt(t, m, vol, "ext4")
	run(t, "wipefs", "-aq", dev)
	encryptByHand(t, dev, "mine")
	if err := stageEncrypted(m, vol, "secret", nil); !errors.Is(err, disk.ErrRefused) {
		t.Errorf("got %v", err)
	}
	if !opens(dev, "mine") {
		t.Error("encrypted over")
	}
}

// Neither a process list nor a log may show the passphrase.
func TestThePassphraseIsNoArgument(t *testing.T) {
	m := newCryptMachine(t, false)
	vol, _ := m.attach(t, 64, nil)
	programs, log := t.TempDir(), m.path("arguments")
	real, err := exec.LookPath("cryptsetup")
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho \"$@\" >>" + log + "\nenv >>" + log + "\nexec " + real + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(programs, "cryptsetup"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", programs+":"+os.Getenv("PATH"))
	err = stageEncrypted(m, vol, "open sesame", nil)
	if err != nil && strings.Contains(err.Error(), "sesame") {
		t.Errorf("the error tells it: %v", err)
	}
	seen, err := os.ReadFile(log)
	if err != nil || !bytes.Contains(seen, []byte("luksFormat")) || bytes.Contains(seen, []byte("sesame")) {
		t.Errorf("cryptsetup was called with %s, %v", seen, err)
	}
}

func TestEncryptionSaysWhatIsMissing(t *testing.T) {
	m := newCryptMachine(t, false)
	vol, _ := m.attach(t, 64, nil)
	programs := t.TempDir()
	for _, name := range []string{"blkid"} {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(real, filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	path := os.Getenv("PATH")
	t.Setenv("PATH", programs)
	err := stageEncrypted(m, vol, "secret", nil)
	t.Setenv("PATH", path)
	if !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), "package cryptsetup-bin") {
		t.Errorf("got %v", err)
	}
}
