package driver_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func TestCreateVolumeMakesWhatWasAskedFor(t *testing.T) {
	r := newController(t, simulator.Config{})
	req := createRequest("pvc-1")
	req.CapacityRange = &csi.CapacityRange{RequiredBytes: gib * 3 / 2, LimitBytes: 2 * gib}
	req.Parameters = map[string]string{
		"tier": "standard", "encryption": "data-at-rest",
		"csi.storage.k8s.io/pvc/name":      "data",
		"csi.storage.k8s.io/pvc/namespace": "shop",
		"csi.storage.k8s.io/pv/name":       "pvc-1",
	}
	volume := r.create(t, req)
	if volume.GetCapacityBytes() != 2*gib {
		t.Errorf("capacity %d, want 2 GiB: sizes are rounded up", volume.GetCapacityBytes())
	}
	if got := volume.GetAccessibleTopology(); len(got) != 1 || got[0].GetSegments()["region"] != zone {
		t.Errorf("topology %v, want region %s", got, zone)
	}
	made := r.storage(t, volume.GetVolumeId())
	want := storage{UUID: volume.GetVolumeId(), Title: "pvc-1", Tier: "standard", Zone: zone, Encrypted: "yes", Size: 2}
	labels := made.labels()
	made.Labels, made.Servers.Server = nil, nil
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("storage: %s", diff)
	}
	for key, value := range map[string]string{
		"csi-name": "pvc-1", "csi-cluster": "test",
		"csi-pvc-name": "data", "csi-pvc-namespace": "shop", "csi-pv-name": "pvc-1", "csi-node-encryption": "none",
	} {
		if labels[key] != value {
			t.Errorf("label %s is %q, want %q", key, labels[key], value)
		}
	}

	again := r.create(t, req)
	if !proto.Equal(volume, again) {
		t.Errorf("the same request again: %v, want %v", again, volume)
	}
}

func TestCreateVolumeRefusesAnotherVolumeOfTheSameName(t *testing.T) {
	r := newController(t, simulator.Config{})
	r.create(t, createRequest("pvc-1"))
	for name, change := range map[string]func(*csi.CreateVolumeRequest){
		"size":       func(req *csi.CreateVolumeRequest) { req.CapacityRange.RequiredBytes = 2 * gib },
		"tier":       func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{"tier": "standard"} },
		"encryption": func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{"encryption": "data-at-rest"} },
		"zone":       func(req *csi.CreateVolumeRequest) { req.AccessibilityRequirements = requisite("de-fra1") },
	} {
		req := createRequest("pvc-1")
		change(req)
		_, err := r.controller.CreateVolume(callContext(t), req)
		if wantCode(t, err, codes.AlreadyExists); err == nil {
			t.Errorf("another %s was accepted", name)
		}
	}
	if got := r.storagesNamed(t, "pvc-1"); len(got) != 1 {
		t.Errorf("%d storages, want 1", len(got))
	}
}

func TestCreateVolumeAtOnceManyTimesMakesOne(t *testing.T) {
	r := newController(t, simulator.Config{})
	ids := make([]string, 20)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			resp, err := r.controller.CreateVolume(callContext(t), createRequest("pvc-1"))
			if err != nil {
				t.Error(err)
			}
			ids[i] = resp.GetVolume().GetVolumeId()
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("volumes %s and %s for one name", ids[0], id)
		}
	}
	if got := r.storagesNamed(t, "pvc-1"); len(got) != 1 {
		t.Errorf("%d storages, want 1", len(got))
	}
}

func TestCreateVolumeCostsTwoCalls(t *testing.T) {
	r := newController(t, simulator.Config{})
	r.sim.ResetRequests()
	r.create(t, createRequest("pvc-1"))
	if counts := r.sim.Requests(); counts.Total() > 2 {
		t.Errorf("%d calls, want 2 at most: %v", counts.Total(), counts)
	}
}

func TestCreateVolumeFindsWhatALostAnswerMade(t *testing.T) {
	r := newController(t, simulator.Config{})
	r.sim.Inject(simulator.Fault{Operation: "POST /storage", Count: 1, Drop: true, AfterEffect: true})
	r.create(t, createRequest("pvc-1"))
	if got := r.storagesNamed(t, "pvc-1"); len(got) != 1 {
		t.Errorf("%d storages, want 1", len(got))
	}
}

func TestCreateVolumeRefusesBadRequests(t *testing.T) {
	r := newController(t, simulator.Config{})
	params := func(key, value string) func(*csi.CreateVolumeRequest) {
		return func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{key: value} }
	}
	capability := func(c *csi.VolumeCapability) func(*csi.CreateVolumeRequest) {
		return func(req *csi.CreateVolumeRequest) { req.VolumeCapabilities = []*csi.VolumeCapability{c} }
	}
	size := func(required, limit int64) func(*csi.CreateVolumeRequest) {
		return func(req *csi.CreateVolumeRequest) {
			req.CapacityRange = &csi.CapacityRange{RequiredBytes: required, LimitBytes: limit}
		}
	}
	cases := []struct {
		name   string
		change func(*csi.CreateVolumeRequest)
		code   codes.Code
		says   string
	}{
		{"no name", func(req *csi.CreateVolumeRequest) { req.Name = "" }, codes.InvalidArgument, "name"},
		{"no capabilities", func(req *csi.CreateVolumeRequest) { req.VolumeCapabilities = nil }, codes.InvalidArgument, "volume_capabilities"},
		{"unknown parameter", params("teir", "maxiops"), codes.InvalidArgument, `"teir"`},
		{"unknown tier", params("tier", "gold"), codes.InvalidArgument, "standard"},
		{"unknown encryption", params("encryption", "yes"), codes.InvalidArgument, "data-at-rest"},
		{"a snapshot that is not there", func(req *csi.CreateVolumeRequest) {
			req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
				Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: uuid.NewString()}}}
		}, codes.NotFound, "STORAGE_NOT_FOUND"},
		{"a source of no kind", func(req *csi.CreateVolumeRequest) {
			req.VolumeContentSource = &csi.VolumeContentSource{}
		}, codes.InvalidArgument, "volume_content_source"},
		{"mutable parameters", func(req *csi.CreateVolumeRequest) {
			req.MutableParameters = map[string]string{"a": "b"}
		}, codes.InvalidArgument, "mutable_parameters"},
		{"many writers", capability(mountCapability(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, "")),
			codes.InvalidArgument, "MULTI_NODE_MULTI_WRITER"},
		{"unknown filesystem", capability(mountCapability(csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER, "ntfs")),
			codes.InvalidArgument, "ntfs"},
		{"no access type", capability(&csi.VolumeCapability{AccessMode: writer().GetAccessMode()}),
			codes.InvalidArgument, "access_type"},
		{"no whole GiB fits", size(gib*3/2, gib*19/10), codes.OutOfRange, "capacity_range"},
		{"too large", size(4097*gib, 0), codes.OutOfRange, "4096"},
		{"limit below a GiB", size(0, gib/2), codes.OutOfRange, "capacity_range"},
		{"negative", size(-1, 0), codes.InvalidArgument, "required_bytes"},
		{"limit below the size", size(2*gib, gib), codes.InvalidArgument, "limit_bytes"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			req := createRequest("pvc-1")
			c.change(req)
			_, err := r.controller.CreateVolume(callContext(t), req)
			wantCode(t, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error does not say %q: %v", c.says, err)
			}
		})
	}
	if got := r.storagesNamed(t, "pvc-1"); len(got) != 0 {
		t.Errorf("%d storages were made", len(got))
	}
}

func TestCreateVolumeSizes(t *testing.T) {
	r := newController(t, simulator.Config{})
	cases := []struct {
		required, limit int64
		tier            string
		want            int64
	}{
		{0, 0, "maxiops", 10 * gib},
		{0, 3*gib + 1, "maxiops", 3 * gib},
		{1, 0, "maxiops", gib},
		{gib + 1, 0, "maxiops", 2 * gib},
		{gib, 0, "hdd", 10 * gib}, // hdd has no smaller ones
		{gib, 0, "archive", 10 * gib},
		{4096 * gib, 4096 * gib, "maxiops", 4096 * gib},
	}
	for i, c := range cases {
		req := createRequest(fmt.Sprintf("pvc-%d", i))
		req.CapacityRange = &csi.CapacityRange{RequiredBytes: c.required, LimitBytes: c.limit}
		req.Parameters = map[string]string{"tier": c.tier}
		volume := r.create(t, req)
		made := r.storage(t, volume.GetVolumeId())
		if volume.GetCapacityBytes() != c.want || int64(made.Size)*gib != c.want {
			t.Errorf("%+v: told %d bytes, made %d GiB", c, volume.GetCapacityBytes(), made.Size)
		}
	}
}

func requisite(zones ...string) *csi.TopologyRequirement {
	return &csi.TopologyRequirement{Requisite: topologies(zones...)}
}

func topologies(zones ...string) (list []*csi.Topology) {
	for _, z := range zones {
		list = append(list, &csi.Topology{Segments: map[string]string{"region": z}})
	}
	return list
}

func TestCreateVolumeChoosesAZone(t *testing.T) {
	r := newController(t, simulator.Config{})
	preferred := requisite(zone, "de-fra1", "nl-ams1")
	preferred.Preferred = topologies("nl-ams1", "de-fra1")
	foreign := &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{"rack": "7"}}}}
	cases := []struct {
		name string
		req  *csi.TopologyRequirement
		want string
		code codes.Code
	}{
		{"none asked", nil, zone, codes.OK},
		{"ours", requisite(zone), zone, codes.OK},
		{"ours among others", requisite("de-fra1", "no-such1", zone), zone, codes.OK},
		{"another", requisite("de-fra1"), "de-fra1", codes.OK},
		{"one of them exists", requisite("no-such1", "de-fra1"), "de-fra1", codes.OK},
		{"preferred comes first", preferred, "nl-ams1", codes.OK},
		{"none exists", requisite("no-such1", "no-such2"), "", codes.ResourceExhausted},
		{"no zone in it", foreign, "", codes.ResourceExhausted},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			req := createRequest(fmt.Sprintf("pvc-%d", i))
			req.AccessibilityRequirements = c.req
			resp, err := r.controller.CreateVolume(callContext(t), req)
			wantCode(t, err, c.code)
			if err != nil {
				return
			}
			if got := r.storage(t, resp.GetVolume().GetVolumeId()).Zone; got != c.want {
				t.Errorf("made in %s, want %s", got, c.want)
			}
		})
	}
}

func TestCreateVolumeFindsTheVolumeInAnyOfTheZones(t *testing.T) {
	r := newController(t, simulator.Config{})
	req := createRequest("pvc-1")
	req.AccessibilityRequirements = requisite("de-fra1", "nl-ams1")
	req.AccessibilityRequirements.Preferred = topologies("de-fra1", "nl-ams1")
	first := r.create(t, req)
	req.AccessibilityRequirements.Preferred = topologies("nl-ams1", "de-fra1")
	if again := r.create(t, req); !proto.Equal(first, again) {
		t.Errorf("with the zones in another order: %v, want %v", again, first)
	}
}

func TestDeleteVolume(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	volume := r.create(t, createRequest("pvc-1"))
	if _, err := r.publish(t, volume.GetVolumeId(), server); err != nil {
		t.Fatal(err)
	}
	remove := func(id string) error {
		_, err := r.controller.DeleteVolume(callContext(t), &csi.DeleteVolumeRequest{VolumeId: id})
		return err
	}
	err := remove(volume.GetVolumeId())
	if wantCode(t, err, codes.FailedPrecondition); err != nil && !strings.Contains(err.Error(), server) {
		t.Errorf("the error does not name server %s: %v", server, err)
	}
	if err := r.unpublish(t, volume.GetVolumeId(), server); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := remove(volume.GetVolumeId()); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.storagesNamed(t, "pvc-1"); len(got) != 0 {
		t.Errorf("%d storages are left", len(got))
	}
	if err := remove("no-uuid"); err != nil {
		t.Errorf("an ID that cannot name a volume: %v", err)
	}
	wantCode(t, remove(""), codes.InvalidArgument)
}

func TestValidateVolumeCapabilities(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1"))
	validate := func(id string, c *csi.VolumeCapability, params map[string]string) (*csi.ValidateVolumeCapabilitiesResponse, error) {
		return r.controller.ValidateVolumeCapabilities(callContext(t), &csi.ValidateVolumeCapabilitiesRequest{
			VolumeId: id, VolumeCapabilities: []*csi.VolumeCapability{c}, Parameters: params,
		})
	}
	resp, err := validate(volume.GetVolumeId(), writer(), map[string]string{"tier": "maxiops"})
	if err != nil || resp.GetConfirmed() == nil {
		t.Errorf("what the volume has: %v, %v", resp, err)
	}
	many := mountCapability(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, "")
	if resp, err = validate(volume.GetVolumeId(), many, nil); err != nil || resp.GetConfirmed() != nil || resp.GetMessage() == "" {
		t.Errorf("many writers: %v, %v", resp, err)
	}
	if resp, err = validate(volume.GetVolumeId(), writer(), map[string]string{"tier": "hdd"}); err != nil || resp.GetConfirmed() != nil {
		t.Errorf("another tier: %v, %v", resp, err)
	}
	_, err = validate(uuid.NewString(), writer(), nil)
	wantCode(t, err, codes.NotFound)
}
