package disk_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

func TestMkfsOptionsShapeTheFilesystem(t *testing.T) {
	cases := []struct {
		fsType, show, want string
		options            []string
	}{
		{"ext4", "dumpe2fs -h DEV", "Filesystem volume name:   mine", []string{"-L", "mine", "-b4096", "-O", "^metadata_csum"}},
		{"xfs", "blkid -p DEV", `LABEL="mine"`, []string{"-Lmine", "-m", "crc=1,reflink=0"}},
		{"ext4", "dumpe2fs -h DEV", "RAID stride:              16", []string{"-E", "stride=16", "-m1", "-Estripe_width=32"}},
		{"ext4", "dumpe2fs -h DEV", "RAID stripe width:        32", []string{"-E", "stride=16", "-Estripe_width=32"}},
		{"ext4", "dumpe2fs -h DEV", "inline_data", []string{"-O", "inline_data", "-O^huge_file"}},
		{"btrfs", "blkid -p DEV", `LABEL="mine"`, []string{"--label=mine", "--nodesize", "16384"}},
	}
	for _, c := range cases {
		t.Run(c.fsType, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, c.fsType)
			vol, dev := m.attach(t, 320, nil)
			req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: c.fsType, MkfsOptions: c.options}
			for range 2 {
				if err := m.Stage(context.Background(), req); err != nil {
					t.Fatal(err)
				}
			}
			if shown := run(t, "sh", "-c", strings.ReplaceAll(c.show, "DEV", dev)); !strings.Contains(shown, c.want) {
				t.Errorf("%s shows no %s: %s", c.show, c.want, shown)
			}
		})
	}
}

// An option that mkfs does not like must not cost the volume: it can be formatted with others.
func TestMkfsOptionsThatFailCanBeMended(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	req := disk.StageRequest{Volume: vol, Path: m.path("staging")}
	for _, wrong := range [][]string{{"-b", "100"}, {"-O", "^has_journal,^extents,^flex_bg,^huge_file,^64bit,^metadata_csum,^extra_isize,^dir_nlink,^ext_attr"}} {
		req.MkfsOptions = wrong
		err := m.Stage(context.Background(), req)
		if err == nil || !strings.Contains(err.Error(), "mkfs") {
			t.Fatalf("%v: got %v", wrong, err)
		}
	}
	req.MkfsOptions = []string{"-b", "1024"}
	if err := m.Stage(context.Background(), req); err != nil {
		t.Fatal(err)
	}
}

func TestMkfsOptionsThatEndangerDataAreRefused(t *testing.T) {
	for _, c := range []struct {
		fsType  string
		options string
	}{
		{"ext4", "-F"}, {"ext4", "-FF"}, {"ext4", "/dev/vda"}, {"ext4", "-b"}, {"ext4", "-b -F"}, {"ext4", "-n"}, {"ext4", "-S"},
		{"ext4", "-t ext2"}, {"ext4", "-d /etc"}, {"ext4", "-E offset=4096"}, {"ext4", "-E stride=2,discard"}, {"ext4", "-J device=/dev/vda"},
		{"ext4", "-Jdevice=UUID=x"}, {"ext4", "-O journal_dev"}, {"ext4", "100000"}, {"ext4", "-l list"}, {"ext4", "-cc"}, {"ext4", ""},
		{"ext4", "-Ediscard"}, {"ext4", "-E assume_storage_prezeroed"}, {"ext4", "-E stride=2 -E offset=1"}, {"ext4", "-O +journal_dev"},
		{"ext4", "-O quota,JOURNAL_DEV"}, {"ext4", "-O FEATURE_I3"}, {"ext4", "-U clear"}, {"ext4", "-O shared_blocks"}, {"ext4", "-K"}, {"ext4", "-e panic"},
		{"xfs", "-m uuid=01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"}, {"xfs", "-m crc=1,uuid=x"}, {"xfs", "-c options=x"}, {"btrfs", "-O zoned"},
		{"btrfs", "--features=^no-holes,zoned"}, {"btrfs", "-R list-all"}, {"btrfs", "-U x"}, {"btrfs", "--uuid=x"}, {"btrfs", "--lab=x"},
		{"xfs", "-f"}, {"xfs", "-N"}, {"xfs", "-p proto"}, {"xfs", "-d name=x"}, {"xfs", "-d agcount=4,size=1g"}, {"xfs", "-r rtdev=x"},
		{"xfs", "-l logdev=x"}, {"xfs", "-q1"}, {"btrfs", "-f"}, {"btrfs", "--force"}, {"btrfs", "-b 1g"}, {"btrfs", "--byte-count=1g"},
		{"btrfs", "--rootdir etc"}, {"btrfs", "-r etc"}, {"btrfs", "--mixed=1"}, {"btrfs", "/dev/vdb"}, {"ntfs", "-q"},
	} {
		var options []string
		if options = strings.Split(c.options, " "); c.options == "" {
			options = []string{""}
		}
		if err := disk.ValidateMkfsOptions(c.fsType, options); !errors.Is(err, disk.ErrInvalid) {
			t.Errorf("%s %q: got %v", c.fsType, c.options, err)
		}
	}
	m := newMachine(t, time.Second)
	vol, _ := m.attach(t, 64, nil)
	err := m.Stage(context.Background(), disk.StageRequest{Volume: vol, Path: m.path("staging"), MkfsOptions: []string{"-F"}})
	if !errors.Is(err, disk.ErrInvalid) {
		t.Errorf("stage: got %v", err)
	}
}
