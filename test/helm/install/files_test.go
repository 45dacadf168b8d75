package install

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/manifests"
)

// kubectl runs it, and returns its lines.
func kubectl(t *testing.T, args ...string) []string {
	t.Helper()
	output, err := plane.Kubectl(t.Context(), append([]string{"--cache-dir", t.TempDir()}, args...)...)
	if err != nil {
		t.Fatalf("kubectl %q: %v\n%s", args, err, output)
	}
	return strings.Split(strings.TrimSpace(output), "\n")
}

// The single files of a release are applied as the documentation says, once and once more, and deleted without a trace.
func TestSingleFiles(t *testing.T) {
	h := begin(t, "kube-system", "upcloud")
	dir := t.TempDir()
	if err := manifests.WriteRelease(top, "registry.example/upcloud", "v1.2.3", dir); err != nil {
		t.Fatal(err)
	}
	single, class := filepath.Join(dir, manifests.Single), filepath.Join(dir, manifests.SnapshotClass)
	controller := filepath.Join(dir, manifests.SnapshotController)
	before := clusterObjects(t)
	apply := func() []string {
		lines := kubectl(t, "apply", "--server-side", "-f", controller)
		kubectl(t, "wait", "--for=condition=Established", "crd/volumesnapshotclasses.snapshot.storage.k8s.io")
		eventually(t, "VolumeSnapshotClass is served", func() bool { return served(t, "volumesnapshotclasses") })
		return append(lines, kubectl(t, "apply", "-f", single, "-f", class)...)
	}
	created := len(apply())
	applied := clusterObjects(t)
	if added := applied.since(before); len(added) != created || created < 30 {
		t.Errorf("kubectl applied %d objects, and there are %d more: %q", created, len(added), added)
	}
	// kubectl says "configured" of objects that it sends a patch for, even if that changes nothing. The objects say whether it does.
	apply()
	again := clusterObjects(t)
	if diff := cmp.Diff(applied.texts(t), again.texts(t)); diff != "" {
		t.Errorf("applying once more changed: -before +after\n%s", diff)
	}
	if diff := cmp.Diff(applied.versions(), again.versions()); diff != "" {
		t.Errorf("applying once more wrote: -before +after\n%s", diff)
	}

	// Helm does not take over what it did not make.
	_, err := h.install("")
	if err == nil || !strings.Contains(err.Error(), "exists and cannot be imported into the current release") {
		t.Errorf("Helm beside the single files: %v", err)
	}
	if diff := cmp.Diff(applied.texts(t), clusterObjects(t).texts(t)); diff != "" {
		t.Errorf("Helm refused, and changed: -before +after\n%s", diff)
	}

	kubectl(t, "delete", "-f", class, "-f", single)
	kubectl(t, "delete", "-f", controller)
	isAsBefore(t, before)
}
