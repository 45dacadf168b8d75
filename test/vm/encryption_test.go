//go:build linux

package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

var (
	luks       = map[string]string{"nodeEncryption": "luks2"}
	passphrase = map[string]string{"encryptionPassphrase": "correct horse battery staple"}
)

// createEncrypted makes a volume of a StorageClass with encryption on the node.
func (r *rig) createEncrypted(t *testing.T, c *csi.VolumeCapability) *volume {
	t.Helper()
	v := r.create(t, "secret", c, luks)
	v.secrets = passphrase
	return v
}

// plaintext is what must not be found on the disk of an encrypted volume.
const plaintext = "nobody but this server is to read this, nobody but this server is to read this"

// wantOnDisk checks whether the text can be read on the disk as the cloud has it.
func (v *volume) wantOnDisk(t *testing.T, text string, want bool) {
	t.Helper()
	if got := contains(t, filepath.Join(v.disks, v.id+".img"), []byte(text)); got != want {
		t.Errorf("the text is on the disk that the cloud has: %t, want %t", got, want)
	}
}

// contains searches a sparse file's data.
func contains(t *testing.T, path string, text []byte) bool {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for at := int64(0); ; {
		start, err := unix.Seek(int(file.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if at, err = unix.Seek(int(file.Fd()), start, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(io.NewSectionReader(file, start, at-start))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, text) {
			return true
		}
	}
}

// An encrypted volume's life: what reaches the cloud is ciphertext, it grows while it is used, and opens with its passphrase
// alone.
func testEncryption(t *testing.T, r *rig) {
	v := r.createEncrypted(t, writer("ext4"))
	v.bring(t, "a")
	r.sh(t, "echo '%[2]s' >%[1]s/file && sync -f %[1]s/file", v.target("a"), plaintext)
	if source := r.sh(t, "findmnt -n -o SOURCE %s", v.target("a")); !strings.HasPrefix(source, "/dev/mapper/") {
		t.Errorf("the volume is mounted from %s", source)
	}
	if kind := r.sh(t, "blkid -p -s TYPE -o value %s", v.link()); kind != "crypto_LUKS" {
		t.Errorf("on the disk is %q", kind)
	}
	before := v.bytes(t, v.target("a"))
	v.grow(t, 2, v.target("a"))
	if after := v.bytes(t, v.target("a")); before > gib || after < gib*7/4 {
		t.Errorf("the filesystem had %d bytes, and has %d after it was grown to 2 GiB", before, after)
	}
	v.takeAway(t, "a")
	v.wantOnDisk(t, plaintext, false)

	v.publish(t)
	for what, secrets := range map[string]map[string]string{
		"another passphrase":  {"encryptionPassphrase": "incorrect horse"},
		"an empty passphrase": {"encryptionPassphrase": ""},
		"no passphrase":       nil,
	} {
		v.secrets = secrets
		err := v.tryStage(t)
		if err == nil {
			t.Fatalf("staged with %s", what)
		}
		if strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: the error tells the passphrase: %v", what, err)
		}
		v.wantNothingMade(t, "staging with "+what)
	}
	v.secrets = passphrase
	v.stage(t)
	v.mount(t, "b")
	if got := r.read(t, v.target("b")+"/file"); got != plaintext {
		t.Errorf("the file holds %q", got)
	}
	if log := r.read(t, "/run/log/"+pluginName); strings.Contains(log, "horse") {
		t.Error("the plugin's log holds the passphrase")
	}
	v.takeAway(t, "b")
	v.remove(t)
}

func testEncryptedBlock(t *testing.T, r *rig) {
	v := r.createEncrypted(t, rawBlock())
	v.bring(t, "a")
	r.sh(t, "echo '%s' | dd of=%s conv=fsync,notrunc status=none", plaintext, v.target("a"))
	const head = 16 << 20 // of LUKS2
	if before := v.bytes(t, v.target("a")); before != gib-head {
		t.Errorf("the device has %d bytes", before)
	}
	v.grow(t, 2, v.target("a"))
	if after := r.sh(t, "blockdev --getsize64 %s", v.target("a")); after != fmt.Sprint(2*gib-head) {
		t.Errorf("the device has %s bytes after it was grown to 2 GiB", after)
	}
	v.takeAway(t, "a")
	v.wantOnDisk(t, plaintext, false)
	v.bring(t, "b")
	if got := r.sh(t, "head -c %d %s", len(plaintext), v.target("b")); got != plaintext {
		t.Errorf("the device holds %q", got)
	}
	v.takeAway(t, "b")
	v.remove(t)
}

// What is plain is never taken for encrypted, nor the other way round, and loses nothing by the mistake.
func testEncryptionMismatch(t *testing.T, r *rig) {
	plain, secret := r.create(t, "plain", writer("ext4"), nil), r.createEncrypted(t, writer("ext4"))
	for _, v := range []*volume{plain, secret} {
		v.bring(t, "a")
		r.sh(t, "echo '%[2]s' >%[1]s/file && sync -f %[1]s/file", v.target("a"), plaintext)
		v.takeAway(t, "a")
	}
	plain.wantOnDisk(t, plaintext, true) // or else its absence from another disk would prove nothing
	plain.context, secret.context = secret.context, plain.context
	plain.secrets, secret.secrets = secret.secrets, nil
	for _, v := range []*volume{plain, secret} {
		v.publish(t)
		wantCode(t, v.tryStage(t), codes.FailedPrecondition)
		v.takeAway(t)
	}
	plain.context, secret.context = secret.context, plain.context
	plain.secrets, secret.secrets = nil, passphrase
	for _, v := range []*volume{plain, secret} {
		v.bring(t, "b")
		if got := r.read(t, v.target("b")+"/file"); got != plaintext {
			t.Errorf("the file holds %q", got)
		}
		v.takeAway(t, "b")
		v.remove(t)
	}
}

// Whatever of the encryption is interrupted is gone on from.
func testEncryptionKill(t *testing.T, r *rig) {
	v := r.createEncrypted(t, writer("xfs"))
	v.publish(t)
	half := make(chan error, 1)
	go func() { half <- v.tryStage(t) }()
	r.until(t, "the disk is being encrypted", "%s", running("luksFormat.*"+v.id))
	r.restartPlugin(t)
	if err := <-half; err == nil {
		t.Error("the call in which the plugin died went well")
	}
	v.stageInTheEnd(t)
	r.restartPlugin(t)
	v.stage(t)
	v.mount(t, "a")
	r.sh(t, "echo kept >%s/file", v.target("a"))
	r.restartPlugin(t)
	v.grow(t, 2, v.target("a"))
	v.unmount(t, "a")
	r.restartPlugin(t)
	v.takeAway(t, "a")
	v.bring(t, "b")
	if got := r.read(t, v.target("b")+"/file"); got != "kept" {
		t.Errorf("the file holds %q", got)
	}
	v.unpublish(t) // pulled while it is open
	v.wantGone(t)
	v.publish(t)
	v.stage(t)
	if got := r.read(t, v.staging()+"/file"); got != "kept" {
		t.Errorf("after the disk came back the file holds %q", got)
	}
	v.takeAway(t, "b")
	v.remove(t)
}
