package driver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// copyOf is a copyRequest under a StorageClass that encrypts on the node, or under one that does not.
func copyOf(name string, source *csi.VolumeContentSource, encrypted bool) *csi.CreateVolumeRequest {
	req := copyRequest(name, 1, source)
	if encrypted {
		req.Parameters = map[string]string{"nodeEncryption": "luks2"}
	}
	return req
}

// A copy is encrypted as its source is, whatever its StorageClass says; a class that says otherwise is refused at once: the
// claim is told, and nothing is made that no node could use.
func TestCopiesOfEncryptedVolumes(t *testing.T) {
	r := newController(t, simulator.Config{Profile: simulator.Fast})
	plain := r.create(t, createRequest("plain")).GetVolumeId()
	encrypted := r.create(t, encryptedRequest("encrypted")).GetVolumeId()
	plainSnapshot := r.readySnapshot(t, "snapshot of plain", plain).GetSnapshotId()
	encryptedSnapshot := r.readySnapshot(t, "snapshot of encrypted", encrypted).GetSnapshotId()
	remedyPlain, remedyEncrypted := "StorageClass without nodeEncryption", "StorageClass with nodeEncryption: luks2"
	for _, c := range []struct {
		name      string
		source    *csi.VolumeContentSource
		encrypted bool
		refused   []string // what the refusal names beside the parameter, none for no refusal
	}{
		{"clone, plain of plain", fromVolume(plain), false, nil},
		{"clone, encrypted of encrypted", fromVolume(encrypted), true, nil},
		{"clone, plain of encrypted", fromVolume(encrypted), false, []string{"is none", "has luks2", remedyEncrypted, encrypted}},
		{"clone, encrypted of plain", fromVolume(plain), true, []string{"is luks2", "has none", remedyPlain, plain}},
		{"restored, plain of plain", fromSnapshot(plainSnapshot), false, nil},
		{"restored, encrypted of encrypted", fromSnapshot(encryptedSnapshot), true, nil},
		{"restored, plain of encrypted", fromSnapshot(encryptedSnapshot), false,
			[]string{"is none", "has luks2", remedyEncrypted, encryptedSnapshot}},
		{"restored, encrypted of plain", fromSnapshot(plainSnapshot), true, []string{"is luks2", "has none", remedyPlain, plainSnapshot}},
	} {
		req := copyOf(c.name, c.source, c.encrypted)
		for range 2 {
			answer, err := r.controller.CreateVolume(callContext(t), req)
			if len(c.refused) > 0 {
				wantCode(t, err, codes.InvalidArgument)
				for _, word := range append(c.refused, "nodeEncryption") {
					if err != nil && !strings.Contains(err.Error(), word) {
						t.Errorf("%s: the error does not say %q: %v", c.name, word, err)
					}
				}
				continue
			}
			wantCode(t, err, codes.OK)
			if told := answer.GetVolume().GetVolumeContext()["nodeEncryption"] == "luks2"; told != c.encrypted {
				t.Errorf("%s: the volume context is %v", c.name, answer.GetVolume().GetVolumeContext())
			}
		}
		if made := len(r.storagesNamed(t, c.name)); made != 1 && len(c.refused) == 0 || made != 0 && len(c.refused) > 0 {
			t.Errorf("%s: %d storages were made", c.name, made)
		}
	}
	// What is true of a source is true of its copies.
	clone := r.storagesNamed(t, "restored, encrypted of encrypted")[0].UUID
	_, err := r.controller.CreateVolume(callContext(t), copyOf("copy of a copy", fromVolume(clone), false))
	wantCode(t, err, codes.InvalidArgument)
	r.create(t, copyOf("copy of a copy", fromVolume(clone), true))
	// The same name asked for in the other way is another volume's.
	_, err = r.controller.CreateVolume(callContext(t), createRequest("encrypted"))
	wantCode(t, err, codes.AlreadyExists)
	_, err = r.controller.CreateVolume(callContext(t), encryptedRequest("plain"))
	wantCode(t, err, codes.AlreadyExists)
	bad := createRequest("bad")
	bad.Parameters = map[string]string{"nodeEncryption": "rot13"}
	_, err = r.controller.CreateVolume(callContext(t), bad)
	wantCode(t, err, codes.InvalidArgument)
}

// Storages of UpCloud's own driver, older ones, and those whose label somebody took off or changed, tell nothing: no copy of
// them is refused by mistake, and none is labelled by guess. What is on the disk counts then, which its node sees.
func TestCopiesOfSourcesThatTellNothingAreLeftToTheNode(t *testing.T) {
	r := newController(t, simulator.Config{Profile: simulator.Fast})
	volume := r.create(t, encryptedRequest(claimName(1))).GetVolumeId() // a name by which it is known without its labels
	snapshot := r.readySnapshot(t, "snapshot-1", volume).GetSnapshotId()
	for what, labels := range map[string]string{
		"no labels": ``, "the name alone": `{"key":"csi-name","value":"` + claimName(1) + `"},{"key":"csi-cluster","value":"test"}`,
		"another value": `{"key":"csi-node-encryption","value":"by hand"}`,
	} {
		for _, id := range []string{volume, snapshot} {
			r.sim.Do(t, "PUT", "/storage/"+id, `{"storage":{"labels":[`+labels+`]}}`, nil)
		}
		unnamed := r.readySnapshot(t, "snapshot, "+what, volume).GetSnapshotId()
		for from, source := range map[string]*csi.VolumeContentSource{
			"clone": fromVolume(volume), "restored": fromSnapshot(snapshot), "restored of a new one": fromSnapshot(unnamed),
		} {
			for class, encrypted := range map[string]bool{"plain": false, "encrypted": true} {
				req := copyOf(from+", "+what+", "+class, source, encrypted)
				made := r.create(t, req)
				if again := r.create(t, req); again.GetVolumeId() != made.GetVolumeId() {
					t.Errorf("%s: the retry made another", req.GetName())
				}
				if told := made.GetVolumeContext()["nodeEncryption"] == "luks2"; told != encrypted {
					t.Errorf("%s: the volume context is %v", req.GetName(), made.GetVolumeContext())
				}
				if value, labelled := r.storage(t, made.GetVolumeId()).labels()["csi-node-encryption"]; labelled {
					t.Errorf("%s: it is labelled %s, which nobody knows", req.GetName(), value)
				}
			}
		}
	}
}

// The label gets onto a backup only when that is online: by then another process may be at work.
func TestSnapshotsTellTheEncryptionOfTheirVolume(t *testing.T) {
	clock := simulator.NewManualClock()
	r := newController(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	for volume, want := range map[string]string{
		r.create(t, createRequest("plain")).GetVolumeId(): "none", r.create(t, encryptedRequest("encrypted")).GetVolumeId(): "luks2",
	} {
		other := serve(t, r.sim, driver.Config{Mode: driver.ModeController, Cloud: newCloud(t, r.sim)})
		for _, second := range []*rig{r, other} {
			name := "snapshot-" + want
			if second == other {
				name += " of two processes"
			}
			if r.snapshot(t, name, volume).GetReadyToUse() {
				t.Fatalf("%s is ready at once", name)
			}
			clock.Advance(time.Hour)
			ready := second.snapshot(t, name, volume)
			if !ready.GetReadyToUse() {
				t.Fatalf("%s is not ready after an hour", name)
			}
			labels := r.storage(t, ready.GetSnapshotId()).labels()
			if labels["csi-node-encryption"] != want || labels["csi-snapshot-name"] != name {
				t.Errorf("%s has the labels %v, want csi-node-encryption %s", name, labels, want)
			}
			if _, named := labels["csi-name"]; named {
				t.Errorf("%s got labels of its volume that are not for it: %v", name, labels)
			}
		}
	}
}
