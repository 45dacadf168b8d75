package disk_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// What a new encrypted device reads as is random: one of 65,536 looks like an ext filesystem that was mounted before. It was refused
// as a disk that was put to use since its format was interrupted.
func TestEncryptedVolumeWhoseRandomBytesLookLikeAFilesystemIsStaged(t *testing.T) {
	// printf %b, and where in the device.
	const mounts, magic, xfs = `poke '\001' 1076`, `poke '\0123\0357' 1080`, `poke XFSB 0; poke '\0177' 128`
	for name, random := range map[string]string{
		"an ext that was mounted": mounts + "\n" + magic,
		"an XFS in use":           xfs,
		"a partition table":       `poke '\0125\0252' 510; poke '\0200\001\001\000\0203\001\001\000\001\000\000\000\010\000\000\000' 446`,
	} {
		t.Run(name, func(t *testing.T) {
			m := newCryptMachine(t, true)
			vol, _ := m.attach(t, 64, nil)
			closeAfter(t, m, vol)
			real, err := exec.LookPath("cryptsetup")
			if err != nil {
				t.Fatal(err)
			}
			programs := t.TempDir()
			script := "#!/bin/sh\n" + real + ` "$@" || exit
case "$*" in *"open --type luks"*) ;; *) exit 0;; esac
for device; do :; done
poke() { printf %b "$1" | dd of=/dev/mapper/$device bs=1 seek=$2 conv=notrunc,fsync status=none; }
` + random + "\n"
			if err := os.WriteFile(filepath.Join(programs, "cryptsetup"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			path := os.Getenv("PATH")
			t.Setenv("PATH", programs+":"+path)
			if err := stageEncrypted(m, vol, "secret", func(req *disk.StageRequest) { req.Filesystem = "ext4" }); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", path)
			if err := m.unstage(vol); err != nil {
				t.Fatal(err)
			}
		})
	}
}
