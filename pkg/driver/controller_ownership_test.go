package driver_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const (
	ownUID   = "11111111-0000-4000-8000-000000000001"
	otherUID = "22222222-0000-4000-8000-000000000002"
)

// rights is what a cluster may do to a storage, in the columns of the table in docs/storage.md.
type rights struct{ attach, delete, grow, modify, snapshot, clone bool }

var (
	everything = rights{true, true, true, true, true, true}
	onlyAttach = rights{attach: true}
	nothing    = rights{}
)

// origins are all kinds of disks that an account may hold, with what this cluster ("test", ownUID) may do to them.
var origins = map[string]struct {
	title  string
	labels map[string]string
	rights rights
}{
	"this cluster":                           {labels: map[string]string{"csi-name": "a", "csi-cluster": "test", "csi-cluster-uid": ownUID}, rights: everything},
	"this cluster, before its UID was known": {labels: map[string]string{"csi-name": "a", "csi-cluster": "test"}, rights: everything},
	"this cluster, before it had a name":     {labels: map[string]string{"csi-name": "a"}, rights: everything},
	"this cluster, under a former name": {
		labels: map[string]string{"csi-name": "a", "csi-cluster": "former", "csi-cluster-uid": ownUID}, rights: everything},
	"UpCloud's own driver":              {title: claimName(1), rights: everything},
	"UpCloud's own driver, with labels": {title: claimName(1), labels: map[string]string{"owner": "ops"}, rights: everything},
	"imported by UID":                   {labels: map[string]string{"csi-import": ownUID}, rights: everything},
	"imported by name":                  {labels: map[string]string{"csi-import": "test"}, rights: everything},
	"imported from another cluster": {labels: map[string]string{
		"csi-name": "a", "csi-cluster": "other", "csi-cluster-uid": otherUID, "csi-import": ownUID}, rights: everything},
	"by hand":                                {title: "data", rights: onlyAttach},
	"by hand, titled like a claim with more": {title: "backup of " + claimName(1), rights: onlyAttach},
	"by hand, labelled with the cluster":     {labels: map[string]string{"csi-cluster": "test"}, rights: onlyAttach},
	"by hand, imported elsewhere":            {labels: map[string]string{"csi-import": otherUID}, rights: nothing},
	"by hand, imported with no name":         {labels: map[string]string{"csi-import": ""}, rights: nothing},
	"another cluster, by UID":                {labels: map[string]string{"csi-name": "a", "csi-cluster-uid": otherUID}, rights: nothing},
	"another cluster of the same name": {
		labels: map[string]string{"csi-name": "a", "csi-cluster": "test", "csi-cluster-uid": otherUID}, rights: nothing},
	"another cluster, by name": {labels: map[string]string{"csi-name": "a", "csi-cluster": "other"}, rights: nothing},
	"another cluster, titled like a claim": {
		title: claimName(1), labels: map[string]string{"csi-name": claimName(1), "csi-cluster": "other"}, rights: nothing},
	"handed over to another cluster": {
		labels: map[string]string{"csi-name": "a", "csi-cluster-uid": ownUID, "csi-import": otherUID}, rights: nothing},
	"unfinished copy of another cluster": {
		title: "a (unfinished copy of " + ownUID + " for other)", rights: nothing},
}

// newOwner runs a controller of the cluster "test" with the UID ownUID.
func newOwner(t *testing.T, sim *simulatortest.Server, change func(*cloud.Config)) *rig {
	t.Helper()
	config := cloud.Config{Username: sim.Username, Password: sim.Password, BaseURL: sim.URL, ClusterID: "test"}
	if change != nil {
		change(&config)
	}
	account, err := cloud.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	if err := account.SetClusterUID(ownUID); err != nil {
		t.Fatal(err)
	}
	return serve(t, sim, driver.Config{Mode: driver.ModeController, Cloud: account})
}

// makeStorage makes a disk past the driver.
func makeStorage(t *testing.T, sim *simulatortest.Server, title string, labels map[string]string) string {
	t.Helper()
	if title == "" {
		title = "disk"
	}
	var list []string
	for key, value := range labels {
		list = append(list, fmt.Sprintf(`{"key":%q,"value":%q}`, key, value))
	}
	var made struct{ Storage storage }
	sim.Do(t, "POST", "/storage", fmt.Sprintf(`{"storage":{"size":"1","tier":"maxiops","title":%q,"zone":%q,"labels":[%s]}}`,
		title, zone, strings.Join(list, ",")), &made)
	return made.Storage.UUID
}

// uses are the columns of the table, each with its RPC, and the code where it is refused.
func usesOfOrigins(allowed rights) map[string]struct {
	allowed bool
	use     use
} {
	type column = struct {
		allowed bool
		use     use
	}
	refused := func(rpc string, code codes.Code) use { return use{code, usesOfVolumes[rpc].do} }
	return map[string]column{
		"attach":   {allowed.attach, refused("ControllerPublishVolume", codes.FailedPrecondition)},
		"delete":   {allowed.delete, refused("DeleteVolume", codes.FailedPrecondition)},
		"grow":     {allowed.grow, refused("ControllerExpandVolume", codes.InvalidArgument)},
		"modify":   {allowed.modify, refused("ControllerModifyVolume", codes.InvalidArgument)},
		"snapshot": {allowed.snapshot, refused("CreateSnapshot", codes.FailedPrecondition)},
		"clone":    {allowed.clone, refused("CreateVolume from a volume", codes.FailedPrecondition)},
	}
}

func TestOriginOfAStorageDecidesWhatMayBeDoneToIt(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone)
	r := newOwner(t, sim, nil)
	for origin, from := range origins {
		for name, column := range usesOfOrigins(from.rights) {
			t.Run(origin+"/"+name, func(t *testing.T) {
				wantUse(t, r, server, makeStorage(t, sim, from.title, from.labels), column.allowed, column.use)
			})
		}
	}
}

// wantUse does a thing to a disk. Where it is not allowed, nothing may have changed, and the error must say what to do.
func wantUse(t *testing.T, r *rig, server, disk string, allowed bool, use use) {
	t.Helper()
	before := r.account(t, server)
	err := use.do(t, r, disk, server)
	after := r.account(t, server)
	switch {
	case allowed && err != nil:
		t.Error(err)
	case allowed && after == before:
		t.Error("nothing has changed")
	case allowed:
	case status.Code(err) != use.refusal || !strings.Contains(err.Error(), disk) || !strings.Contains(err.Error(), "csi-import="+ownUID):
		t.Errorf("got %v, want %s with the disk and the label that allows it", err, use.refusal)
	case after != before:
		t.Errorf("the account was\n%s\nand is\n%s", before, after)
	}
	if err := r.unpublish(t, disk, server); err != nil { // also of what was never attached
		t.Errorf("it is not unpublished: %v", err)
	}
}

func TestDisksMadeByHandNeedALabelWhereThatIsRequired(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone)
	r := newOwner(t, sim, func(c *cloud.Config) { c.RequireImportLabel = true })
	attach := usesOfOrigins(rights{})["attach"].use
	for origin, from := range origins {
		t.Run(origin, func(t *testing.T) {
			wantUse(t, r, server, makeStorage(t, sim, from.title, from.labels), from.rights.delete, attach)
		})
	}
}

func TestBackupsMadeByHandNeedALabelWhereThatIsRequired(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	r := newOwner(t, sim, func(c *cloud.Config) { c.RequireImportLabel = true })
	var made struct{ Storage storage }
	sim.Do(t, "POST", "/storage/"+makeStorage(t, sim, "data", nil)+"/backup", `{"storage":{"title":"before the upgrade"}}`, &made)
	_, err := r.controller.CreateVolume(callContext(t), copyRequest("restored", 100, fromSnapshot(made.Storage.UUID)))
	wantRight(t, "restore", err, false)
	sim.Do(t, "PUT", "/storage/"+made.Storage.UUID, `{"storage":{"labels":[{"key":"csi-import","value":"test"}]}}`, nil)
	_, err = r.controller.CreateVolume(callContext(t), copyRequest("restored", 100, fromSnapshot(made.Storage.UUID)))
	wantRight(t, "restore of a labelled one", err, true)
}

// A disk that is labelled for import, and whose label is taken off again, is not deleted on the strength of a former look.
func TestImportThatIsTakenBackAllowsNothing(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone)
	r := newOwner(t, sim, nil)
	disk := makeStorage(t, sim, "data", map[string]string{"csi-import": ownUID})
	if _, err := r.publish(t, disk, server); err != nil {
		t.Fatal(err)
	}
	if err := r.unpublish(t, disk, server); err != nil {
		t.Fatal(err)
	}
	sim.Do(t, "PUT", "/storage/"+disk, `{"storage":{"labels":[]}}`, nil)
	wantUse(t, r, server, disk, false, usesOfOrigins(nothing)["delete"].use)
}

// A volume that is handed over to another cluster is not deleted on the strength of a look of long ago, nor of one by which the cluster
// did not know its own UID yet.
func TestVolumeThatWasHandedOverIsNotDeleted(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	r := newRest(t, sim)
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	sim.Do(t, "PUT", "/storage/"+volume, `{"storage":{"labels":[{"key":"csi-name","value":"pvc-1"},{"key":"csi-import","value":"`+otherUID+`"}]}}`, nil)
	r.clock.advance(6 * time.Minute)
	_, err := r.controller.DeleteVolume(callContext(t), &csi.DeleteVolumeRequest{VolumeId: volume})
	wantCode(t, err, codes.FailedPrecondition)
	if !storageExists(t, sim, volume) {
		t.Error("the other cluster's volume is gone")
	}
}

func TestVolumeSeenBeforeTheUIDWasKnownIsLookedAtAgain(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	account := newCloudOf(t, sim, "test")
	r := serve(t, sim, driver.Config{Mode: driver.ModeController, Cloud: account})
	volume := makeStorage(t, sim, "data", map[string]string{"csi-name": "data", "csi-cluster": "test", "csi-cluster-uid": otherUID})
	r.listVolumes(t, &csi.ListVolumesRequest{})
	if err := account.SetClusterUID(ownUID); err != nil {
		t.Fatal(err)
	}
	_, err := r.controller.DeleteVolume(callContext(t), &csi.DeleteVolumeRequest{VolumeId: volume})
	wantCode(t, err, codes.FailedPrecondition)
	if !storageExists(t, sim, volume) {
		t.Error("the other cluster's volume is gone")
	}
}

// The labels that decide can be written in the account alone, not by who may write StorageClasses or VolumeAttributesClasses.
func TestLabelsThatDecideCannotBeSetThroughKubernetes(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	r := newOwner(t, sim, nil)
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	for _, key := range []string{cloud.LabelImport, cloud.LabelAttachedBy, cloud.LabelClusterUID, cloud.LabelCluster, cloud.LabelName} {
		before := maps.Clone(r.storage(t, volume).labels())
		wantCode(t, r.modify(t, volume, map[string]string{"labels": key + "=" + otherUID}), codes.InvalidArgument)
		req := createRequest("pvc-of-" + key)
		req.Parameters = map[string]string{"labels": key + "=" + otherUID}
		_, err := r.controller.CreateVolume(callContext(t), req)
		wantCode(t, err, codes.InvalidArgument)
		if after := r.storage(t, volume).labels(); !maps.Equal(after, before) {
			t.Errorf("labels were %v and are %v", before, after)
		}
	}
}
