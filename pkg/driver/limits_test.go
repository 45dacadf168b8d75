package driver_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// A request just beyond a limit is refused with the field, what it has and what is allowed, and makes nothing.
func TestRequestBeyondALimitIsRefused(t *testing.T) {
	r := newController(t, simulator.Config{})
	mount := func(flags ...string) *csi.VolumeCapability {
		return &csi.VolumeCapability{AccessMode: writer().AccessMode, AccessType: &csi.VolumeCapability_Mount{
			Mount: &csi.VolumeCapability_MountVolume{MountFlags: flags}}}
	}
	labels := strings.TrimPrefix(strings.Repeat(",k=v", 101), ",")
	for want, spoil := range map[string]func(*csi.CreateVolumeRequest){
		"name: too large: 4097 bytes, at most 4096": func(q *csi.CreateVolumeRequest) { q.Name = strings.Repeat("x", 4097) },
		"fs_type: too large: 4097 bytes, at most 4096": func(q *csi.CreateVolumeRequest) {
			q.VolumeCapabilities[0].GetMount().FsType = strings.Repeat("x", 4097)
		},
		"parameters: too large: 65537 bytes": func(q *csi.CreateVolumeRequest) {
			q.Parameters = map[string]string{"labels": strings.Repeat("x", 65531)}
		},
		"parameters: too many entries: 513, at most 512": func(q *csi.CreateVolumeRequest) {
			q.Parameters = map[string]string{}
			for i := range 513 {
				q.Parameters[fmt.Sprint(i)] = ""
			}
		},
		"mount_flags: too large: 4097 bytes": func(q *csi.CreateVolumeRequest) {
			q.VolumeCapabilities = []*csi.VolumeCapability{mount(strings.Repeat("x", 4000), strings.Repeat("x", 97))}
		},
		"volume_capabilities: too many elements: 1001, at most 1000": func(q *csi.CreateVolumeRequest) {
			for len(q.VolumeCapabilities) <= 1000 {
				q.VolumeCapabilities = append(q.VolumeCapabilities, mount())
			}
		},
		"parameters: labels: too many labels: 101, at most 100": func(q *csi.CreateVolumeRequest) { q.Parameters = map[string]string{"labels": labels} },
		"parameters: mkfsOptions: too large: 4098 bytes, at most 4096": func(q *csi.CreateVolumeRequest) {
			q.Parameters = map[string]string{"mkfsOptions": strings.Repeat("-q ", 1366)}
		},
	} {
		q := createRequest("new")
		spoil(q)
		_, err := r.controller.CreateVolume(callContext(t), q)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%.300v\nwant INVALID_ARGUMENT: %s", err, want)
		}
	}
	if disks := r.disks(t); len(disks) > 0 {
		t.Errorf("%d disks were made", len(disks))
	}
	q := createRequest("new")
	q.Secrets = map[string]string{"other": strings.Repeat("x", 1<<20)} // as large as a Secret can be
	if _, err := r.controller.CreateVolume(callContext(t), q); err != nil {
		t.Error(err)
	}
}
