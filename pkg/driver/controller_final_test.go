package driver_test

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// A sidecar takes some codes for the end of the work (see errors.go). A refusal of the change itself is one. A refusal of the
// look before it, or of what follows it, says nothing about what there is in the account.
func TestRefusalIsFinalOnlyWhereNothingCanHaveBeenMade(t *testing.T) {
	create := func(r *rig, t *testing.T, _ string) error {
		_, err := r.controller.CreateVolume(callContext(t), createRequest("new"))
		return err
	}
	clone := func(r *rig, t *testing.T, volume string) error {
		_, err := r.controller.CreateVolume(callContext(t), copyRequest("new", 2, fromVolume(volume)))
		return err
	}
	snapshot := func(r *rig, t *testing.T, volume string) error {
		for { // until the backup is online and gets its labels
			resp, err := r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{Name: "new", SourceVolumeId: volume})
			if err != nil || resp.GetSnapshot().GetReadyToUse() {
				return err
			}
		}
	}
	expand := func(r *rig, t *testing.T, volume string) error {
		_, err := r.expand(t, volume, 2*gib, 0)
		return err
	}
	modify := func(r *rig, t *testing.T, volume string) error {
		return r.modify(t, volume, map[string]string{"labels": "team=storage"})
	}
	const exhausted = 402
	for what, test := range map[string]struct {
		operation string
		status    int
		call      func(r *rig, t *testing.T, volume string) error
		want      codes.Code
	}{
		"create, look without rights":          {"GET /storage", 403, create, codes.Unavailable},
		"create, look without credentials":     {"GET /storage", 401, create, codes.Unavailable},
		"create, look without credits":         {"GET /storage", exhausted, create, codes.Unavailable},
		"create, look not understood":          {"GET /storage", 400, create, codes.Unavailable},
		"create, change without rights":        {"POST /storage", 403, create, codes.PermissionDenied},
		"create, change without credits":       {"POST /storage", exhausted, create, codes.ResourceExhausted},
		"clone, look at the source":            {"GET /storage/{uuid}", 403, clone, codes.Unavailable},
		"clone, look for what was begun":       {"GET /storage/normal", 403, clone, codes.Unavailable},
		"clone, change without rights":         {"POST /storage/{uuid}/clone", 403, clone, codes.PermissionDenied},
		"clone, labels of the copy":            {"PUT /storage/{uuid}", 403, clone, codes.Unavailable},
		"snapshot, look for it":                {"GET /storage", 403, snapshot, codes.Unavailable},
		"snapshot, look at the volume":         {"GET /storage/{uuid}", 403, snapshot, codes.Unavailable},
		"snapshot, change without rights":      {"POST /storage/{uuid}/backup", 403, snapshot, codes.PermissionDenied},
		"snapshot, change without credits":     {"POST /storage/{uuid}/backup", exhausted, snapshot, codes.FailedPrecondition},
		"snapshot, labels of the backup":       {"PUT /storage/{uuid}", 403, snapshot, codes.Unavailable},
		"growth, change without credits":       {"PUT /storage/{uuid}", exhausted, expand, codes.OutOfRange},
		"growth, look without credentials":     {"GET /storage/{uuid}", 401, expand, codes.Unavailable},
		"change of class, without credits":     {"PUT /storage/{uuid}", exhausted, modify, codes.FailedPrecondition},
		"change of class, without credentials": {"PUT /storage/{uuid}", 401, modify, codes.Unavailable},
	} {
		t.Run(what, func(t *testing.T) {
			r := newController(t, simulator.Config{})
			volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
			remove := r.sim.Inject(simulator.Fault{Operation: test.operation, Status: test.status})
			err := test.call(r, t, volume)
			remove()
			if status.Code(err) != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if err := test.call(r, t, volume); err != nil {
				t.Errorf("the same call, when the API lets it: %v", err)
			}
		})
	}
}

// A growth that the account has no room for says so for good, so that the claim can be lowered; what fits is grown then.
func TestGrowthPastTheLimitOfTheAccountIsOutOfRange(t *testing.T) {
	r := newController(t, simulator.Config{Limits: &simulator.Limits{StorageMaxIOPS: 50}})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	_, err := r.expand(t, volume, 100*gib, 0)
	wantCode(t, err, codes.OutOfRange)
	if grown, err := r.expand(t, volume, 12*gib, 0); err != nil || grown.GetCapacityBytes() != 12*gib {
		t.Errorf("grown to %v, %v", grown, err)
	}
}
