package driver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func (r *rig) listVolumes(t *testing.T, req *csi.ListVolumesRequest) ([]*csi.ListVolumesResponse_Entry, string) {
	t.Helper()
	resp, err := r.controller.ListVolumes(callContext(t), req)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetEntries(), resp.GetNextToken()
}

func (r *rig) deleteVolume(t *testing.T, id string) {
	t.Helper()
	if _, err := r.controller.DeleteVolume(callContext(t), &csi.DeleteVolumeRequest{VolumeId: id}); err != nil {
		t.Fatal(err)
	}
}

func TestListVolumesTellsWhereTheyAre(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone) // its system disk is no volume
	here, there := r.create(t, createRequest("here")).GetVolumeId(), r.create(t, createRequest("there")).GetVolumeId()
	published := func() map[string][]string {
		found := map[string][]string{}
		entries, _ := r.listVolumes(t, &csi.ListVolumesRequest{})
		for _, entry := range entries {
			if entry.GetStatus().GetVolumeCondition().GetAbnormal() || entry.GetVolume().GetCapacityBytes() != gib {
				t.Errorf("entry %v", entry)
			}
			found[entry.GetVolume().GetVolumeId()] = entry.GetStatus().GetPublishedNodeIds()
		}
		return found
	}
	if got := published(); len(got) != 2 || len(got[here])+len(got[there]) != 0 {
		t.Errorf("at first: %v", got)
	}
	// Changes of our own are seen at once, whatever was looked at just before.
	if _, err := r.publish(t, here, server); err != nil {
		t.Fatal(err)
	}
	if got := published(); !slices.Equal(got[here], []string{server}) || len(got[there]) != 0 {
		t.Errorf("after publishing: %v", got)
	}
	if err := r.unpublish(t, here, server); err != nil {
		t.Fatal(err)
	}
	if got := published(); len(got[here]) != 0 {
		t.Errorf("after unpublishing: %v", got)
	}
	r.deleteVolume(t, there)
	if got := published(); len(got) != 1 {
		t.Errorf("after deleting: %v", got)
	}

	// Many readers share what was read.
	r.sim.ResetRequests()
	for range 20 {
		published()
	}
	if n := r.sim.Requests().Total(); n > 0 {
		t.Errorf("20 lists took %d calls: %v", n, r.sim.Requests())
	}
}

func TestVolumePagesStayRightWhileVolumesComeAndGo(t *testing.T) {
	r := newController(t, simulator.Config{})
	stays := map[string]int{}
	for i := range 20 {
		stays[r.create(t, createRequest(fmt.Sprint("stays-", i))).GetVolumeId()] = 0
	}
	token := ""
	for page := 0; ; page++ {
		entries, next := r.listVolumes(t, &csi.ListVolumesRequest{MaxEntries: 3, StartingToken: token})
		if len(entries) > 3 {
			t.Fatalf("a page of %d", len(entries))
		}
		var last string
		for _, entry := range entries {
			last = entry.GetVolume().GetVolumeId()
			if _, counted := stays[last]; counted {
				stays[last]++
			}
		}
		if token = next; token == "" {
			break
		}
		r.create(t, createRequest(fmt.Sprint("comes-", page)))
		if page%2 == 0 {
			r.deleteVolume(t, last) // the one that the token names
		}
	}
	for id, seen := range stays {
		if seen != 1 {
			t.Errorf("volume %s was listed %d times", id, seen)
		}
	}
	for _, token := range []string{"0", "-1", "abc"} {
		_, err := r.controller.ListVolumes(callContext(t), &csi.ListVolumesRequest{StartingToken: token})
		wantCode(t, err, codes.Aborted)
	}
	_, err := r.controller.ListVolumes(callContext(t), &csi.ListVolumesRequest{MaxEntries: -1})
	wantCode(t, err, codes.InvalidArgument)
}

func TestListVolumesOfThisClusterAndOfUpCloudsOwnDriver(t *testing.T) {
	r := newController(t, simulator.Config{})
	ours := r.create(t, createRequest("ours")).GetVolumeId()
	other := serve(t, r.sim, driver.Config{Mode: driver.ModeController, Cloud: newCloudOf(t, r.sim, "other")})
	other.create(t, createRequest("theirs"))
	var answer struct{ Storage storage }
	r.sim.Do(t, "POST", "/storage", `{"storage":{"size":"1","tier":"maxiops","zone":"fi-hel1",
		"title":"pvc-0b9b4e0c-3b0c-4a3e-9f0f-2f6d3d1c9a11"}}`, &answer)
	r.sim.Do(t, "POST", "/storage", `{"storage":{"size":"1","tier":"maxiops","zone":"fi-hel1","title":"my disk"}}`, nil)
	var got []string
	entries, _ := r.listVolumes(t, &csi.ListVolumesRequest{})
	for _, entry := range entries {
		got = append(got, entry.GetVolume().GetVolumeId())
	}
	want := []string{ours, answer.Storage.UUID}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("listed are %v, want %v", got, want)
	}
}

func TestGetVolume(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := r.publish(t, volume, server); err != nil {
		t.Fatal(err)
	}
	resp, err := r.controller.ControllerGetVolume(callContext(t), &csi.ControllerGetVolumeRequest{VolumeId: volume})
	if err != nil || resp.GetVolume().GetCapacityBytes() != gib ||
		!slices.Equal(resp.GetStatus().GetPublishedNodeIds(), []string{server}) || resp.GetStatus().GetVolumeCondition().GetAbnormal() {
		t.Errorf("%v, %v", resp, err)
	}
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	for _, id := range []string{"none", "01000000-0000-4000-8000-000000000000", snapshot} {
		_, err := r.controller.ControllerGetVolume(callContext(t), &csi.ControllerGetVolumeRequest{VolumeId: id})
		wantCode(t, err, codes.NotFound)
	}
	_, err = r.controller.ControllerGetVolume(callContext(t), &csi.ControllerGetVolumeRequest{})
	wantCode(t, err, codes.InvalidArgument)
}

func TestCapacityIsWhatTheAccountsLimitsLeave(t *testing.T) {
	r := newController(t, simulator.Config{})
	capacity := func(req *csi.GetCapacityRequest) *csi.GetCapacityResponse {
		resp, err := r.controller.GetCapacity(callContext(t), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	hdd := &csi.GetCapacityRequest{Parameters: map[string]string{"tier": "hdd"}}
	before := capacity(hdd)
	if before.GetMinimumVolumeSize().GetValue() != 10*gib || before.GetMaximumVolumeSize().GetValue() != 4096*gib {
		t.Errorf("sizes: %v", before)
	}
	req := createRequest("pvc-1")
	req.Parameters = hdd.GetParameters()
	req.CapacityRange.RequiredBytes = 100 * gib
	r.create(t, req)
	if after := capacity(hdd); after.GetAvailableCapacity() != before.GetAvailableCapacity()-100*gib {
		t.Errorf("%d bytes before, %d after a volume of 100 GiB", before.GetAvailableCapacity(), after.GetAvailableCapacity())
	}
	none := capacity(&csi.GetCapacityRequest{AccessibleTopology: &csi.Topology{Segments: map[string]string{"region": "xx-nowhere1"}}})
	if none.GetAvailableCapacity() != 0 {
		t.Errorf("a zone that is not there has %v", none)
	}
	_, err := r.controller.GetCapacity(callContext(t), &csi.GetCapacityRequest{Parameters: map[string]string{"x": "y"}})
	wantCode(t, err, codes.InvalidArgument)
}

func TestVolumeWhoseStorageFailedIsAbnormal(t *testing.T) {
	r := newController(t, simulator.Config{})
	failed, well := r.create(t, createRequest("failed")).GetVolumeId(), r.create(t, createRequest("well")).GetVolumeId()
	r.sim.Inject(simulator.Fault{Operation: "PUT /storage/{uuid}", EndsInError: true, Count: 1})
	r.sim.Do(t, "PUT", "/storage/"+failed, `{"storage":{"title":"failed"}}`, nil)
	var is struct{ Storage resource }
	if r.sim.Do(t, "GET", "/storage/"+failed, "", &is); is.Storage.State != "error" {
		t.Fatalf("the storage is in state %s, want error", is.Storage.State)
	}
	list, err := r.controller.ListVolumes(callContext(t), &csi.ListVolumesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]*csi.VolumeCondition{}
	for _, entry := range list.GetEntries() {
		listed[entry.GetVolume().GetVolumeId()] = entry.GetStatus().GetVolumeCondition()
	}
	for id, abnormal := range map[string]bool{failed: true, well: false} {
		got, err := r.controller.ControllerGetVolume(callContext(t), &csi.ControllerGetVolumeRequest{VolumeId: id})
		if err != nil {
			t.Fatal(err)
		}
		for from, condition := range map[string]*csi.VolumeCondition{
			"ListVolumes": listed[id], "ControllerGetVolume": got.GetStatus().GetVolumeCondition(),
		} {
			if condition.GetAbnormal() != abnormal || condition.GetMessage() == "" {
				t.Errorf("%s: the condition is %v, want abnormal %v and a message", from, condition, abnormal)
			}
			if abnormal && !strings.Contains(condition.GetMessage(), failed) {
				t.Errorf("%s: the message %q does not name the storage", from, condition.GetMessage())
			}
		}
	}
}
