package disk_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

func stageReadOnly(m *machine, vol disk.Volume, path, origin string) error {
	return m.Stage(context.Background(), disk.StageRequest{Volume: vol, Path: m.path(path), ReadOnly: true, Origin: origin})
}

// cut returns a copy of a volume as it is while it is in use, with a journal that has to be replayed: what a power cut or
// a snapshot leaves.
func (m *machine) cut(t *testing.T, vol disk.Volume) disk.Volume {
	t.Helper()
	cut, _ := m.attach(t, vol.SizeBytes/mib, func(image string) {
		for range 100 {
			if err := os.WriteFile(m.path("staging/file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(m.path("staging/file"))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(file.Sync(), file.Close()); err != nil {
				t.Fatal(err)
			}
			run(t, "sync", m.devices[vol.ID])
			run(t, "dd", "if="+m.path(vol.ID+".img"), "of="+image, "bs=1M", "conv=notrunc", "status=none")
			if !hasNoLog(t, image) {
				return
			}
		}
		t.Fatal("btrfs leaves nothing to replay")
	})
	return cut
}

// hasNoLog tells whether an image is a btrfs that has nothing to replay. A sync of the whole machine, by any program, ends a log before
// its time. The other filesystems keep their journals for longer.
func hasNoLog(t *testing.T, image string) bool {
	t.Helper()
	file, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	superblock := make([]byte, 104) // btrfs_super_block: the magic at 64, the root of the log at 96
	if _, err := file.ReadAt(superblock, 64<<10); err != nil {
		t.Fatal(err)
	}
	return string(superblock[64:72]) == "_BHRfS_M" && binary.LittleEndian.Uint64(superblock[96:]) == 0
}

func TestReadOnlyVolumesAreNotWrittenTo(t *testing.T) {
	for _, fsType := range []string{"ext2", "ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, fsType)
			vol, dev := m.attach(t, 320, nil)
			if err := stage(m, vol, fsType); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(m.path("staging/file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := m.unstage(vol); err != nil {
				t.Fatal(err)
			}
			before := fingerprint(t, dev, m.path(vol.ID+".img"))
			for range 2 {
				if err := stageReadOnly(m, vol, "staging", ""); err != nil {
					t.Fatal(err)
				}
			}
			if data, err := os.ReadFile(m.path("staging/file")); err != nil || string(data) != "data" {
				t.Errorf("the file is %q, %v", data, err)
			}
			if err := m.unstage(vol); err != nil {
				t.Fatal(err)
			}
			if fingerprint(t, dev, m.path(vol.ID+".img")) != before {
				t.Error("the disk was written to")
			}
		})
	}
}

// What is seen of a filesystem without its journal is no state that it ever had.
func TestAReadOnlyVolumeWithAJournalToReplay(t *testing.T) {
	for _, fsType := range []string{"ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, fsType)
			vol, _ := m.attach(t, 320, nil)
			if err := stage(m, vol, fsType); err != nil {
				t.Fatal(err)
			}
			cut := m.cut(t, vol)
			if err := m.unstage(vol); err != nil { // a btrfs has one UUID with its copy
				t.Fatal(err)
			}
			dev := m.devices[cut.ID]
			before := fingerprint(t, dev, m.path(cut.ID+".img"))
			if err := stageReadOnly(m, cut, "cut", ""); !errors.Is(err, disk.ErrRefused) {
				t.Errorf("got %v, want a refusal", err)
			}
			if fingerprint(t, dev, m.path(cut.ID+".img")) != before {
				t.Error("the disk was written to")
			}
			// A copy is completed: its journal is part of it.
			if err := stageReadOnly(m, cut, "cut", vol.ID); err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(m.path("cut/file")); err != nil || string(data) != "data" {
				t.Errorf("the file is %q, %v", data, err)
			}
			if err := os.WriteFile(m.path("cut/file"), nil, 0o600); err == nil {
				t.Error("written to")
			}
		})
	}
}
