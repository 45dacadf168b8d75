package driver_test

import (
	"context"
	"errors"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode/kubenodetest"
)

func (m machine) limit(t *testing.T) int64 {
	t.Helper()
	info, err := m.node.NodeGetInfo(callContext(t), &csi.NodeGetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return info.GetMaxVolumesPerNode()
}

// byHand attaches a disk of somebody else's to the machine.
func (m machine) byHand(t *testing.T, title string) (detach func()) {
	t.Helper()
	var made struct{ Storage struct{ UUID string } }
	m.sim.Do(t, "POST", "/storage", `{"storage":{"size":1,"tier":"maxiops","title":"`+title+`","zone":"`+zone+`"}}`, &made)
	m.sim.Do(t, "POST", "/server/"+m.server+"/storage/attach",
		`{"storage_device":{"type":"disk","address":"virtio","storage":"`+made.Storage.UUID+`"}}`, nil)
	return func() {
		m.sim.Do(t, "POST", "/server/"+m.server+"/storage/detach", `{"storage_device":{"storage":"`+made.Storage.UUID+`"}}`, nil)
	}
}

func TestNodeGetInfo(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	info, err := m.node.NodeGetInfo(callContext(t), &csi.NodeGetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetNodeId() != m.server || info.GetAccessibleTopology().GetSegments()["region"] != zone {
		t.Errorf("node info %v", info)
	}
}

// A limit that forgets what else is attached lets Kubernetes send Pods whose volumes cannot be attached.
func TestVolumeLimitLeavesRoomForDisksOfOthers(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	alone := m.limit(t) // with its system disk, and those of the machine that the test runs on
	if alone < 2 || alone > 15 {
		t.Fatalf("%d volumes with a system disk", alone)
	}
	want := func(fewer int64, when string) {
		t.Helper()
		if got := m.limit(t); got != alone-fewer {
			t.Errorf("%s: %d volumes, want %d", when, got, alone-fewer)
		}
	}
	detach := m.byHand(t, "other")
	want(1, "with a disk attached by hand")
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	published := m.bring(t, id, writer())
	want(1, "with a volume staged")
	if err := m.unstage(t, id); err != nil {
		t.Fatal(err)
	}
	want(1, "with a volume that waits to be detached")
	if err := m.unpublish(t, id, m.server); err != nil {
		t.Fatal(err)
	}
	want(1, "when the volume has gone")
	detach()
	want(0, "when the other disk has gone")
	if _, err := m.publish(t, id, m.server); err != nil {
		t.Fatal(err)
	}
	if err := m.stage(t, id, writer(), published); err != nil {
		t.Fatal(err)
	}
	want(0, "with the volume back")
	m.takeAway(t, id)
}

// In Kubernetes the Node says which disks are volumes, also those that the driver has not staged, or not since its start.
func TestVolumeLimitByTheNodesAttachedVolumes(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	alone := m.limit(t)
	id := m.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := m.publish(t, id, m.server); err != nil {
		t.Fatal(err)
	}
	if got := m.limit(t); got != alone-1 {
		t.Errorf("nobody says that the disk is a volume: %d, want %d", got, alone-1)
	}
	api := kubenodetest.Start(t)
	api.CreateNode(t, "worker", nil, "kubernetes.io/csi/"+driver.Name+"^"+id)
	m.config.Kubernetes = api.Client(t, "worker")
	m.restart(t)
	if got := m.limit(t); got != alone {
		t.Errorf("the Node says that the disk is a volume: %d, want %d", got, alone)
	}
	api.Refuse(500)
	if got := m.limit(t); got != alone {
		t.Errorf("while the API server is out of order: %d, want %d as before", got, alone)
	}
	m.takeAway(t, id)
}

func TestVolumeLimitLeavesRoomForNetworkInterfaces(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	count, broken := 3, error(nil)
	m.config.Interfaces = func(context.Context) (int, error) { return count, broken }
	m.restart(t)
	alone := m.limit(t)
	for _, c := range []struct {
		interfaces int
		broken     error
		want       int64
	}{
		{3, nil, alone}, {12, nil, alone - 4}, {0, errors.New("no answer"), alone - 4}, {30, nil, 1}, {4, nil, alone},
	} {
		count, broken = c.interfaces, c.broken
		if got := m.limit(t); got != c.want {
			t.Errorf("%d interfaces, %v: %d volumes, want %d", c.interfaces, c.broken, got, c.want)
		}
	}
	m.config.MaxVolumes = 5
	m.restart(t)
	if got := m.limit(t); got != 5 {
		t.Errorf("with --max-volumes 5: %d", got)
	}
}
