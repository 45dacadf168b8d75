package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/chart"
)

// kustomize builds a kustomization, in which DEPLOY is deploy/kubernetes.
func kustomize(t *testing.T, kustomization string) map[string]*unstructured.Unstructured {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	deploy, err := filepath.Abs(filepath.Join(top, "deploy", "kubernetes"))
	if err != nil {
		t.Fatal(err)
	}
	if deploy, err = filepath.Rel(dir, deploy); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(strings.ReplaceAll(kustomization, "DEPLOY", deploy)), 0o600); err != nil {
		t.Fatal(err)
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, string(text))
}

const (
	csiOnly    = "ccm: {enabled: false}\ncsi:\n  snapshots: enabled\n  volumeSnapshotClass: {name: \"\"}\n"
	ccmOff     = "csi: {enabled: false}\nccm: {enabled: false}\n"
	doctorOnly = ccmOff + "doctor: {enabled: true}\n"
)

// Each folder of deploy/kubernetes makes what the chart makes with the values that say the same.
func TestKustomizeAndTheChartMakeTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		kustomization string
		options       chart.Options
	}{
		"base": {"resources: [DEPLOY/base]\n", chart.Options{Values: "csi: {snapshots: enabled, volumeSnapshotClass: {name: \"\"}}\n"}},
		"base with the snapshot class": {"resources: [DEPLOY/base, DEPLOY/snapshot-class]\n",
			chart.Options{Values: "csi: {snapshots: enabled}\n"}},
		"base/csi-driver": {"resources: [DEPLOY/base/csi-driver]\n", chart.Options{Values: csiOnly}},
		"base/ccm":        {"resources: [DEPLOY/base/ccm]\n", chart.Options{Values: "csi: {enabled: false}\n"}},
		"ccm-class": {"resources: [DEPLOY/ccm-class]\n",
			chart.Options{Values: "csi: {enabled: false}\nccm: {loadBalancerClassOnly: true}\n"}},
		"ccm-metrics": {"resources: [DEPLOY/base/ccm]\ncomponents: [DEPLOY/ccm-metrics]\n",
			chart.Options{Values: "csi: {enabled: false}\nccm: {metricsOnNode: true}\n"}},
		"ccm-pod-members": {"resources: [DEPLOY/base/ccm]\ncomponents: [DEPLOY/ccm-pod-members]\n",
			chart.Options{Values: "csi: {enabled: false}\nccm: {podMembers: true}\n"}},
		"ccm-tenants": {"resources: [DEPLOY/base/ccm]\ncomponents: [DEPLOY/ccm-tenants]\n",
			chart.Options{Values: "csi: {enabled: false}\nccm: {readNamespaceLabels: true}\n"}},
		"ccm-secrets-by-namespace": {"resources: [DEPLOY/base/ccm]\ncomponents: [DEPLOY/ccm-secrets-by-namespace]\n",
			chart.Options{Values: "csi: {enabled: false}\nccm: {secretsByNamespace: true}\n"}},
		"doctor": {"resources: [DEPLOY/doctor]\n", chart.Options{Values: doctorOnly}},
		"doctor-fix": {"resources: [DEPLOY/doctor, DEPLOY/doctor-fix]\n",
			chart.Options{Values: ccmOff + "doctor: {enabled: true, fix: true}\n"}},
		"admission":           {"resources: [DEPLOY/admission]\n", chart.Options{Values: ccmOff + "admission: {enabled: true}\n"}},
		"snapshot-controller": {"resources: [DEPLOY/snapshot-controller]\n", chart.Options{Values: ccmOff + "snapshotController: {enabled: true}\n"}},
		"Kubernetes 1.32": {"resources: [DEPLOY/base/csi-driver]\ncomponents: [DEPLOY/kubernetes-1.31-1.32]\n",
			chart.Options{Values: csiOnly, Kubernetes: "v1.32.4"}},
		"another namespace": {"resources: [DEPLOY/base, DEPLOY/doctor, DEPLOY/doctor-fix]\nnamespace: storage\n" +
			"transformers: [DEPLOY/other-namespace/ccm, DEPLOY/other-namespace/doctor]\n",
			chart.Options{Values: "csi: {snapshots: enabled, volumeSnapshotClass: {name: \"\"}}\ndoctor: {enabled: true, fix: true}\n", Namespace: "storage"}},
		"a kubelet of k0s": {"resources: [DEPLOY/base/csi-driver]\n" + install(t, "/var/lib/k0s/kubelet"),
			chart.Options{Values: csiOnly + "  kubeletDir: /var/lib/k0s/kubelet/\n"}},
		"half-made disks": {"resources: [DEPLOY/base/csi-driver]\n" + install(t, "--adopt-half-made"),
			chart.Options{Values: csiOnly + "  controller: {extraArgs: [--adopt-half-made]}\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			same(t, kustomize(t, c.kustomization), render(t, c.options))
		})
	}
}

// Nothing of deploy/kubernetes is left out above.
func TestEveryFolderOfManifestsIsCompared(t *testing.T) {
	test, err := os.ReadFile("kustomize_test.go")
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(top, "deploy", "kubernetes", "*", "kustomization.yaml"))
	if err != nil || len(found) < 10 {
		t.Fatalf("%d kustomizations: %v", len(found), err)
	}
	for _, path := range found {
		if folder := filepath.Base(filepath.Dir(path)); !strings.Contains(string(test), "DEPLOY/"+folder) {
			t.Errorf("deploy/kubernetes/%s is not compared with the chart", folder)
		}
	}
}

// install is the block of docs/install.md with patches, in YAML, that has a text.
func install(t *testing.T, text string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(top, "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if strings.HasPrefix(block[1], "patches:") && strings.Contains(block[1], text) {
			return block[1]
		}
	}
	t.Fatalf("docs/install.md has no patches with %s", text)
	return ""
}

// Every patch of the page is one that kustomize takes.
func TestPatchesOfTheInstallationPageAreTaken(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(top, "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```yaml\n((?:patches|components|namespace|transformers):.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 4 {
		t.Fatalf("docs/install.md has %d blocks for kustomizations", len(blocks))
	}
	for _, block := range blocks {
		kustomize(t, "resources: [DEPLOY/base]\n"+strings.ReplaceAll(block[1], "CLONE/deploy/kubernetes", "DEPLOY"))
	}
}
