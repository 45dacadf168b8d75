package driver_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func (r *rig) expand(t *testing.T, volume string, required, limit int64) (*csi.ControllerExpandVolumeResponse, error) {
	t.Helper()
	return r.controller.ControllerExpandVolume(callContext(t), &csi.ControllerExpandVolumeRequest{
		VolumeId: volume, CapacityRange: &csi.CapacityRange{RequiredBytes: required, LimitBytes: limit},
		VolumeCapability: writer(),
	})
}

func TestExpandOnlineAndOffline(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	for _, step := range []struct {
		what        string
		before      func()
		required    int64
		wantGiB     int64
		wantedCalls int
	}{
		{"detached", func() {}, 2 * gib, 2, 2},
		{"not a whole GiB", func() {}, 2*gib + 1, 3, 2},
		{"again", func() {}, 3 * gib, 3, 1},
		{"smaller", func() {}, gib, 3, 1},
		{"attached", func() {
			if _, err := r.publish(t, volume, server); err != nil {
				t.Fatal(err)
			}
		}, 5 * gib, 5, 2},
	} {
		step.before()
		r.sim.ResetRequests()
		resp, err := r.expand(t, volume, step.required, 0)
		if err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		calls := r.sim.Requests().Total()
		size := int64(r.storage(t, volume).Size)
		if resp.GetCapacityBytes() != step.wantGiB*gib || size != step.wantGiB || !resp.GetNodeExpansionRequired() {
			t.Errorf("%s: told %v, made %d GiB, want %d", step.what, resp, size, step.wantGiB)
		}
		if calls != step.wantedCalls {
			t.Errorf("%s: %d calls, want %d", step.what, calls, step.wantedCalls)
		}
	}
	resp, err := r.controller.ControllerExpandVolume(callContext(t), &csi.ControllerExpandVolumeRequest{
		VolumeId: volume, CapacityRange: &csi.CapacityRange{RequiredBytes: 6 * gib},
		VolumeCapability: blockCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER),
	})
	if err != nil || resp.GetNodeExpansionRequired() {
		t.Errorf("raw block: %v, %v; the node has nothing to do", resp, err)
	}
	if n := r.sim.Requests().Of("POST /storage/{uuid}/resize"); n != 0 {
		t.Errorf("the API's resizing of filesystems was used %d times", n)
	}
}

// A kubelet asks the node to expand a volume only if the controller says that it has to.
func TestExpandAsksForTheNodeWhereItHasSomethingToDo(t *testing.T) {
	block := blockCapability(anyWriter)
	for name, c := range map[string]struct {
		parameters map[string]string
		capability *csi.VolumeCapability
		labels     string // that replace those of the storage, "" to leave them
		want       bool
	}{
		"filesystem":              {nil, writer(), "", true},
		"encrypted filesystem":    {map[string]string{"nodeEncryption": "luks2"}, writer(), "", true},
		"no capability given":     {nil, nil, "", true},
		"raw block":               {nil, block, "", false},
		"encrypted raw block":     {map[string]string{"nodeEncryption": "luks2"}, block, "", true},
		"raw block, label lost":   {map[string]string{"nodeEncryption": "luks2"}, block, "[]", true},
		"raw block, other labels": {nil, block, `[{"key":"csi-node-encryption","value":"by hand"}]`, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newController(t, simulator.Config{})
			req := createRequest(claimName(1)) // by which it is known without its labels
			req.Parameters = c.parameters
			if c.capability != nil {
				req.VolumeCapabilities = []*csi.VolumeCapability{c.capability}
			}
			id := r.create(t, req).GetVolumeId()
			if c.labels != "" {
				r.sim.Do(t, "PUT", "/storage/"+id, `{"storage":{"labels":`+c.labels+`}}`, nil)
			}
			for _, size := range []int64{2 * gib, 2 * gib} { // the second time it is large enough already
				resp, err := r.controller.ControllerExpandVolume(callContext(t), &csi.ControllerExpandVolumeRequest{
					VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: size}, VolumeCapability: c.capability,
				})
				if err != nil {
					t.Fatal(err)
				}
				if resp.GetNodeExpansionRequired() != c.want {
					t.Errorf("node_expansion_required is %t, want %t", resp.GetNodeExpansionRequired(), c.want)
				}
			}
		})
	}
}

func TestExpandRefusesWhatCannotBe(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := r.expand(t, volume, 5*gib, 0); err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		volume          string
		required, limit int64
		want            codes.Code
	}{
		"above the tier's maximum":   {volume, 4097 * gib, 0, codes.OutOfRange},
		"far above":                  {volume, 1 << 62, 0, codes.OutOfRange},
		"no whole GiB in the range":  {volume, 5*gib + 1, 5*gib + 2, codes.OutOfRange},
		"limit below what it has":    {volume, gib, 4 * gib, codes.OutOfRange},
		"limit below the smallest":   {volume, 0, 1, codes.OutOfRange},
		"limit below required":       {volume, 7 * gib, 6 * gib, codes.InvalidArgument},
		"negative":                   {volume, -1, 0, codes.InvalidArgument},
		"no range":                   {volume, 0, 0, codes.InvalidArgument},
		"no volume":                  {"", gib, 0, codes.InvalidArgument},
		"a volume that is not there": {"01000000-0000-4000-8000-000000000000", gib, 0, codes.NotFound},
		"not a UUID":                 {"volume", gib, 0, codes.NotFound},
	} {
		if _, err := r.expand(t, test.volume, test.required, test.limit); status.Code(err) != test.want {
			t.Errorf("%s: %v, want %s", what, err, test.want)
		}
	}
	if size := r.storage(t, volume).Size; size != 5 {
		t.Errorf("the volume has %d GiB", size)
	}
}

// A growth that failed must not be told as done.
func TestExpandNeverSwallowsAnError(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	for _, fault := range []simulator.Fault{
		{Status: 403}, {Status: 402, Code: "INSUFFICIENT_CREDITS"}, {Status: 409, Code: "SERVER_STATE_ILLEGAL"},
	} {
		fault.Operation = "PUT /storage/{uuid}"
		remove := r.sim.Inject(fault)
		resp, err := r.expand(t, volume, 10*gib, 0)
		remove()
		if err == nil {
			t.Errorf("%+v: told %v", fault, resp)
		}
	}
	if size := r.storage(t, volume).Size; size != 1 {
		t.Errorf("the volume has %d GiB", size)
	}
}

func TestExpandWaitsForABackup(t *testing.T) {
	clock := simulator.NewManualClock()
	r := newController(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	r.snapshot(t, "snapshot-1", volume)
	done := make(chan error, 1)
	go func() {
		_, err := r.expand(t, volume, 2*gib, 0)
		done <- err
	}()
	if err := advanceUntil(t, clock, done); err != nil {
		t.Error(err)
	}
}

// A title proves nothing: people can give it to their own backups, too.
func TestExpandDeletesNoBackups(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume, other := r.create(t, createRequest("pvc-1")).GetVolumeId(), r.create(t, createRequest("pvc-2")).GetVolumeId()
	for _, of := range []string{volume, other} {
		r.sim.Do(t, "POST", "/storage/"+of+"/backup", `{"storage":{"title":"Resize Backup"}}`, nil)
	}
	r.sim.Do(t, "POST", "/storage/"+volume+"/backup", `{"storage":{"title":"before the upgrade"}}`, nil)
	r.readySnapshot(t, "snapshot-1", volume)
	if _, err := r.expand(t, volume, 2*gib, 0); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Storages struct {
			Storage []struct{ Title, Origin string }
		}
	}
	r.sim.Do(t, "GET", "/storage/backup", "", &answer)
	var left []string
	for _, backup := range answer.Storages.Storage {
		left = append(left, strings.NewReplacer(volume, "1", other, "2").Replace(backup.Title+" of "+backup.Origin))
	}
	slices.Sort(left)
	want := []string{"Resize Backup of 1", "Resize Backup of 2", "before the upgrade of 1", "snapshot-1 of 1"}
	if !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
}

func filesystemBytes(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize
}

// Through the whole chain, on real disks: the storage grows while a pod uses it, and the filesystem with it.
func TestAVolumeInUseGrowsUnderItsPod(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	capability := mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "xfs")
	req := createRequest("pvc-1")
	req.VolumeCapabilities = []*csi.VolumeCapability{capability}
	volume := m.create(t, req).GetVolumeId()
	m.bring(t, volume, capability)
	if err := m.mount(t, volume, "pod", capability, false); err != nil {
		t.Fatal(err)
	}
	grown, err := m.controller.ControllerExpandVolume(callContext(t), &csi.ControllerExpandVolumeRequest{
		VolumeId: volume, CapacityRange: &csi.CapacityRange{RequiredBytes: 3 * gib}, VolumeCapability: capability,
	})
	if err != nil || !grown.GetNodeExpansionRequired() {
		t.Fatalf("%v, %v", grown, err)
	}
	for range 2 {
		resp, err := m.node.NodeExpandVolume(callContext(t), &csi.NodeExpandVolumeRequest{
			VolumeId: volume, VolumePath: m.target("pod"), StagingTargetPath: m.staging(volume),
			CapacityRange: &csi.CapacityRange{RequiredBytes: 3 * gib}, VolumeCapability: capability,
		})
		if err != nil || resp.GetCapacityBytes() != 3*gib {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	if got := filesystemBytes(t, m.target("pod")); got < 28*gib/10 {
		t.Errorf("the pod sees %d bytes", got)
	}
	m.takeAway(t, volume, "pod")

	// A volume restored to a larger size has a larger filesystem the first time it is mounted.
	snapshot := m.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	restore := copyRequest("restored", 5, fromSnapshot(snapshot))
	restore.VolumeCapabilities = req.VolumeCapabilities
	restored := m.create(t, restore).GetVolumeId()
	m.bring(t, restored, capability)
	if err := m.mount(t, restored, "pod", capability, false); err != nil {
		t.Fatal(err)
	}
	if got := filesystemBytes(t, m.target("pod")); got < 48*gib/10 {
		t.Errorf("the restored volume has %d bytes", got)
	}
	m.takeAway(t, restored, "pod")
}

func TestNodeExpandRefusals(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	for what, test := range map[string]struct {
		req  *csi.NodeExpandVolumeRequest
		want codes.Code
	}{
		"no volume": {&csi.NodeExpandVolumeRequest{VolumePath: "/x"}, codes.InvalidArgument},
		"no path":   {&csi.NodeExpandVolumeRequest{VolumeId: "x"}, codes.InvalidArgument},
		"not there": {&csi.NodeExpandVolumeRequest{VolumeId: "01000000-0000-4000-8000-000000000000", VolumePath: m.dir}, codes.NotFound},
		"negative": {&csi.NodeExpandVolumeRequest{VolumeId: "x", VolumePath: "/x",
			CapacityRange: &csi.CapacityRange{RequiredBytes: -1}}, codes.InvalidArgument},
	} {
		if _, err := m.node.NodeExpandVolume(callContext(t), test.req); status.Code(err) != test.want {
			t.Errorf("%s: %v, want %s", what, err, test.want)
		}
	}
}
