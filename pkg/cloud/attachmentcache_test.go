package cloud

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// The tests of the attachmentCache have servers a and b, a volume v, and another disk.
const (
	serverA  = "00000000-0000-4000-8000-00000000000a"
	serverB  = "00000000-0000-4000-8000-00000000000b"
	volumeV  = "01000000-0000-4000-8000-00000000000c"
	anyOther = "01000000-0000-4000-8000-00000000000d"
)

// cacheScene is an attachmentCache at a time that the test says.
type cacheScene struct {
	*attachmentCache
	second int
}

func (s *cacheScene) at(second int) time.Time { return time.Unix(int64(second), 0) }

// server notes that a server was asked in a second, and has these disks.
func (s *cacheScene) server(second int, id string, disks ...string) {
	details := &upcloud.ServerDetails{Server: upcloud.Server{UUID: id}}
	for n, disk := range disks {
		details.StorageDevices = append(details.StorageDevices, upcloud.ServerStorageDevice{
			UUID: disk, Type: upcloud.StorageTypeDisk, Address: "virtio:" + string(rune('1'+n)),
		})
	}
	s.sawServer(details, s.at(second))
}

func (s *cacheScene) volume(second int, servers ...string) { s.sawDisk(volumeV, servers, s.at(second)) }
func (s *cacheScene) begin(second int)                     { s.second = second; s.changed(volumeV) }
func (s *cacheScene) end(second int, op, server string, err error) {
	s.second = second
	s.moved(op, volumeV, server, err)
}

// Answers arrive in any order, and changes of this process are under way meanwhile.
func TestAttachmentCacheBelievesTheLatestLook(t *testing.T) {
	unknown := []string{"unknown"}
	for name, test := range map[string]struct {
		events func(s *cacheScene)
		want   []string
	}{
		"nothing was seen":                     {func(*cacheScene) {}, unknown},
		"a server says it":                     {func(s *cacheScene) { s.server(1, serverA, volumeV) }, []string{serverA}},
		"the storage says it":                  {func(s *cacheScene) { s.volume(1, serverA) }, []string{serverA}},
		"the storage says that it is detached": {func(s *cacheScene) { s.volume(1) }, nil},
		"a server without it says nothing":     {func(s *cacheScene) { s.server(1, serverA, anyOther) }, unknown},
		"the later look counts":                {func(s *cacheScene) { s.volume(1, serverA); s.server(2, serverB, volumeV) }, []string{serverB}},
		"the later look counts although its answer came first": {func(s *cacheScene) {
			s.server(2, serverB, volumeV)
			s.volume(1, serverA)
		}, []string{serverB}},
		"its server no longer has it":       {func(s *cacheScene) { s.server(1, serverA, volumeV); s.server(2, serverA) }, unknown},
		"its server did not have it before": {func(s *cacheScene) { s.volume(2, serverA); s.server(1, serverA) }, []string{serverA}},
		"an old answer after it has left its server": {func(s *cacheScene) {
			s.server(1, serverA, volumeV)
			s.server(3, serverA)
			s.volume(2, serverA)
		}, unknown},
		"its server is gone":     {func(s *cacheScene) { s.volume(1, serverA); s.serverGone(serverA, s.at(2)) }, unknown},
		"another server is gone": {func(s *cacheScene) { s.volume(1, serverA); s.serverGone(serverB, s.at(2)) }, []string{serverA}},
		"it is being moved":      {func(s *cacheScene) { s.volume(1, serverA); s.begin(2) }, unknown},
		"it was attached":        {func(s *cacheScene) { s.volume(1); s.begin(2); s.end(3, opAttach, serverA, nil) }, []string{serverA}},
		"it was attached, and a look began before": {func(s *cacheScene) {
			s.begin(1)
			s.end(3, opAttach, serverA, nil)
			s.volume(2)
		}, []string{serverA}},
		"it was attached, and its server was asked before": {func(s *cacheScene) {
			s.begin(1)
			s.end(3, opAttach, serverA, nil)
			s.server(2, serverA)
		}, []string{serverA}},
		"it was detached": {func(s *cacheScene) {
			s.begin(1)
			s.server(2, serverA, volumeV)
			s.end(3, opDetach, serverA, nil)
		}, nil},
		"it was detached, and a look began before": {func(s *cacheScene) {
			s.begin(1)
			s.server(2, serverA, volumeV)
			s.end(4, opDetach, serverA, nil)
			s.server(3, serverA, volumeV)
		}, nil},
		"it was detached from a server, and is at another": {func(s *cacheScene) {
			s.begin(1)
			s.volume(2, serverB)
			s.end(3, opDetach, serverA, nil)
		}, []string{serverB}},
		"it was detached, and not looked at": {func(s *cacheScene) {
			s.volume(1, serverA)
			s.begin(2)
			s.end(3, opDetach, serverA, nil)
		}, unknown},
		"the attachment failed": {func(s *cacheScene) {
			s.begin(1)
			s.volume(2)
			s.end(3, opAttach, serverA, errors.New("unknown outcome"))
		}, unknown},
		"another process moved it afterwards": {func(s *cacheScene) {
			s.begin(1)
			s.end(2, opAttach, serverA, nil)
			s.server(3, serverB, volumeV)
			s.server(4, serverA)
		}, []string{serverB}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &cacheScene{}
			s.attachmentCache = newAttachmentCache(func() time.Time { return s.at(s.second) })
			test.events(s)
			got, known := s.believed(volumeV)
			if !known {
				got = unknown
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("it is at %v, want %v", got, test.want)
			}
		})
	}
}

func TestSystemDiskIsTheMarkedOrTheFirst(t *testing.T) {
	disk := func(address string, boot int, plan string) upcloud.ServerStorageDevice {
		return upcloud.ServerStorageDevice{Address: address, BootDisk: boot, PartOfPlan: plan, Type: upcloud.StorageTypeDisk}
	}
	for name, test := range map[string]struct {
		devices upcloud.ServerStorageDeviceSlice
		want    []bool
	}{
		"none marked":            {upcloud.ServerStorageDeviceSlice{disk("virtio:0", 0, ""), disk("virtio:1", 0, ""), disk("virtio:10", 0, "")}, []bool{true, false, false}},
		"none marked, SCSI":      {upcloud.ServerStorageDeviceSlice{disk("scsi:0:0", 0, ""), disk("scsi:0:10", 0, "")}, []bool{true, false}},
		"none marked, IDE":       {upcloud.ServerStorageDeviceSlice{disk("ide:0:0", 0, "no"), disk("ide:1:0", 0, "no")}, []bool{true, false}},
		"another one marked":     {upcloud.ServerStorageDeviceSlice{disk("virtio:0", 0, ""), disk("virtio:1", 1, "")}, []bool{false, true}},
		"part of the plan":       {upcloud.ServerStorageDeviceSlice{disk("virtio:1", 0, "yes"), disk("virtio:2", 0, "no")}, []bool{true, false}},
		"an address not known":   {upcloud.ServerStorageDeviceSlice{disk("", 0, ""), disk("virtio", 0, "")}, []bool{false, false}},
		"the first not attached": {upcloud.ServerStorageDeviceSlice{disk("virtio:3", 0, "")}, []bool{false}},
	} {
		for i := range test.devices {
			if got := isSystemDisk(test.devices, &test.devices[i]); got != test.want[i] {
				t.Errorf("%s: %s is %t, want %t", name, test.devices[i].Address, got, test.want[i])
			}
		}
	}
}

// Where nothing lists volumes, as with Nomad, the cache holds no more than the volumes that there are.
func TestAttachmentCacheForgetsDeletedVolumes(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	before := len(c.attached.disks)
	for range 3 {
		volume := mustCreate(t, c, "pvc-1").ID
		if err := errors.Join(c.Attach(t.Context(), volume, server), c.Detach(t.Context(), volume, server),
			c.DeleteVolume(t.Context(), volume)); err != nil {
			t.Fatal(err)
		}
		if _, known := c.attached.disks[volume]; known {
			t.Errorf("volume %s is deleted and still in the cache", volume)
		}
	}
	if now := len(c.attached.disks); now > before+1 { // the server's own disk
		t.Errorf("the cache has %d disks, and had %d", now, before)
	}
}
