package driver

import (
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// Disks on other buses than virtio may tell all digits of the storage's UUID.
func TestVolumesAreKnownByWhateverOfTheirSerialNumberADiskTells(t *testing.T) {
	const id, staged = "014e4257-3672-4563-ab83-0123456789ab", "01aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	short, err := disk.Serial(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, serial := range []string{short, strings.ToUpper(short), id, strings.ReplaceAll(id, "-", "")} {
		disks := []disk.DiskInfo{{Serial: serial}, {Serial: "QM00001"}, {}}
		r := &room{}
		if got := r.countOthers(disks, []string{id}); got != 2 {
			t.Errorf("serial number %s: %d disks are none of Kubernetes' volumes, want 2", serial, got)
		}
		if got := r.countOthers(disks, nil); got != 2 {
			t.Errorf("serial number %s: %d disks are others' when the volume waits to be detached, want 2", serial, got)
		}
		if got := r.countOthers(disks[1:], nil); got != 2 {
			t.Errorf("serial number %s: %d others when it has gone, want 2", serial, got)
		}
		r = &room{}
		r.took(id)
		mounted := disk.DiskInfo{Serial: staged, Mounts: []string{"/var/lib/kubelet/plugins/kubernetes.io/csi/x/globalmount"}}
		if got := r.countOthers(append(disks, mounted), nil); got != 2 {
			t.Errorf("serial number %s: %d disks are not staged, want 2", serial, got)
		}
	}
}
