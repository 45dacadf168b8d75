package disk_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

func stage(m *machine, vol disk.Volume, fsType string) error {
	return m.Stage(context.Background(), disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: fsType})
}

func TestStageFormatsABlankVolumeAndMountsItAgain(t *testing.T) {
	for _, fsType := range []string{"ext2", "ext3", "ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, fsType)
			vol, _ := m.attach(t, 320, nil)
			for range 2 { // the second call finds it mounted
				if err := stage(m, vol, fsType); err != nil {
					t.Fatal(err)
				}
			}
			mounts := mountsOn(t, m.path("staging"))
			if len(mounts) != 1 || mounts[0].FsType != fsType {
				t.Fatalf("mounts at the staging path: %+v, want one %s", mounts, fsType)
			}
			if err := os.WriteFile(m.path("staging/file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := m.Unstage(context.Background(), vol.ID, m.path("staging")); err != nil {
					t.Fatal(err)
				}
			}
			if left := mountsOn(t, m.path("staging")); len(left) != 0 {
				t.Fatalf("still mounted after unstage: %+v", left)
			}
			if err := stage(m, vol, ""); err != nil { // no type asked: takes what is there
				t.Fatal(err)
			}
			if data, err := os.ReadFile(m.path("staging/file")); err != nil || string(data) != "data" {
				t.Fatalf("file after staging again: %q, %v", data, err)
			}
		})
	}
}

func TestStageNeverFormatsADiskThatHoldsSomething(t *testing.T) {
	write := func(t *testing.T, file string, offset int64, data string) {
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte(data), offset); err != nil {
			t.Fatal(err)
		}
	}
	const size = 320
	cases := []struct {
		name    string
		prepare func(t *testing.T, file string)
		asked   string
		says    []string
	}{
		{"xfs, ext4 asked", func(t *testing.T, file string) { run(t, "mkfs.xfs", "-q", file) }, "ext4", []string{"xfs", "ext4"}},
		{"ext4, xfs asked", func(t *testing.T, file string) { run(t, "mkfs.ext4", "-q", "-F", file) }, "xfs", []string{"xfs", "ext4"}},
		{"ext3, ext4 asked", func(t *testing.T, file string) { run(t, "mkfs.ext3", "-q", "-F", file) }, "ext4", []string{"ext3", "ext4"}},
		{"swap", func(t *testing.T, file string) { run(t, "mkswap", file) }, "ext4", []string{"swap"}},
		{"two partitions", func(t *testing.T, file string) { writeGPT(t, file, 2) }, "ext4", []string{"gpt", "2 partitions"}},
		{"one blank partition", func(t *testing.T, file string) { writeGPT(t, file, 1) }, "ext4", []string{"partition"}},
		{"unknown data at the start", func(t *testing.T, file string) { write(t, file, 70_000, "precious") }, "ext4", []string{"not blank", "byte 70000"}},
		{"unknown data at the end", func(t *testing.T, file string) { write(t, file, size*mib-8, "precious") }, "ext4", []string{"not blank"}},
		{"LUKS1", func(t *testing.T, file string) {
			write(t, file, 0, "LUKS\xba\xbe\x00\x01aes\x00")
		}, "ext4", []string{"LUKS"}},
		{"LUKS2", func(t *testing.T, file string) {
			if _, err := exec.LookPath("cryptsetup"); err != nil {
				t.Skip("needs cryptsetup")
			}
			encryptByHand(t, file, "secret")
		}, "ext4", []string{"LUKS"}},
		{"LVM label", func(t *testing.T, file string) { write(t, file, 512, "LABELONE\x01") }, "ext4", []string{"not blank"}},
		{"btrfs, ext4 asked", func(t *testing.T, file string) {
			requireFilesystem(t, "btrfs")
			run(t, "mkfs.btrfs", "-q", file)
		}, "ext4", []string{"btrfs", "ext4"}},
		{"MBR with a partition", func(t *testing.T, file string) {
			write(t, file, 446, "\x00\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x00\x08\x00")
			write(t, file, 510, "\x55\xaa")
		}, "ext4", []string{"partition"}},
		{"MBR without partitions", func(t *testing.T, file string) {
			write(t, file, 440, "\x01\x02\x03\x04")
			write(t, file, 510, "\x55\xaa")
		}, "ext4", nil},
		{"ZFS member", func(t *testing.T, file string) {
			for block := range int64(8) { // uberblocks of the first label
				write(t, file, 128<<10+block<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00\x88\x13")
			}
		}, "ext4", nil},
		{"bcache member", func(t *testing.T, file string) {
			write(t, file, 4096+16, "\x08\x00\x00\x00\x00\x00\x00\x00\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")
		}, "ext4", nil},
		{"RAID member, head", func(t *testing.T, file string) {
			write(t, file, 4096, "\xfc\x4e\x2b\xa9\x01\x00\x00\x00")
		}, "ext4", nil},
		{"RAID member, tail", func(t *testing.T, file string) {
			write(t, file, size*mib-64<<10, "\xfc\x4e\x2b\xa9\x00\x00\x00\x00")
		}, "ext4", nil},
		{"Ceph", func(t *testing.T, file string) { write(t, file, 0, "bluestore block device\n") }, "ext4", nil},
		{"NTFS", func(t *testing.T, file string) { write(t, file, 3, "NTFS    ") }, "ext4", nil},
		{"several kinds", func(t *testing.T, file string) {
			run(t, "mkfs.ext4", "-q", "-F", file)
			write(t, file, 0, "XFSB\x00\x00\x10\x00")
		}, "xfs", nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			vol, dev := m.attach(t, size, func(file string) { c.prepare(t, file) })
			file := m.path(vol.ID + ".img")
			before := fingerprint(t, dev, file)
			err := stage(m, vol, c.asked)
			if !errors.Is(err, disk.ErrRefused) {
				t.Fatalf("got %v, want a refusal", err)
			}
			for _, word := range c.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %q: %v", word, err)
				}
			}
			if after := fingerprint(t, dev, file); after != before {
				t.Error("the disk was written to")
			}
		})
	}
}

func TestStageRefusesToFormatCopiesAndReadOnlyVolumes(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	for remedy, req := range map[string]disk.StageRequest{
		"use a new volume without a source": {Volume: vol, Path: m.path("staging"), Origin: "01000000-0000-4000-8000-000000000001"},
		"Use it once for writing first":     {Volume: vol, Path: m.path("staging"), ReadOnly: true},
	} {
		if err := m.Stage(context.Background(), req); !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), remedy) {
			t.Errorf("got %v, want a refusal that says %q", err, remedy)
		}
	}
}

func TestStageMountsPartitionOneOfUpCloudsOwnDriver(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, func(file string) { writeGPT(t, file, 1) })
	run(t, "mkfs.ext4", "-q", dev+"p1")
	for range 2 {
		if err := stage(m, vol, "ext4"); err != nil {
			t.Fatal(err)
		}
	}
	mounts := mountsOn(t, m.path("staging"))
	if len(mounts) != 1 || mounts[0].Source != dev+"p1" {
		t.Fatalf("mounts at the staging path: %+v, want %sp1", mounts, dev)
	}
	err := m.Publish(context.Background(), disk.PublishRequest{
		Volume: vol, StagingPath: m.path("staging"), Path: m.path("target")})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStageRefusesAWrongDevice(t *testing.T) {
	m := newMachine(t, 200*time.Millisecond)
	vol, dev := m.attach(t, 64, nil)
	other := disk.Volume{ID: "01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"}
	m.link(t, other.ID, dev) // a stale link: the device is another volume's

	err := stage(m, other, "ext4")
	if !errors.Is(err, disk.ErrNoDevice) || !strings.Contains(err.Error(), dev) {
		t.Errorf("stale link: got %v, want an error that names %s", err, dev)
	}
	vol.SizeBytes *= 2
	err = stage(m, vol, "ext4")
	if !errors.Is(err, disk.ErrNoDevice) || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("device too small: got %v, want an error that names the sizes", err)
	}
}

func TestFindWaitsForTheDevice(t *testing.T) {
	m := newMachine(t, time.Minute)
	vol, dev := m.attach(t, 64, nil)
	name, err := disk.LinkName(vol.ID)
	if err != nil {
		t.Fatal(err)
	}
	// The whole folder comes with the first disk.
	if err := os.RemoveAll(m.deviceDir); err != nil {
		t.Fatal(err)
	}
	found := make(chan error, 1)
	go func() {
		got, err := m.Find(context.Background(), vol)
		if err == nil && got.Path != dev {
			err = errors.New("found " + got.Path + ", want " + dev)
		}
		found <- err
	}()
	if err := os.Mkdir(m.deviceDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dev, filepath.Join(m.deviceDir, name)); err != nil {
		t.Fatal(err)
	}
	if err := <-found; err != nil {
		t.Fatal(err)
	}
}

func TestFindEndsWithTheCallersContext(t *testing.T) {
	m := newMachine(t, time.Hour)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := m.Find(ctx, disk.Volume{ID: "01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no link") {
		t.Fatalf("got %v, want the end of the context and what was seen", err)
	}
}

// A caller that goes away while the volume is being formatted leaves a whole filesystem behind, and its retry gets it.
func TestStageGoesOnWhenTheCallerLeaves(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 320, nil)
	req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: "ext4"}
	var wg sync.WaitGroup
	for range 8 {
		ctx, cancel := context.WithCancel(context.Background())
		wg.Go(func() {
			if err := m.Stage(ctx, req); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		wg.Go(cancel)
	}
	wg.Wait()
	if err := m.Stage(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	if mounts := mountsOn(t, req.Path); len(mounts) != 1 {
		t.Fatalf("mounts at the staging path: %+v, want one", mounts)
	}
}

func TestStageRefusesAPathThatIsInUse(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	first, _ := m.attach(t, 64, nil)
	second, _ := m.attach(t, 64, nil)
	if err := stage(m, first, ""); err != nil {
		t.Fatal(err)
	}
	if err := stage(m, second, ""); !errors.Is(err, disk.ErrConflict) {
		t.Errorf("another volume there: got %v", err)
	}
	if err := stage(m, first, "xfs"); !errors.Is(err, disk.ErrConflict) {
		t.Errorf("staged with another filesystem: got %v", err)
	}
	readOnly := disk.StageRequest{Volume: first, Path: m.path("staging"), ReadOnly: true}
	if err := m.Stage(context.Background(), readOnly); !errors.Is(err, disk.ErrConflict) {
		t.Errorf("staged for writing, read-only asked: got %v", err)
	}
}

// A volume that was detached while mounted and attached again comes back as another device.
func TestStageReplacesTheMountOfAnEarlierAttachment(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, old := m.attach(t, 64, nil)
	if err := stage(m, vol, ""); err != nil {
		t.Fatal(err)
	}
	name, err := disk.LinkName(vol.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(m.deviceDir, name)); err != nil {
		t.Fatal(err)
	}
	fresh := m.attachFile(t, vol.ID, m.path(vol.ID+".img"))
	if fresh == old {
		t.Fatal("the test needs a second device")
	}
	if err := stage(m, vol, ""); err != nil {
		t.Fatal(err)
	}
	if mounts := mountsOn(t, m.path("staging")); len(mounts) != 1 || mounts[0].Source != fresh {
		t.Fatalf("mounts at the staging path: %+v, want one of %s", mounts, fresh)
	}
}

func TestUnstageTakesDownStackedMounts(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	if err := stage(m, vol, ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		run(t, "mount", "--bind", m.path("staging"), m.path("staging"))
	}
	if got := len(mountsOn(t, m.path("staging"))); got != 3 {
		t.Fatalf("the test needs 3 stacked mounts, has %d", got)
	}
	if err := m.Unstage(context.Background(), vol.ID, m.path("staging")); err != nil {
		t.Fatal(err)
	}
	if left := mountsOn(t, m.path("staging")); len(left) != 0 {
		t.Fatalf("still mounted: %+v", left)
	}
}

func TestValidateFilesystem(t *testing.T) {
	for _, name := range []string{"", "ext4", "xfs"} {
		if err := disk.ValidateFilesystem(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := disk.ValidateFilesystem("ntfs"); !errors.Is(err, disk.ErrInvalid) || !strings.Contains(err.Error(), "ext4") {
		t.Errorf("ntfs: %v, want a list of what is supported", err)
	}
}

func TestSerial(t *testing.T) {
	got, err := disk.Serial("014e4257-3672-4563-ab83-0123456789ab")
	if err != nil || got != "014e425736724563ab83" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", "pvc-1", "014e425736724563ab830123456789ab", "../../etc/passwd"} {
		if _, err := disk.Serial(bad); !errors.Is(err, disk.ErrInvalid) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// What a power cut or a killed container leaves of a format is no data, and must not keep the volume from use.
func TestStageFormatsAgainAfterAnInterruption(t *testing.T) {
	damages := map[string]string{
		"before anything was written":   "",
		"without a signature":           "dd if=/dev/urandom of=$device bs=4096 seek=4 count=8 conv=notrunc status=none",
		"with a filesystem of one sort": `MKFS "$@" >&2`,
	}
	for _, fsType := range []string{"ext4", "xfs"} {
		real, err := exec.LookPath("mkfs." + fsType)
		if err != nil {
			t.Skipf("needs mkfs.%s", fsType)
		}
		for name, damage := range damages {
			t.Run(fsType+" "+name, func(t *testing.T) {
				m := newMachine(t, 10*time.Second)
				vol, _ := m.attach(t, 1024, nil)
				script := "#!/bin/sh\nfor argument; do case $argument in /dev/*) device=$argument ;; esac; done\n" + strings.ReplaceAll(damage, "MKFS", real) + "\nkill -9 $$\n"
				programs := t.TempDir()
				if err := os.WriteFile(filepath.Join(programs, "mkfs."+fsType), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
				path := os.Getenv("PATH")
				t.Setenv("PATH", programs+":"+path)
				if err := stage(m, vol, fsType); err == nil {
					t.Fatal("staged by an mkfs that was killed")
				}
				t.Setenv("PATH", path)
				copied := disk.StageRequest{Volume: vol, Path: m.path("staging"), Origin: "01000000-0000-4000-8000-000000000001"}
				if err := m.Stage(context.Background(), copied); !errors.Is(err, disk.ErrRefused) {
					t.Errorf("a copy: got %v, want a refusal", err)
				}
				if err := stage(m, vol, fsType); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(m.path("staging/file"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := m.Unstage(context.Background(), vol.ID, m.path("staging")); err != nil {
					t.Fatal(err)
				}
				if err := stage(m, vol, fsType); err != nil { // and is never formatted again
					t.Fatal(err)
				}
				if _, err := os.Stat(m.path("staging/file")); err != nil {
					t.Error(err)
				}
			})
		}
	}
}
