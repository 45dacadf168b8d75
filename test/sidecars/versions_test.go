package sidecars

import (
	"os"
	"regexp"
	"testing"
)

// What is tested is what is deployed.
func TestVersionsAreThoseOfTheManifests(t *testing.T) {
	module, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile("../../deploy/kubernetes/base/csi-driver/controller.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, sidecar := range []string{"provisioner", "attacher", "resizer", "snapshotter"} {
		required := regexp.MustCompile(`external-` + sidecar + `/v\d+ (v\S+)`).FindSubmatch(module)
		deployed := regexp.MustCompile(`/csi-` + sidecar + `:(v\S+)`).FindSubmatch(manifest)
		if required == nil || deployed == nil || string(required[1]) != string(deployed[1]) {
			t.Errorf("%s: go.mod has %s, the manifests have %s: change test/sidecars/go.mod", sidecar, required, deployed)
		}
	}
}
