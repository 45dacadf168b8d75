package driver_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// stageWith stages with what the controller told of the volume.
func (m machine) stageWith(t *testing.T, volume *csi.Volume, c *csi.VolumeCapability, secrets map[string]string) error {
	t.Helper()
	published, err := m.publish(t, volume.GetVolumeId(), m.server)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.node.NodeStageVolume(callContext(t), &csi.NodeStageVolumeRequest{
		VolumeId: volume.GetVolumeId(), StagingTargetPath: m.staging(volume.GetVolumeId()), VolumeCapability: c,
		PublishContext: published, VolumeContext: volume.GetVolumeContext(), Secrets: secrets,
	})
	return err
}

func TestMkfsOptionsOfTheStorageClassReachMkfs(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	req := createRequest("pvc-1")
	req.Parameters = map[string]string{"mkfsOptions": "-N 1024  -L database"}
	volume := m.create(t, req)
	if err := m.stageWith(t, volume, writer(), nil); err != nil {
		t.Fatal(err)
	}
	text := output(t, "dumpe2fs", "-h", m.device(t, volume.GetVolumeId()))
	for _, want := range []string{"Filesystem volume name:   database", "Inode count:              1024"} {
		if !strings.Contains(text, want) {
			t.Errorf("the filesystem has not %q: %s", want, text)
		}
	}
	m.takeAway(t, volume.GetVolumeId())
}

func TestMkfsOptionsThatCannotBeAreRefusedBeforeThereIsAVolume(t *testing.T) {
	r := newController(t, simulator.Config{})
	for _, options := range []string{"/dev/vda", "-d /etc", "-F", "-Eoffset=4096", "--no-such", "-N"} {
		req := createRequest("pvc-1")
		req.Parameters = map[string]string{"mkfsOptions": options}
		_, err := r.controller.CreateVolume(callContext(t), req)
		if wantCode(t, err, codes.InvalidArgument); err != nil && !strings.Contains(err.Error(), "mkfsOptions") {
			t.Errorf("%q: the error does not name the parameter: %v", options, err)
		}
	}
	if left := r.storagesNamed(t, "pvc-1"); len(left) != 0 {
		t.Errorf("storages were made: %v", left)
	}
	// Options are for the filesystem that is asked for; a raw block volume has none, and may be of the same class.
	for fsType, want := range map[string]codes.Code{"ext4": codes.OK, "xfs": codes.InvalidArgument} {
		req := createRequest("pvc-" + fsType)
		req.VolumeCapabilities[0].GetMount().FsType = fsType
		req.Parameters = map[string]string{"mkfsOptions": "-N 1024"}
		_, err := r.controller.CreateVolume(callContext(t), req)
		wantCode(t, err, want)
	}
	req := createRequest("pvc-block")
	req.VolumeCapabilities = []*csi.VolumeCapability{blockCapability(anyWriter)}
	req.Parameters = map[string]string{"mkfsOptions": "-N 1024"}
	r.create(t, req)
}

// A PersistentVolume keeps what its volume was made with: every answer to the same request says the same.
func TestVolumeContextIsTheSameEachTime(t *testing.T) {
	r := newController(t, simulator.Config{})
	req := createRequest("pvc-1")
	req.Parameters = map[string]string{"mkfsOptions": " -N  1024 ", "tier": "standard"}
	want := map[string]string{"mkfsOptions": "-N 1024"}
	for range 2 {
		if diff := cmp.Diff(want, r.create(t, req).GetVolumeContext()); diff != "" {
			t.Error(diff)
		}
	}
	if told := r.create(t, createRequest("pvc-2")).GetVolumeContext(); len(told) != 0 {
		t.Errorf("a volume without parameters of the node has the context %v", told)
	}
}

const passphrase = "correct horse battery staple"

func encryptedRequest(name string) *csi.CreateVolumeRequest {
	req := createRequest(name)
	req.Parameters = map[string]string{"nodeEncryption": "luks2"}
	return req
}

func TestEncryptionOnTheNodeNeedsItsSecret(t *testing.T) {
	m := newMachines(t, "worker-1")[0]
	volume := m.create(t, encryptedRequest("pvc-1"))
	if volume.GetVolumeContext()["nodeEncryption"] != "luks2" {
		t.Fatalf("the volume context is %v", volume.GetVolumeContext())
	}
	block := blockCapability(anyWriter)
	for name, secrets := range map[string]map[string]string{
		"no secret": nil, "another key": {"passphrase": passphrase}, "an empty passphrase": {"encryptionPassphrase": ""},
	} {
		for _, c := range []*csi.VolumeCapability{writer(), block} {
			err := m.stageWith(t, volume, c, secrets)
			wantCode(t, err, codes.InvalidArgument)
			for _, word := range []string{"csi.storage.k8s.io/node-stage-secret-name", "encryptionPassphrase"} {
				if err != nil && !strings.Contains(err.Error(), word) {
					t.Errorf("%s: the error does not name %s: %v", name, word, err)
				}
			}
			if err != nil && strings.Contains(err.Error(), passphrase) {
				t.Errorf("the error has a secret in it: %v", err)
			}
		}
	}
	if text := output(t, "head", "-c", "1048576", m.device(t, volume.GetVolumeId())); strings.Trim(text, "\x00") != "" {
		t.Error("the disk was written to")
	}
	m.takeAway(t, volume.GetVolumeId())
}

// What is on a disk decides how it can be used: a plain one is not taken for encrypted, nor the other way round.
func TestDiskThatIsNotAsTheStorageClassSays(t *testing.T) {
	if _, err := exec.LookPath("cryptsetup"); err != nil {
		t.Skip(err)
	}
	m := newMachines(t, "worker-1")[0]
	secrets := map[string]string{"encryptionPassphrase": passphrase}
	plain := m.create(t, createRequest("plain"))
	if err := m.stageWith(t, plain, writer(), nil); err != nil {
		t.Fatal(err)
	}
	if err := m.unstage(t, plain.GetVolumeId()); err != nil {
		t.Fatal(err)
	}
	plain.VolumeContext = map[string]string{"nodeEncryption": "luks2"}
	err := m.stageWith(t, plain, writer(), secrets)
	if wantCode(t, err, codes.FailedPrecondition); err != nil && !strings.Contains(err.Error(), "ext4") {
		t.Errorf("a plain disk under an encrypted class: %v", err)
	}
	m.takeAway(t, plain.GetVolumeId())

	encrypted := m.create(t, createRequest("encrypted"))
	if _, err := m.publish(t, encrypted.GetVolumeId(), m.server); err != nil {
		t.Fatal(err)
	}
	format := exec.Command("cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations",
		"1000", "--key-file=-", m.device(t, encrypted.GetVolumeId()))
	format.Stdin = strings.NewReader(passphrase)
	if out, err := format.CombinedOutput(); err != nil {
		t.Skipf("cryptsetup cannot format here: %v: %s", err, out)
	}
	err = m.stageWith(t, encrypted, writer(), nil)
	if wantCode(t, err, codes.FailedPrecondition); err != nil && !strings.Contains(err.Error(), "is encrypted (LUKS)") {
		t.Errorf("an encrypted disk under a plain class: %v", err)
	}
	m.takeAway(t, encrypted.GetVolumeId())
}
