package driver_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// Names as external-provisioner makes them of claims.
const (
	nameHalfMade   = "pvc-5b0c1a52-6d2f-4d3c-9a5e-0c4f1f7f0001"
	nameHalfCopied = "pvc-5b0c1a52-6d2f-4d3c-9a5e-0c4f1f7f0002"
)

// halfMake makes a storage as UpCloud's own driver does, which then dies: its title is all that tells what it is for.
func halfMake(t *testing.T, sim *simulatortest.Server, name string, sizeGiB int, more ...string) string {
	t.Helper()
	body := fmt.Sprintf(`{"storage":{"size":"%d","title":%q`, sizeGiB, name)
	for _, field := range append([]string{`"zone":"fi-hel1"`, `"tier":"maxiops"`}, more...) {
		body += "," + field // the last of a name counts
	}
	var made struct{ Storage storage }
	sim.Do(t, "POST", "/storage", body+"}}", &made)
	return made.Storage.UUID
}

// halfCopy begins a clone as that driver does.
func halfCopy(t *testing.T, sim *simulatortest.Server, name, source string) string {
	t.Helper()
	var made struct{ Storage storage }
	sim.Do(t, "POST", "/storage/"+source+"/clone", fmt.Sprintf(
		`{"storage":{"zone":"fi-hel1","tier":"maxiops","title":%q}}`, name), &made)
	return made.Storage.UUID
}

// newMover runs a controller that is told to take over what UpCloud's own driver half made.
func newMover(t *testing.T, cfg simulator.Config) *rig {
	t.Helper()
	sim := simulatortest.Start(t, cfg)
	account, err := cloud.New(cloud.Config{Token: sim.Token, BaseURL: sim.URL, ClusterID: "test", AdoptHalfMade: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	return serve(t, sim, driver.Config{Mode: driver.ModeController, Cloud: account})
}

func TestAHalfMadeVolumeIsTakenOver(t *testing.T) {
	r := newMover(t, simulator.Config{})
	half := halfMake(t, r.sim, nameHalfMade, 1, `"labels":[{"key":"team","value":"storage"}]`)
	req := createRequest(nameHalfMade)
	req.Parameters = map[string]string{"backupInterval": "daily", "backupTime": "0430", "backupRetention": "7"}
	for range 2 {
		made := r.create(t, req)
		if made.GetVolumeId() != half || made.GetCapacityBytes() != gib || made.GetAccessibleTopology()[0].GetSegments()["region"] != zone {
			t.Errorf("got %v, want %s", made, half)
		}
	}
	labels := r.storage(t, half).labels()
	if labels["csi-name"] != nameHalfMade || labels["csi-cluster"] != "test" || labels["team"] != "storage" {
		t.Errorf("its labels are %v", labels)
	}
	if n := len(r.disks(t)); n != 1 {
		t.Errorf("there are %d disks", n)
	}
}

func TestAHalfMadeCopyIsTakenOverAndGrown(t *testing.T) {
	r := newMover(t, simulator.Config{Profile: simulator.Fast})
	volume := r.create(t, createRequest("original")).GetVolumeId()
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	half := halfCopy(t, r.sim, nameHalfCopied, snapshot) // it is being copied still
	made := r.create(t, copyRequest(nameHalfCopied, 3, fromSnapshot(snapshot)))
	shown := r.storage(t, half)
	if made.GetVolumeId() != half || made.GetCapacityBytes() != 3*gib || shown.Size != 3 || shown.labels()["csi-source"] != snapshot {
		t.Errorf("got %v, want %s; it is %+v", made, half, shown)
	}
	if n := len(r.disks(t)); n != 2 {
		t.Errorf("there are %d disks, want the original and the copy", n)
	}
}

// A disk that may be anything else stays as it is, and the volume is made anew.
func TestWhatMayBeSomethingElseIsNotTakenOver(t *testing.T) {
	none := func(*testing.T, *rig, string) {}
	for what, test := range map[string]struct {
		title  string
		size   int
		fields []string
		then   func(t *testing.T, r *rig, half string)
	}{
		"another zone":             {nameHalfMade, 2, []string{`"zone":"de-fra1"`}, none},
		"another tier":             {nameHalfMade, 2, []string{`"tier":"standard"`}, none},
		"encrypted":                {nameHalfMade, 2, []string{`"encrypted":"yes"`}, none},
		"too small":                {nameHalfMade, 1, nil, none},
		"too large":                {nameHalfMade, 4, nil, none},
		"another cluster's":        {nameHalfMade, 2, []string{`"labels":[{"key":"csi-cluster","value":"another"}]`}, none},
		"a volume of another name": {nameHalfMade, 2, []string{`"labels":[{"key":"csi-name","value":"db"}]`}, none},
		"a title that is no claim": {"db", 2, nil, none},
		"attached": {nameHalfMade, 2, nil, func(t *testing.T, r *rig, half string) {
			server := r.sim.CreateServer(t, "worker-1", zone)
			r.sim.Do(t, "POST", "/server/"+server+"/storage/attach",
				`{"storage_device":{"type":"disk","address":"virtio","storage":"`+half+`"}}`, nil)
		}},
		"with backups": {nameHalfMade, 2, nil, func(t *testing.T, r *rig, half string) {
			r.sim.Do(t, "POST", "/storage/"+half+"/backup", `{"storage":{"title":"before"}}`, nil)
		}},
		"two of them": {nameHalfMade, 2, nil, func(t *testing.T, r *rig, _ string) { halfMake(t, r.sim, nameHalfMade, 2) }},
		"two of them, the second since the list was read": {nameHalfMade, 2, nil, func(t *testing.T, r *rig, _ string) {
			r.create(t, createRequest("pvc-5b0c1a52-6d2f-4d3c-9a5e-0c4f1f7f0003"))
			halfMake(t, r.sim, nameHalfMade, 2)
		}},
	} {
		t.Run(what, func(t *testing.T) {
			r := newMover(t, simulator.Config{})
			half := halfMake(t, r.sim, test.title, test.size, test.fields...)
			test.then(t, r, half)
			before, disks := r.storage(t, half), len(r.disks(t))
			req := createRequest(test.title)
			req.CapacityRange = &csi.CapacityRange{RequiredBytes: 2 * gib, LimitBytes: 3 * gib}
			made := r.create(t, req)
			after := r.storage(t, half)
			if made.GetVolumeId() == half || len(r.disks(t)) != disks+1 {
				t.Errorf("made %v, want one more disk than %+v", made, before)
			}
			if !slices.Equal(before.Labels, after.Labels) || before.Size != after.Size {
				t.Errorf("it was %+v and is %+v", before, after)
			}
			if again := r.create(t, req); again.GetVolumeId() != made.GetVolumeId() {
				t.Errorf("the retry got %v, want %v", again, made)
			}
		})
	}
}

// A disk that failed while it was being copied is of no use: it is left for a person, and another copy is made.
func TestAHalfMadeCopyThatFailedIsLeftAlone(t *testing.T) {
	r := newMover(t, simulator.Config{})
	volume := r.create(t, createRequest("original")).GetVolumeId()
	r.sim.Inject(simulator.Fault{Operation: "POST /storage/{uuid}/clone", Count: 1, EndsInError: true})
	half := halfCopy(t, r.sim, nameHalfCopied, volume)
	var made *csi.Volume
	for tries := 0; made == nil; tries++ {
		resp, err := r.controller.CreateVolume(callContext(t), copyRequest(nameHalfCopied, 1, fromVolume(volume)))
		if err != nil && (!mayTryAgain(err) || tries == 10) {
			t.Fatal(err)
		}
		made = resp.GetVolume()
	}
	if made.GetVolumeId() == half || r.storage(t, half).UUID != half || len(r.disks(t)) != 3 {
		t.Errorf("made %v beside %s: %+v", made, half, r.disks(t))
	}
}

// Without being told to, the controller looks at no title: that costs a list, and only a move needs it.
func TestHalfMadeVolumesAreLookedForOnlyWhenToldTo(t *testing.T) {
	r := newController(t, simulator.Config{})
	half := halfMake(t, r.sim, nameHalfMade, 1)
	r.sim.ResetRequests()
	if made := r.create(t, createRequest(nameHalfMade)); made.GetVolumeId() == half {
		t.Errorf("took over %s", half)
	}
	if n := r.sim.Requests().Of("GET /storage/normal"); n != 0 {
		t.Errorf("the account was listed %d times", n)
	}
}

// One list serves all creations for a while, and changes of ours do not age it.
func TestLookingForHalfMadeVolumesTakesOneList(t *testing.T) {
	r := newMover(t, simulator.Config{})
	half := halfMake(t, r.sim, nameHalfMade, 1)
	r.sim.ResetRequests()
	for i := range 5 {
		r.create(t, createRequest(fmt.Sprintf("pvc-5b0c1a52-6d2f-4d3c-9a5e-0c4f1f7f010%d", i)))
	}
	if n := r.sim.Requests().Of("GET /storage/normal"); n != 1 {
		t.Errorf("the account was listed %d times for five creations", n)
	}
	if made := r.create(t, createRequest(nameHalfMade)); made.GetVolumeId() != half {
		t.Errorf("got %v, want %s", made, half)
	}
}

// What UpCloud's own driver attached, and perhaps never told Kubernetes of, is published already; what its nodes are called
// by is their host name.
func TestAnAttachmentOfUpCloudsOwnDriverIsRecognised(t *testing.T) {
	r := newController(t, simulator.Config{})
	server, other := r.sim.CreateServer(t, "worker-1", zone), r.sim.CreateServer(t, "worker-2", zone)
	volume := halfMake(t, r.sim, nameHalfMade, 1)
	r.sim.Do(t, "POST", "/server/"+server+"/storage/attach",
		`{"storage_device":{"type":"disk","address":"virtio","storage":"`+volume+`"}}`, nil)
	r.sim.ResetRequests()
	for _, node := range []string{server, "worker-1"} {
		if published, err := r.publish(t, volume, node); err != nil || published["serial"] == "" {
			t.Errorf("publish to %s: %v, %v", node, published, err)
		}
	}
	if n := r.sim.Requests().Of("POST /server/{uuid}/storage/attach"); n != 0 {
		t.Errorf("it was attached %d times more", n)
	}
	if _, err := r.publish(t, volume, other); err == nil {
		t.Error("it was published to a second node")
	}
	listed, err := r.controller.ListVolumes(callContext(t), &csi.ListVolumesRequest{})
	if err != nil || len(listed.GetEntries()) != 1 ||
		!slices.Equal(listed.GetEntries()[0].GetStatus().GetPublishedNodeIds(), []string{server}) {
		t.Errorf("listed is %v, %v", listed, err)
	}
	if err := r.unpublish(t, volume, "worker-1"); err != nil {
		t.Fatal(err)
	}
	if at := r.storage(t, volume).Servers.Server; len(at) != 0 {
		t.Errorf("it is attached to %v", at)
	}
}
