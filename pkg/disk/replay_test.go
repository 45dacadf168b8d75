package disk_test

import (
	"context"
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
	return m.copyOf(t, vol, vol.SizeBytes/mib)
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
