package install

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// kept is without the kinds that every upgrade makes more of: the notes of Helm, and the Jobs of the doctor, which look once.
func kept(o objects) objects { return o.without("Secret").without("Job") }

// The chart as it comes, on a cluster without the kinds of snapshots: the base is installed, changed, and gone without a trace.
func TestDefaultValues(t *testing.T) {
	h := begin(t, "kube-system", "upcloud")
	before := clusterObjects(t)
	made := h.must(h.install(""))
	if want := "Snapshots are off, as this cluster has no kind VolumeSnapshotClass. Set snapshotController.enabled=true to have them."; !strings.Contains(made.Info.Notes, want) {
		t.Errorf("the notes do not say %q:\n%s", want, made.Info.Notes)
	}
	installed := h.isThere(made)
	h.must(h.upgrade(""))
	if diff := cmp.Diff(kept(installed).texts(t), kept(clusterObjects(t)).texts(t)); diff != "" {
		t.Errorf("an upgrade with the same values changed: -before +after\n%s", diff)
	}

	changed := h.isThere(h.must(h.upgrade(`
csi:
  kubeletDir: /var/lib/k0s/kubelet
  controller: {replicas: 3, podDisruptionBudget: false}
  driver: {fsGroupPolicy: File}
  storageClasses: [{name: fast, default: true, parameters: {tier: maxiops}}]
ccm: {config: {loadBalancerPlan: production-small}, readNamespaceLabels: true}
`)))
	for name, want := range map[string]any{
		"Deployment kube-system/upcloud-csi-controller spec replicas":       int64(3),
		"CSIDriver /storage.csi.upcloud.com spec fsGroupPolicy":             "File",
		"StorageClass /fast parameters tier":                                "maxiops",
		"ConfigMap kube-system/upcloud-ccm-config metadata name":            "upcloud-ccm-config",
		"PersistentVolume /pvc-of-a-claim spec csi driver":                  "storage.csi.upcloud.com",
		"Deployment kube-system/upcloud-ccm spec template spec hostNetwork": true,
	} {
		parts := strings.Fields(name)
		if got := changed.field(t, parts[0]+" "+parts[1], parts[2:]...); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if folder := `"path": "/var/lib/k0s/kubelet"`; !strings.Contains(changed.texts(t)["DaemonSet kube-system/upcloud-csi-node"], folder) {
		t.Errorf("the node plugin has not %s", folder)
	}
	for _, gone := range []string{"StorageClass /upcloud-block-storage-maxiops", "PodDisruptionBudget kube-system/upcloud-csi-controller"} {
		if installed[gone] == nil || changed[gone] != nil {
			t.Errorf("%s was there: %t, is there: %t", gone, installed[gone] != nil, changed[gone] != nil)
		}
	}

	// Kubernetes does not let a class be changed. Who tries sees its sentence, and the next upgrade works.
	_, err := h.upgrade("csi: {storageClasses: [{name: fast, parameters: {tier: hdd}}]}")
	if err == nil || !strings.Contains(err.Error(), "parameters: Invalid value") || !strings.Contains(err.Error(), `"fast"`) {
		t.Errorf("an upgrade that changes a class: %v", err)
	}
	h.must(h.upgrade(""))
	if diff := cmp.Diff(installed.without("Secret").since(before), clusterObjects(t).without("Secret").since(before)); diff != "" {
		t.Errorf("back at the first values: -first +now\n%s", diff)
	}

	h.uninstall()
	isAsBefore(t, before)
}

// Every switch and every value, in a namespace of its own, from and to the values as they come.
func TestEveryValue(t *testing.T) {
	h := begin(t, "storage", "account")
	makeSecret(t, "storage", "upcloud", "token")
	makeMonitorKinds(t)
	before := clusterObjects(t)
	made := h.must(h.install(valuesOf(t, "everything")))
	t.Cleanup(func() { removeCustomResources(t, customResources...) })
	installed := h.isThere(made)
	if installed["VolumeSnapshotClass /backups"] == nil {
		t.Error("there is no VolumeSnapshotClass")
	}
	jobs := len(installed) - len(installed.without("Job"))
	if jobs != 2 {
		t.Errorf("there are %d Jobs", jobs)
	}
	h.must(h.upgrade(valuesOf(t, "everything")))
	if diff := cmp.Diff(kept(installed).texts(t), kept(clusterObjects(t)).texts(t)); diff != "" {
		t.Errorf("an upgrade with the same values changed: -before +after\n%s", diff)
	}
	// Other flags, also of Jobs, which Kubernetes does not let be changed.
	h.isThere(h.must(h.upgrade(strings.ReplaceAll(valuesOf(t, "everything"), "production", "staging"))))
	h.isThere(h.must(h.upgrade(valuesOf(t, "default"))))
	h.isThere(h.must(h.upgrade(valuesOf(t, "everything"))))
	h.uninstall()
	isAsBefore(t, before, customResources...)
}

// What cannot be is refused with the reason and the remedy, and leaves nothing in the cluster.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		secret, key string
		version     string
		values      string
		want        string
		left        []string
	}{
		"Kubernetes too old": {secret: "upcloud", key: "token", version: "v1.30.14",
			want: "chart requires kubeVersion: >=1.31.0-0 which is incompatible with Kubernetes v1.30.14"},
		"no Secret": {want: "Secret storage/upcloud with the credentials of UpCloud does not exist; create it with: " +
			"kubectl -n storage create secret generic upcloud --from-literal=token=ucat_... (or set credentials.check=false if it is created later)"},
		"a Secret of another name": {secret: "upcloud", key: "token", values: "credentials: {secretName: account}",
			want: "Secret storage/account with the credentials of UpCloud does not exist"},
		"a Secret with other keys": {secret: "upcloud", key: "password",
			want: "Secret storage/upcloud has neither the key token nor the keys username and password; delete it and create it with: kubectl -n storage create secret"},
		"no kinds of snapshots": {secret: "upcloud", key: "token", values: "csi: {snapshots: enabled}",
			want: "this cluster has no kind VolumeSnapshotClass (snapshot.storage.k8s.io/v1); set snapshotController.enabled=true, or csi.snapshots=auto"},
		"no kinds of monitors": {secret: "upcloud", key: "token", values: "monitoring: {enabled: true}",
			want: "this cluster has no kind PodMonitor (monitoring.coreos.com/v1); install the Prometheus operator first, or set monitoring.enabled=false"},
		// Helm applies custom resources before it renders what refuses.
		"no Secret, with custom resources": {values: "snapshotController: {enabled: true}", left: customResources,
			want: "Secret storage/upcloud with the credentials of UpCloud does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			h := begin(t, "storage", "")
			h.version = c.version
			if c.secret != "" {
				makeSecret(t, "storage", c.secret, c.key)
			}
			before := clusterObjects(t)
			if _, err := h.install(c.values); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it says %v, want %q in it", err, c.want)
			}
			isAsBefore(t, before, c.left...)
			if c.left != nil {
				removeCustomResources(t, c.left...)
			}
		})
	}
}
