package disk_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// The kernel hides some options, and shows others in a form of its own: a retry with the same options is no conflict.
func TestStageAgainWithTheSameMountOptions(t *testing.T) {
	for _, c := range []struct {
		fsType  string
		options []string
	}{
		{"ext4", []string{"defaults"}},
		{"ext4", []string{"noatime,nodiratime", "nosuid", "discard", "commit=30", "data=writeback", "errors=remount-ro", "nodelalloc"}},
		{"ext4", []string{"atime", "data=ordered", "commit=5", "barrier=1", "user_xattr", "acl", "nodiscard", "lazytime", "sync", "stripe=16"}},
		{"ext4", []string{"noatime", "relatime", "exec", "noexec", "commit=5", "commit=7", "_netdev", "x-systemd.automount", "nofail"}},
		{"ext4", []string{"strictatime", "nobarrier", "noauto_da_alloc", "journal_checksum", "noinit_itable", "max_batch_time=100", "user"}},
		{"ext3", []string{"noatime", "data=journal"}},
		{"ext4", []string{"data=journal", "barrier=0"}},
		{"ext2", []string{"nodev", "user_xattr"}},
		{"xfs", []string{"discard", "noatime", "logbsize=65536", "logbufs=4", "allocsize=64k", "inode64", "nouuid"}},
		{"xfs", []string{"nodiscard", "largeio", "inode32", "swalloc", "wsync", "noquota", "attr2"}},
		{"btrfs", []string{"compress=zstd", "noatime", "discard", "commit=60", "space_cache=v2", "autodefrag", "ssd"}},
		{"btrfs", []string{"compress-force=lzo", "nodiscard", "nossd", "flushoncommit", "thread_pool=2", "commit=30"}},
		{"btrfs", []string{"nodatacow", "discard=async", "compress=no", "max_inline=1024"}},
		{"xfs", []string{"sync"}},
		{"btrfs", []string{"discard=sync", "compress=zstd:0", "subvolid=0"}},
		{"btrfs", []string{"compress-force", "sync", "subvol=."}},
	} {
		t.Run(c.fsType+" "+strings.Join(c.options, ","), func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, c.fsType)
			vol, _ := m.attach(t, 320, nil)
			req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: c.fsType, Options: c.options}
			for range 2 {
				if err := m.Stage(t.Context(), req); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestStageAgainWithOtherMountOptions(t *testing.T) {
	for _, c := range []struct{ fsType, staged, asked, says string }{
		{"ext4", "", "noatime", "noatime"},
		{"ext4", "noatime", "", "noatime"},
		{"ext4", "nosuid", "", "nosuid"},
		{"ext4", "", "noexec", "noexec"},
		{"ext4", "", "discard", "discard"},
		{"ext4", "discard", "", "discard"},
		{"ext4", "discard", "nodiscard", "discard"},
		{"ext4", "commit=30", "commit=60", "commit=30"},
		{"ext4", "", "commit=60", "commit=60"},
		{"ext4", "commit=30", "", "commit=30"},
		{"ext4", "", "data=journal", "data=journal"},
		{"xfs", "", "wsync", "wsync"},
		{"xfs", "logbufs=4", "logbufs=8", "logbufs=4"},
		{"btrfs", "compress=zstd", "compress=lzo", "compress=lzo"},
		{"btrfs", "", "compress=lzo", "compress=lzo"},
		{"btrfs", "autodefrag", "", "autodefrag"},
	} {
		t.Run(c.fsType+" "+c.staged+" then "+c.asked, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, c.fsType)
			vol, _ := m.attach(t, 320, nil)
			req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: c.fsType}
			if c.staged != "" {
				req.Options = []string{c.staged}
			}
			if err := m.Stage(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			req.Options = nil
			if c.asked != "" {
				req.Options = []string{c.asked}
			}
			err := m.Stage(t.Context(), req)
			if !errors.Is(err, disk.ErrConflict) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "unstage it first") {
				t.Errorf("got %v, want a conflict that names %s and the remedy", err, c.says)
			}
			if got := len(mountsOn(t, req.Path)); got != 1 {
				t.Errorf("%d mounts at the staging path", got)
			}
		})
	}
}

// All mounts of a filesystem have its options: a second mount cannot have others.
func TestStageAtASecondPathWithOtherMountOptions(t *testing.T) {
	m, req := stagedVolume(t)
	second := disk.StageRequest{Volume: req.Volume, Path: m.path("second"), Options: []string{"discard"}}
	err := m.Stage(t.Context(), second)
	if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), "discard") || !strings.Contains(err.Error(), req.StagingPath) {
		t.Errorf("got %v, want the option and where it is mounted", err)
	}
	if left := mountsOn(t, second.Path); len(left) > 0 {
		t.Errorf("left mounted: %+v", left)
	}
	second.Options = []string{"noatime"} // each mount has its own flags
	if err := m.Stage(t.Context(), second); err != nil {
		t.Error(err)
	}
}

// This machine need not have SELinux: the options are as a kernel with it shows them.
func TestMountOptionsWithAnSELinuxContext(t *testing.T) {
	const first, other = `context="system_u:object_r:container_file_t:s0:c1,c2"`, `context="system_u:object_r:container_file_t:s0:c3,c4"`
	for _, c := range []struct {
		shown, asked string
		conflict     bool
	}{
		{"rw," + first, first, false},
		{"rw," + first, other, true},
		{"rw," + first, "noatime", true},
		{"rw,seclabel", first, true},
		{"rw,seclabel", "noatime", false},
		{"rw", first, false}, // without SELinux mount(8) drops it
		{`rw,context="system_u:object_r:container_file_t:s0:c5,c26"`, `context="system_u:object_r:container_file_t:s0:c26,c5"`, false},
		{"rw,context=system_u:object_r:container_file_t:s0", `context="system_u:object_r:container_file_t:s0"`, false},
	} {
		asked := []string{"noatime", c.asked}
		if got := disk.OptionConflict("ext4", "rw,noatime", c.shown, asked...); (got != "") != c.conflict {
			t.Errorf("mounted with %s, asked for %s: %q", c.shown, c.asked, got)
		}
	}
}
