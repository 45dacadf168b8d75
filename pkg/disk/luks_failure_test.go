package disk_test

import (
	"context"
	"errors"
	"os"
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
