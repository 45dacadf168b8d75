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

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// Nobody unstages what could not be staged: an open mapping would keep the key, and the disk when that is detached.
func TestEncryptedVolumeThatCannotBeStagedIsClosedAgain(t *testing.T) {
	m := newCryptMachine(t, true)
	vol, _ := m.attach(t, 64, nil)
	closeAfter(t, m, vol)
	if err := stageEncrypted(m, vol, "secret", nil); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	err := stageEncrypted(m, vol, "secret", func(req *disk.StageRequest) { req.Filesystem = "ext3" })
	if !errors.Is(err, disk.ErrRefused) {
		t.Errorf("another filesystem: got %v", err)
	}
	requireClosed(t, vol)
	if err := os.WriteFile(m.path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	req := disk.StageBlockRequest{Volume: vol, Path: m.path("file"), Encryption: encrypted("secret")}
	if err := m.StageBlock(context.Background(), req); err == nil {
		t.Error("staged at what is a file")
	}
	requireClosed(t, vol)
	// One that is in use stays open.
	if err := stageEncrypted(m, vol, "secret", nil); err != nil {
		t.Fatal(err)
	}
	for _, fsType := range []string{"ext3", "xfs"} {
		err := stageEncrypted(m, vol, "secret", func(req *disk.StageRequest) { req.Path, req.Filesystem = m.path("elsewhere"), fsType })
		if !errors.Is(err, disk.ErrRefused) {
			t.Errorf("at another path: got %v", err)
		}
	}
	if err := os.WriteFile(m.path("staging/file"), []byte("data"), 0o600); err != nil {
		t.Errorf("the volume that was staged before: %v", err)
	}
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
	requireClosed(t, vol)
}

// A cryptsetup that outlived its driver may have opened the volume by a head that the next driver has replaced since: what is
// written through that mapping can be read by nobody later.
func TestEncryptedVolumeThatSomebodyElseOpenedWhileItWasMadeIsMadeAnew(t *testing.T) {
	m := newCryptMachine(t, true)
	vol, dev := m.attach(t, 64, nil)
	closeAfter(t, m, vol)
	real, err := exec.LookPath("cryptsetup")
	if err != nil {
		t.Fatal(err)
	}
	programs, path := t.TempDir(), os.Getenv("PATH")
	script := "#!/bin/sh\n" + real + " \"$@\" || exit\ncase \"$*\" in *luksFormat*) kill -9 $$;; esac\n"
	if err := os.WriteFile(filepath.Join(programs, "cryptsetup"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", programs+":"+path)
	if err := stageEncrypted(m, vol, "secret", nil); err == nil {
		t.Fatal("staged by a cryptsetup that was killed")
	}
	t.Setenv("PATH", path)
	open := exec.Command("cryptsetup", "open", "--disable-keyring", "--key-file=-", dev, "upcloud-"+vol.ID)
	open.Stdin = strings.NewReader("secret")
	if out, err := open.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	other, head := m.attach(t, 64, nil)
	encryptByHand(t, head, "secret")
	run(t, "cryptsetup", "luksUUID", "--batch-mode", "--uuid", vol.ID, head)
	run(t, "sync", head)
	run(t, "dd", "if="+m.path(other.ID+".img"), "of="+dev, "bs=1M", "count=16", "conv=notrunc,fsync", "status=none")

	for i := range 2 {
		if err := stageEncrypted(m, vol, "secret", nil); err != nil {
			t.Fatal(err)
		}
		file := m.path("staging/file")
		if i == 0 {
			err = os.WriteFile(file, []byte("data"), 0o600)
		} else {
			_, err = os.Stat(file)
		}
		if err != nil {
			t.Error(err)
		}
		if err := m.unstage(vol); err != nil {
			t.Fatal(err)
		}
	}
	requireClosed(t, vol)
}

func TestEncryptedVolumeThatCannotBeUnstagedIsWrittenToDisk(t *testing.T) {
	m := newCryptMachine(t, true)
	vol, _ := m.attach(t, 320, nil)
	closeAfter(t, m, vol)
	if err := stageEncrypted(m, vol, "secret", func(r *disk.StageRequest) { r.Filesystem = "xfs" }); err != nil {
		t.Fatal(err)
	}
	inside := exec.Command("sleep", "1000")
	inside.Dir = m.path("staging")
	end := startProcess(t, inside)
	if err := os.WriteFile(m.path("staging/file"), content("written last"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(vol); !errors.Is(err, disk.ErrInUse) {
		t.Fatalf("got %v", err)
	}
	left := m.copyOf(t, vol, 320) // what a detachment at this moment leaves
	closeAfter(t, m, left)
	err := stageEncrypted(m, left, "secret", func(r *disk.StageRequest) { r.Path, r.Origin = m.path("left"), vol.ID })
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(m.path("left/file")); err != nil || !bytes.Equal(got, content("written last")) {
		t.Errorf("%d bytes are left, %v", len(got), err)
	}
	end()
	if err := m.unstage(vol); err != nil {
		t.Error(err)
	}
}

func TestEncryptedVolumeThatAnotherMountNamespaceHasIsStagedAgain(t *testing.T) {
	m := newCryptMachine(t, true)
	vol, _ := m.attach(t, 64, nil)
	closeAfter(t, m, vol)
	if err := stageEncrypted(m, vol, "secret", nil); err != nil {
		t.Fatal(err)
	}
	user := m.occupyStaging(t, true)
	err := m.impatient(t).Unstage(t.Context(), vol.ID, m.path("staging"))
	if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), user.name) {
		t.Errorf("got %v, want that %s uses it", err, user.name)
	}
	if err := stageEncrypted(m, vol, "secret", nil); err != nil {
		t.Fatal(err)
	}
	user.end()
	if err := m.unstage(vol); err != nil {
		t.Error(err)
	}
	requireClosed(t, vol)
}

func TestEncryptedVolumeWithADeadFilesystemIsMountedAgain(t *testing.T) {
	m := newCryptMachine(t, true)
	vol, _ := m.attach(t, 64, nil)
	closeAfter(t, m, vol)
	publish := disk.PublishRequest{Volume: vol, StagingPath: m.path("staging"), Path: m.path("target")}
	for what, again := range map[string]func() error{
		"stage":   func() error { return stageEncrypted(m, vol, "secret", nil) },
		"publish": func() error { return m.Publish(t.Context(), publish) },
	} {
		if err := stageEncrypted(m, vol, "secret", nil); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.path("staging/file"), []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "sync", "-f", m.path("staging/file"))
		shutDown(t, m.path("staging"))
		if err := again(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		requireAlive(t, m.path("staging"))
	}
}
