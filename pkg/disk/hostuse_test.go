package disk_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// A PersistentVolume that names the node's own disk must not give a Pod the node's root folder, be it as a filesystem or as a device.
func TestDiskThatTheNodeLivesOnIsNotStaged(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	run(t, "mkfs.ext4", "-q", dev)
	var st unix.Stat_t
	if err := unix.Stat(dev, &st); err != nil {
		t.Fatal(err)
	}
	info := m.path("mountinfo")
	line := fmt.Sprintf("20 1 %d:%d / / rw shared:1 - ext4 %s rw\n", unix.Major(st.Rdev), unix.Minor(st.Rdev), dev)
	if err := os.WriteFile(info, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	m.WithHostMounts(info)
	for what, err := range map[string]error{
		"filesystem": m.Stage(context.Background(), disk.StageRequest{Volume: vol, Path: m.path("staging")}),
		"raw block":  m.StageBlock(context.Background(), disk.StageBlockRequest{Volume: vol, Path: m.path("block")}),
	} {
		if !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), "mounted at /;") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if err := os.WriteFile(info, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Stage(context.Background(), disk.StageRequest{Volume: vol, Path: m.path("staging")}); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(vol); err != nil {
		t.Fatal(err)
	}
}

// What the driver and the kubelet mounted is seen in the driver's container as well. What the node mounted is not, also where the
// container has a folder of the node's root filesystem.
func TestMountsOfTheHostAreDistinguishedFromTheDriversOwn(t *testing.T) {
	const (
		root     = `20 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw`
		boot     = `21 20 254:1 / /boot rw - ext4 /dev/vda1 rw`
		data     = `22 20 254:1 / /mnt/data rw shared:9 - ext4 /dev/vda1 rw`
		private  = `22 20 254:1 / /mnt/data rw - ext4 /dev/vda1 rw`
		kubelet  = `30 1 254:1 /var/lib/kubelet /var/lib/kubelet rw shared:1 - ext4 /dev/vda1 rw`
		staged   = `31 30 254:1 / /var/lib/kubelet/plugins/x/globalmount rw shared:7 - ext4 /dev/vda1 rw`
		subPath  = `32 30 254:1 /sub /var/lib/kubelet/pods/x/volume-subpaths/a rw shared:8 - ext4 /dev/vda1 rw`
		otherOne = `33 30 254:2 / /mnt/other rw shared:6 - ext4 /dev/vdb rw`
	)
	for name, test := range map[string]struct {
		host, own []string
		same      bool
		want      []string
	}{
		"root disk, in a container":           {host: []string{root}, own: []string{kubelet}, want: []string{"/"}},
		"boot partition":                      {host: []string{boot}, own: []string{kubelet}, want: []string{"/boot"}},
		"data disk of the node":               {host: []string{data}, own: []string{staged}, want: []string{"/mnt/data"}},
		"data disk of the node, private":      {host: []string{private}, own: []string{private}, want: []string{"/mnt/data"}},
		"staged by the driver":                {host: []string{staged, subPath}, own: []string{staged, subPath}},
		"staged, and mounted by a person too": {host: []string{staged, data}, own: []string{staged}, want: []string{"/mnt/data"}},
		"another disk":                        {host: []string{otherOne}},
		"no container, root disk":             {host: []string{root}, own: []string{root}, same: true, want: []string{"/"}},
		"no container, staged":                {host: []string{staged}, own: []string{staged}, same: true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := disk.HostMounts(t, test.host, test.own, test.same, 254, 1); !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
