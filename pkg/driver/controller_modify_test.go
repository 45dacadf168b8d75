package driver_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func (r *rig) modify(t *testing.T, volume string, parameters map[string]string) error {
	t.Helper()
	_, err := r.controller.ControllerModifyVolume(callContext(t), &csi.ControllerModifyVolumeRequest{
		VolumeId: volume, MutableParameters: parameters,
	})
	return err
}

type rule struct{ Interval, Time, Retention string }

func (r *rig) rule(t *testing.T, volume string) rule {
	t.Helper()
	var answer struct {
		Storage struct {
			Rule rule `json:"backup_rule"`
		}
	}
	r.sim.Do(t, "GET", "/storage/"+volume, "", &answer)
	return answer.Storage.Rule
}

func TestModifyChangesBackupsAndLabelsInPlace(t *testing.T) {
	r := newController(t, simulator.Config{})
	server := r.sim.CreateServer(t, "worker-1", zone)
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	if _, err := r.publish(t, volume, server); err != nil { // in use all the time
		t.Fatal(err)
	}
	for _, step := range []struct {
		parameters map[string]string
		want       rule
		calls      int
	}{
		{map[string]string{"backupInterval": "daily", "backupTime": "0430", "backupRetention": "7"}, rule{"daily", "0430", "7"}, 2},
		{map[string]string{"backupInterval": "daily", "backupTime": "0430", "backupRetention": "7"}, rule{"daily", "0430", "7"}, 1},
		{map[string]string{"backupRetention": "30"}, rule{"daily", "0430", "30"}, 2},
		{map[string]string{"labels": "team=storage, tier=gold"}, rule{"daily", "0430", "30"}, 2},
		{map[string]string{"backupInterval": "sun", "labels": "tier=silver"}, rule{"sun", "0430", "30"}, 2},
		{map[string]string{"backupInterval": "none"}, rule{}, 2},
		{nil, rule{}, 1},
	} {
		r.sim.ResetRequests()
		if err := r.modify(t, volume, step.parameters); err != nil {
			t.Fatalf("%v: %v", step.parameters, err)
		}
		if n := r.sim.Requests().Total(); n != step.calls {
			t.Errorf("%v took %d calls, want %d", step.parameters, n, step.calls)
		}
		if got := r.rule(t, volume); got != step.want {
			t.Errorf("%v: the rule is %+v, want %+v", step.parameters, got, step.want)
		}
	}
	labels := r.storage(t, volume).labels()
	if labels["team"] != "storage" || labels["tier"] != "silver" || labels["csi-name"] != "pvc-1" {
		t.Errorf("labels are %v", labels)
	}
}

func TestModifyRefusesWhatCannotChangeWithTheReason(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	for _, test := range []struct {
		key, value string
		words      string
	}{
		{"tier", "hdd", "another tier"},
		{"encryption", "data-at-rest", "encrypt"},
		{"backups", "daily", `unknown parameter "backups"`},
		{"backupInterval", "hourly", "daily"},
		{"backupTime", "25:00", "0430"},
		{"backupRetention", "0", "1 to 1095"},
		{"backupRetention", "week", "1 to 1095"},
		{"backupsOnDelete", "maybe", "keep_latest"},
		{"labels", "team", "key=value"},
		{"labels", "csi-name=other", "driver's"},
		{"labels", "k=v", "2 to 32"},
		{"backupInterval", "daily", "time"}, // and no time anywhere
	} {
		err := r.modify(t, volume, map[string]string{test.key: test.value})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(status.Convert(err).Message(), test.words) {
			t.Errorf("%s=%s: %v, want InvalidArgument with %q", test.key, test.value, err, test.words)
		}
	}
	if labels := r.storage(t, volume).labels(); labels["csi-name"] != "pvc-1" || r.rule(t, volume) != (rule{}) {
		t.Errorf("the volume was changed: %v, %v", labels, r.rule(t, volume))
	}
	wantCode(t, r.modify(t, "01000000-0000-4000-8000-000000000000", nil), codes.NotFound)
	wantCode(t, r.modify(t, "", nil), codes.InvalidArgument)
}

func TestBackupsByStorageClassAndByAttributesClass(t *testing.T) {
	r := newController(t, simulator.Config{})
	req := createRequest("pvc-1")
	req.Parameters = map[string]string{"backupInterval": "daily", "backupTime": "0430", "backupRetention": "7", "labels": "team=a"}
	req.MutableParameters = map[string]string{"backupRetention": "14"}
	made := r.create(t, req)
	if got := r.rule(t, made.GetVolumeId()); got != (rule{"daily", "0430", "14"}) {
		t.Errorf("the rule is %+v", got)
	}
	source := made.GetVolumeId()
	clone := copyRequest("clone", 1, fromVolume(source))
	clone.Parameters = req.Parameters
	if id := r.create(t, clone).GetVolumeId(); r.rule(t, id) != (rule{"daily", "0430", "7"}) || r.storage(t, id).labels()["team"] != "a" {
		t.Errorf("the clone has %+v, %v", r.rule(t, id), r.storage(t, id).labels())
	}
	partial := createRequest("pvc-2")
	partial.Parameters = map[string]string{"backupInterval": "daily"}
	_, err := r.controller.CreateVolume(callContext(t), partial)
	wantCode(t, err, codes.InvalidArgument)

	validate := &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: source, VolumeCapabilities: []*csi.VolumeCapability{writer()}, MutableParameters: req.MutableParameters,
	}
	confirmed, err := r.controller.ValidateVolumeCapabilities(callContext(t), validate)
	if err != nil || confirmed.GetConfirmed() == nil || !maps.Equal(confirmed.GetConfirmed().GetMutableParameters(), req.MutableParameters) {
		t.Errorf("%v, %v", confirmed, err)
	}
	validate.MutableParameters = map[string]string{"backupRetention": "15"}
	if refused, err := r.controller.ValidateVolumeCapabilities(callContext(t), validate); err != nil || refused.GetConfirmed() != nil {
		t.Errorf("%v, %v", refused, err)
	}
}

func TestDeletionFollowsTheBackupsPolicy(t *testing.T) {
	r := newController(t, simulator.Config{})
	for _, test := range []struct {
		policy string
		how    string
		want   int
	}{
		{"", "StorageClass", 2}, {"keep", "StorageClass", 2}, {"keep_latest", "StorageClass", 1}, {"delete", "StorageClass", 0},
		{"delete", "VolumeAttributesClass", 0}, {"delete", "clone", 0},
	} {
		name := test.how + test.policy
		parameters := map[string]string{"backupsOnDelete": test.policy}
		if test.policy == "" {
			parameters = nil
		}
		req := createRequest(name)
		switch test.how {
		case "StorageClass":
			req.Parameters = parameters
		case "clone":
			req = copyRequest(name, 1, fromVolume(r.create(t, createRequest("source of "+name)).GetVolumeId()))
			req.Parameters = parameters
		}
		volume := r.create(t, req).GetVolumeId()
		if test.how == "VolumeAttributesClass" {
			if err := r.modify(t, volume, parameters); err != nil {
				t.Fatal(err)
			}
		}
		for _, snapshot := range []string{"first", "second"} {
			r.readySnapshot(t, snapshot+" of "+name, volume)
		}
		r.deleteVolume(t, volume)
		if left, _ := r.listSnapshots(t, &csi.ListSnapshotsRequest{SourceVolumeId: volume}); len(left) != test.want {
			t.Errorf("%s, %q: %d backups are left, want %d", test.how, test.policy, len(left), test.want)
		}
	}
}

// A deletion names the volume alone: its policy must not cost a call each time.
func TestDeletionsShareTheirLookAtPolicies(t *testing.T) {
	r := newController(t, simulator.Config{})
	var volumes []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		volumes = append(volumes, r.create(t, createRequest(name)).GetVolumeId())
	}
	r.sim.ResetRequests()
	for _, volume := range volumes {
		r.deleteVolume(t, volume)
	}
	if n := r.sim.Requests().Total(); n > len(volumes)+1 {
		t.Errorf("%d deletions took %d calls: %v", len(volumes), n, r.sim.Requests())
	}
}
