package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/chart"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/manifests"
)

var update = flag.Bool("update", false, "write the golden files")

// What users' values make is as it was, unless the golden files say otherwise (go test . -update).
func TestRenderedValuesAreThoseOfTheGoldenFiles(t *testing.T) {
	loaded, err := chart.Load(top)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range valuesFiles(t) {
		rendered, err := chart.Render(chart.Options{Project: top, Values: values, Namespace: "storage"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		delete(rendered, "templates/admission/policy.yaml") // compared with its table by the package of the annotations
		// A release changes the version of this project's images, and nothing else.
		got := strings.ReplaceAll(rendered.YAML(), ":"+loaded.AppVersion()+"\n", ":APPVERSION\n")
		path := filepath.Join("testdata", "golden", name+".yaml")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s: -golden +rendered\n%s", name, diff)
		}
	}
}

func TestImpossibleValuesAreRefused(t *testing.T) {
	for values, want := range map[string]string{
		"csi: {kubeletDir: var/lib/kubelet}":                                          "/csi/kubeletDir",
		"csi: {kubeletDir: /var/lib/../kubelet}":                                      "/csi/kubeletDir",
		"csi: {kubeletDir: /}":                                                        "/csi/kubeletDir",
		"csi: {kubeletDirectory: /var/lib/kubelet}":                                   "kubeletDirectory",
		"csi: {snapshots: yes please}":                                                "/csi/snapshots",
		"csi: {node: {metricsAddress: 9811}}":                                         "/csi/node/metricsAddress",
		"csi: {node: {maxVolumes: -1}}":                                               "/csi/node/maxVolumes",
		"csi: {driver: {fsGroupPolicy: Always}}":                                      "/csi/driver/fsGroupPolicy",
		"csi: {driver: {nodeAllocatableUpdatePeriodSeconds: 5}}":                      "/csi/driver/nodeAllocatableUpdatePeriodSeconds",
		"csi: {controller: {replicas: 0}}":                                            "/csi/controller/replicas",
		"csi: {controller: {extraArgs: [adopt-half-made]}}":                           "/csi/controller/extraArgs/0",
		"csi: {controller: {tolerations: [{key: a, effect: never}]}}":                 "/csi/controller/tolerations/0/effect",
		"csi: {controller: {resources: {requests: {memory: lots}}}}":                  "/csi/controller/resources/requests/memory",
		"csi: {storageClasses: [{name: Fast}]}":                                       "/csi/storageClasses/0/name",
		"csi: {storageClasses: [{name: a, reclaimPolicy: Recycle}]}":                  "/csi/storageClasses/0/reclaimPolicy",
		"csi: {storageClasses: [{name: a, parameters: {tier: 1}}]}":                   "/csi/storageClasses/0/parameters/tier",
		"csi: {image: {repository: example.com/csi-driver:v1}}":                       "/csi/image/repository",
		"csi: {image: {digest: abc}}":                                                 "/csi/image/digest",
		"global: {imageRegistry: 'https://mirror.example'}":                           "/global/imageRegistry",
		"credentials: {secretName: ''}":                                               "/credentials/secretName",
		"credentials: {token: ucat_x}":                                                "token",
		"ccm: {logLevel: debug}":                                                      "/ccm/logLevel",
		"ccm: {routes: {clusterCIDR: everything}}":                                    "/ccm/routes/clusterCIDR",
		"doctor: {schedules: {storage: hourly}}":                                      "/doctor/schedules/storage",
		"snapshotController: {replica: 1}":                                            "replica",
		"monitoring: {interval: often}":                                               "/monitoring/interval",
		"ccm: {routes: {enabled: true}}":                                              "ccm.routes.clusterCIDR is empty; set it to the Pod network",
		"ccm: {config: {apiCredentials: {token: x}}}":                                 "put the credentials into the Secret",
		"ccm: {config: {clusterID: x}, existingConfigMap: mine}":                      "ccm.config and ccm.existingConfigMap are both set; move",
		"csi: {storageClasses: [{name: a}, {name: a}]}":                               "two classes named a; rename one",
		"csi: {storageClasses: [{name: a, default: true}, {name: b, default: true}]}": "more than one default class: a, b; leave",
		"csi: {enabled: false}\nccm: {enabled: false}":                                "nothing is enabled; set at least one",
	} {
		if _, err := chart.Render(chart.Options{Project: top, Values: values}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", values, err, want)
		}
	}
}

// helm lint has nothing to say.
func TestLint(t *testing.T) {
	for name, text := range valuesFiles(t) {
		var values map[string]any
		if err := yaml.Unmarshal([]byte(text), &values); err != nil {
			t.Fatal(err)
		}
		linter := lint.RunAll(chart.Dir(top), values, "storage")
		for _, message := range linter.Messages {
			if message.Severity > support.InfoSev {
				t.Errorf("%s: %v", name, message)
			}
		}
	}
}

func TestKubernetesVersions(t *testing.T) {
	loaded, err := chart.Load(top)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]bool{"v1.30.14": false, "v1.31.0": true, "v1.32.4+k3s1": true, "v1.36.3-gke.1": true, "v1.37.2": true} {
		if got := chartutil.IsCompatibleRange(loaded.Metadata.KubeVersion, version); got != want {
			t.Errorf("%s: %t", version, got)
		}
	}
	for version, want := range map[string]bool{"v1.32.4": false, "v1.32.4+k3s1": false, "v1.33.0": true, "v1.33.0-rc.1": true, "v1.36.3": true} {
		spec := render(t, chart.Options{Kubernetes: version})["CSIDriver /storage.csi.upcloud.com"].Object["spec"].(map[string]any)
		if _, got := spec["nodeAllocatableUpdatePeriodSeconds"]; got != want {
			t.Errorf("%s has the field: %t", version, got)
		}
	}
}

// There is a snapshot class where Kubernetes takes one, and the sidecar with it.
func TestSnapshotsAreThereWhereTheirKindsAre(t *testing.T) {
	kinds := []string{"snapshot.storage.k8s.io/v1/VolumeSnapshotClass"}
	for name, c := range map[string]struct {
		values string
		apis   []string
		want   bool
	}{
		"no kinds":              {"", nil, false},
		"kinds":                 {"", kinds, true},
		"kinds of this chart":   {"snapshotController: {enabled: true}", nil, true},
		"said so":               {"csi: {snapshots: enabled}", nil, true},
		"not wanted":            {"csi: {snapshots: disabled}", kinds, false},
		"not wanted, but kinds": {"csi: {snapshots: disabled}\nsnapshotController: {enabled: true}", nil, false},
	} {
		all := render(t, chart.Options{Values: c.values, APIs: c.apis})
		_, class := all["VolumeSnapshotClass /upcloud-block-storage"]
		images, err := manifests.Images(rendered(t, chart.Options{Values: c.values, APIs: c.apis}))
		if err != nil {
			t.Fatal(err)
		}
		sidecar := slices.ContainsFunc(images, func(image string) bool { return strings.Contains(image, "csi-snapshotter") })
		if class != c.want || sidecar != c.want {
			t.Errorf("%s: class %t, sidecar %t", name, class, sidecar)
		}
	}
}

func rendered(t *testing.T, options chart.Options) chart.Rendered {
	t.Helper()
	options.Project = top
	made, err := chart.Render(options)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// With a mirror no image comes from elsewhere, whatever is switched on.
func TestEveryImageComesFromTheMirror(t *testing.T) {
	images, err := manifests.Images(rendered(t, chart.Options{Values: everything + "global: {imageRegistry: mirror.example/a/}\n"}))
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != 9 {
		t.Errorf("images are %q", images)
	}
	for _, image := range images {
		if !strings.HasPrefix(image, "mirror.example/a/") || strings.Contains(image, "registry.k8s.io") {
			t.Errorf("%s is not the mirror's", image)
		}
	}
	if !slices.Contains(images, "mirror.example/a/sig-storage/csi-attacher:v4.12.0") {
		t.Errorf("no attacher in %q", images)
	}
}

// Every workload stays off nodes without Linux, and nothing but what belongs there is in kube-system.
func TestEveryWorkloadAndNamespace(t *testing.T) {
	workloads := 0
	for key, object := range render(t, chart.Options{Values: everything + "ccm: {podMembers: true, readNamespaceLabels: true}\n", Namespace: "storage"}) {
		for _, path := range [][]string{{"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}} {
			pod, found, _ := unstructured.NestedMap(object.Object, path...)
			if !found {
				continue
			}
			workloads++
			if system, _, _ := unstructured.NestedString(pod, "nodeSelector", "kubernetes.io/os"); system != "linux" {
				t.Errorf("%s runs on nodes with %q", key, system)
			}
		}
		inSystem := slices.Contains([]string{"RoleBinding kube-system/upcloud-ccm-authentication-reader", "Role kube-system/upcloud-doctor",
			"RoleBinding kube-system/upcloud-doctor"}, key)
		if object.GetNamespace() == "kube-system" && !inSystem {
			t.Errorf("%s is in kube-system", key)
		}
		subjects, _, _ := unstructured.NestedSlice(object.Object, "subjects")
		for _, subject := range subjects {
			if namespace := subject.(map[string]any)["namespace"]; namespace != "storage" {
				t.Errorf("%s is for an account in %s", key, namespace)
			}
		}
	}
	if workloads != 6 {
		t.Errorf("there are %d workloads", workloads)
	}
}

// cluster answers lookup.
type cluster struct{ objects map[string]map[string]any }

func (c cluster) GetClientFor(_, kind string) (dynamic.NamespaceableResourceInterface, bool, error) {
	return resource{cluster: c, prefix: kind + " "}, kind != "Namespace", nil
}

type resource struct {
	dynamic.NamespaceableResourceInterface
	cluster cluster
	prefix  string
}

func (r resource) Namespace(namespace string) dynamic.ResourceInterface {
	return resource{cluster: r.cluster, prefix: r.prefix + namespace + "/"}
}

func (r resource) Get(_ context.Context, name string, _ metav1.GetOptions, _ ...string) (*unstructured.Unstructured, error) {
	if object := r.cluster.objects[r.prefix+name]; object != nil {
		return &unstructured.Unstructured{Object: object}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{}, name)
}

// What is missing in the cluster is said before anything is installed, with the remedy.
func TestWhatTheClusterLacksIsSaid(t *testing.T) {
	system := map[string]map[string]any{"Namespace kube-system": {"kind": "Namespace"}}
	with := func(data map[string]any) map[string]map[string]any {
		return map[string]map[string]any{"Namespace kube-system": system["Namespace kube-system"], "Secret storage/upcloud": {"data": data}}
	}
	token := map[string]any{"token": "eA=="}
	for name, c := range map[string]struct {
		values  string
		objects map[string]map[string]any
		want    string
	}{
		"no Secret": {"", system, "Secret storage/upcloud with the credentials of UpCloud does not exist; create it with: " +
			"kubectl -n storage create secret generic upcloud --from-literal=token=ucat_..."},
		"wrong Secret":    {"", with(map[string]any{"password": "eA=="}), "has neither the key token nor the keys username and password; delete it"},
		"a Secret":        {"", with(token), ""},
		"a user":          {"", with(map[string]any{"username": "eA==", "password": "eA=="}), ""},
		"a Secret later":  {"credentials: {check: false}", system, ""},
		"no program":      {ccmOff + "admission: {enabled: true}", system, ""},
		"no Prometheus":   {"monitoring: {enabled: true}", with(token), "no kind PodMonitor (monitoring.coreos.com/v1); install the Prometheus operator first"},
		"no snapshots":    {"csi: {snapshots: enabled}", with(token), "no kind VolumeSnapshotClass (snapshot.storage.k8s.io/v1); set snapshotController.enabled=true"},
		"their own kinds": {"csi: {snapshots: enabled}\nsnapshotController: {enabled: true}", with(token), ""},
	} {
		_, err := chart.Render(chart.Options{Project: top, Values: c.values, Namespace: "storage", Client: cluster{objects: c.objects}})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
	}
}
