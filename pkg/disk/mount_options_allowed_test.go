package disk_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

func TestMountOptionsThatUndoTheDriversAreRefused(t *testing.T) {
	for _, options := range [][]string{
		{"bind"}, {"noatime,remount"}, {"rbind"}, {"move"}, {"rshared"}, {"make-private"}, {"loop"}, {"loop=/dev/loop3"}, {"offset=4096"},
		{"sizelimit=4096"}, {"sb=32768"}, {"journal_dev=0x801"}, {"journal_path=/dev/vda"}, {"logdev=/dev/vda"}, {"device=/dev/vda"},
		{"noload"}, {"norecovery"}, {"rescue=all"}, {"nologreplay"}, {"X-mount.subdir=a"}, {"x-mount.mkdir"}, {"verity.roothash=1"}, {"abort"},
		{"ro", "rw"}, {"rw,noatime,ro"}, {`noatime\`}, {`context="system_u`}, {"a\nb"}, {`a","b`, "bind"}, {"uhelper=x"}, {" bind"},
		{"errors=panic"}, {"noatime,errors=panic"}, {`errors="panic"`}, {"fatal_errors=panic"},
	} {
		if err := disk.ValidateMountOptions(options, false); !errors.Is(err, disk.ErrInvalid) {
			t.Errorf("%q: got %v", options, err)
		}
	}
	if err := disk.ValidateMountOptions([]string{"noatime,rw"}, true); !errors.Is(err, disk.ErrInvalid) {
		t.Errorf("rw for reading only: got %v", err)
	}
	for _, options := range [][]string{
		nil, {"noatime", "nodiratime"}, {"discard,commit=30"}, {"ro"}, {"rw"}, {"nouuid"}, {"_netdev", "nofail", "x-systemd.requires=a.service"},
		{`context="system_u:object_r:container_file_t:s0:c1,c2"`, "noexec"}, {"data=writeback"}, {"compress=zstd:3", "subvol=/a"}, {"errors=remount-ro"},
		{"logbufs=8", "logbsize=256k"}, {"user"},
	} {
		if err := disk.ValidateMountOptions(options, false); err != nil {
			t.Errorf("%q: %v", options, err)
		}
	}
	m := newMachine(t, time.Second)
	vol, _ := m.attach(t, 64, nil)
	err := m.Stage(context.Background(), disk.StageRequest{Volume: vol, Path: m.path("staging"), Options: []string{"bind"}})
	if !errors.Is(err, disk.ErrInvalid) {
		t.Errorf("stage: got %v", err)
	}
}
