package driver_test

import (
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// What external-provisioner and external-snapshotter take from a class and pass on all the same is not the driver's to refuse.
func TestParametersOfTheSidecarsAreTaken(t *testing.T) {
	r := newController(t, simulator.Config{})
	const mode = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	for name, test := range map[string]struct {
		key, value string
		capability *csi.VolumeCapability
		want       codes.Code
	}{
		"fsType":                {"fsType", "xfs", mountCapability(mode, "xfs"), codes.OK},
		"fstype":                {"fstype", "xfs", mountCapability(mode, "xfs"), codes.OK},
		"FSType":                {"FSType", "ext4", mountCapability(mode, ""), codes.OK},
		"fsType-block":          {"fsType", "xfs", blockCapability(mode), codes.OK},
		"fsType-other":          {"fsType", "xfs", mountCapability(mode, "ext4"), codes.InvalidArgument},
		"fsType-default":        {"fsType", "xfs", mountCapability(mode, ""), codes.InvalidArgument},
		"secret":                {"csiNodeStageSecretName", "key", writer(), codes.OK},
		"secret-of-provisioner": {"csi.storage.k8s.io/provisioner-secret-name", "key", writer(), codes.OK},
	} {
		req := createRequest(name)
		req.Parameters = map[string]string{test.key: test.value}
		req.VolumeCapabilities = []*csi.VolumeCapability{test.capability}
		_, err := r.controller.CreateVolume(callContext(t), req)
		if status.Code(err) != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	_, err := r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{
		Name: "s", SourceVolumeId: volume, Parameters: map[string]string{"csiSnapshotterSecretName": "key"},
	})
	if err != nil {
		t.Error(err)
	}
	// external-resizer adds these with --extra-modify-metadata.
	if err := r.modify(t, volume, map[string]string{"csi.storage.k8s.io/pvc/name": "data", "labels": "team=storage"}); err != nil {
		t.Error(err)
	}
}

// A typing error gets the parameter that was meant.
func TestUnknownParameterNamesTheOneMeant(t *testing.T) {
	r := newController(t, simulator.Config{})
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	for given, want := range map[string]string{
		"Tier": "did you mean tier?", "teir": "did you mean tier?", "encryption ": "did you mean encryption?",
		"node-encryption": "did you mean nodeEncryption?", "mkfs_options": "did you mean mkfsOptions?",
		"backupinterval": "did you mean backupInterval?", "label": "did you mean labels?",
		"filesystem": "use tier, encryption, mkfsOptions", "iops": "use tier, encryption, mkfsOptions", "": "use tier",
	} {
		req := createRequest("new")
		req.Parameters = map[string]string{given: "x"}
		_, err := r.controller.CreateVolume(callContext(t), req)
		wantRefusal(t, err, "parameters: ", given, want)
	}
	for given, want := range map[string]string{
		"BackupTime": "did you mean backupTime?", "backups_on_delete": "did you mean backupsOnDelete?",
		"tier": "cannot be changed", "nodeEncryption": "cannot be changed", "mkfsOptions": "cannot be changed", "size": "use backupInterval",
	} {
		wantRefusal(t, r.modify(t, volume, map[string]string{given: "x"}), "mutable_parameters: ", given, want)
	}
	_, err := r.controller.CreateSnapshot(callContext(t), &csi.CreateSnapshotRequest{
		Name: "s", SourceVolumeId: volume, Parameters: map[string]string{"incremental": "true"},
	})
	wantRefusal(t, err, "parameters: ", "incremental", "remove it")
}

func wantRefusal(t *testing.T, err error, words ...string) {
	t.Helper()
	wantCode(t, err, codes.InvalidArgument)
	for _, word := range words {
		if !strings.Contains(status.Convert(err).Message(), word) {
			t.Errorf("%v does not say %q", err, word)
		}
	}
}
