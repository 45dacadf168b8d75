package install

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/kube"
	releasecommon "helm.sh/helm/v4/pkg/release/common"
	release "helm.sh/helm/v4/pkg/release/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/chart"
)

const releaseName = "upcloud"

// helm is Helm with the chart, in a namespace.
type helm struct {
	t         *testing.T
	namespace string
	version   string // of Kubernetes, as Helm is to see it; empty for the API server's own
}

// configuration is that of one run of Helm.
func (h helm) configuration() *action.Configuration {
	h.t.Helper()
	kubeconfig, cache := filepath.Join(h.t.TempDir(), "kubeconfig"), h.t.TempDir()
	if err := plane.Kubeconfig(kubeconfig, plane.Admin.BearerToken); err != nil {
		h.t.Fatal(err)
	}
	flags := genericclioptions.NewConfigFlags(true)
	flags.KubeConfig, flags.CacheDir, flags.Namespace = &kubeconfig, &cache, &h.namespace
	flags.WrapConfigFn = func(config *rest.Config) *rest.Config {
		config.QPS, config.Burst, config.WarningHandler = 1000, 2000, h
		return config
	}
	configuration := action.NewConfiguration()
	if err := configuration.Init(flags, h.namespace, "secret"); err != nil {
		h.t.Fatal(err)
	}
	if h.version != "" {
		version, err := common.ParseKubeVersion(h.version)
		if err != nil {
			h.t.Fatal(err)
		}
		configuration.Capabilities = common.DefaultCapabilities.Copy()
		configuration.Capabilities.KubeVersion = *version
	}
	return configuration
}

// HandleWarningHeader fails the test when the API server warns of an object, such as one of a deprecated kind.
func (h helm) HandleWarningHeader(_ int, _ string, text string) {
	h.t.Errorf("the API server warns Helm: %s", text)
}

func (h helm) values(text string) map[string]any {
	h.t.Helper()
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		h.t.Fatal(err)
	}
	return values
}

// install is helm install.
func (h helm) install(values string) (*release.Release, error) {
	h.t.Helper()
	loaded, err := chart.Load(top)
	if err != nil {
		h.t.Fatal(err)
	}
	install := action.NewInstall(h.configuration())
	install.ReleaseName, install.Namespace, install.WaitStrategy, install.Timeout = releaseName, h.namespace, kube.HookOnlyStrategy, patience
	made, err := install.RunWithContext(h.t.Context(), loaded, h.values(values))
	return h.check(made, err)
}

// upgrade is helm upgrade --reset-values.
func (h helm) upgrade(values string) (*release.Release, error) {
	h.t.Helper()
	loaded, err := chart.Load(top)
	if err != nil {
		h.t.Fatal(err)
	}
	upgrade := action.NewUpgrade(h.configuration())
	upgrade.Namespace, upgrade.WaitStrategy, upgrade.Timeout, upgrade.ResetValues = h.namespace, kube.HookOnlyStrategy, patience, true
	made, err := upgrade.RunWithContext(h.t.Context(), releaseName, loaded, h.values(values))
	return h.check(made, err)
}

func (h helm) check(made any, err error) (*release.Release, error) {
	h.t.Helper()
	if err != nil {
		return nil, err
	}
	done, ok := made.(*release.Release)
	if !ok || done.Info.Status != releasecommon.StatusDeployed {
		h.t.Fatalf("the release is %+v", made)
	}
	return done, nil
}

// uninstall is helm uninstall.
func (h helm) uninstall() {
	h.t.Helper()
	uninstall := action.NewUninstall(h.configuration())
	uninstall.WaitStrategy, uninstall.Timeout, uninstall.DeletionPropagation = kube.HookOnlyStrategy, patience, "background"
	if _, err := uninstall.Run(releaseName); err != nil {
		h.t.Fatal(err)
	}
}

// must is for what must succeed.
func (h helm) must(done *release.Release, err error) *release.Release {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	return done
}

// isThere fails the test unless the cluster has every object of a release.
func (h helm) isThere(made *release.Release) objects {
	h.t.Helper()
	wanted, err := chart.Objects(made.Manifest)
	if err != nil {
		h.t.Fatal(err)
	}
	if len(wanted) < 15 {
		h.t.Errorf("the release has only %d objects", len(wanted))
	}
	now := clusterObjects(h.t)
	for _, object := range wanted {
		if namespaced(object.GetKind()) && object.GetNamespace() == "" {
			object.SetNamespace(h.namespace)
		}
		if now[key(object)] == nil {
			h.t.Errorf("the cluster has no %s", key(object))
		}
	}
	return now
}

// namespaced says whether objects of a kind of the chart are in namespaces.
func namespaced(kind string) bool {
	return !slices.Contains([]string{"CSIDriver", "StorageClass", "VolumeSnapshotClass"}, kind) && !strings.HasPrefix(kind, "Cluster") &&
		!strings.HasPrefix(kind, "ValidatingAdmission")
}

// begin makes what people make before they install: the namespace, the Secret, and a volume from an earlier time. Both are there
// until the test ends.
func begin(t *testing.T, namespace, secret string) helm {
	t.Helper()
	needPlane(t)
	ctx := context.Background()
	_, err := client.CoreV1().Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if secret != "" {
		makeSecret(t, namespace, secret, "token")
	}
	volume := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pvc-of-a-claim"}, Spec: v1.PersistentVolumeSpec{
		Capacity: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
		PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete, StorageClassName: "upcloud-block-storage-maxiops",
		PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
			Driver: "storage.csi.upcloud.com", VolumeHandle: "01000000-0000-4000-8000-000000000001"}}}}
	if _, err := client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		patch := []byte(`{"metadata": {"finalizers": null}}`) // no controller of Kubernetes runs that would
		if _, err := client.CoreV1().PersistentVolumes().Patch(ctx, volume.Name, "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
			t.Error(err)
		}
		if err := client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return helm{t: t, namespace: namespace}
}

// makeSecret makes a Secret with a key, until the test ends.
func makeSecret(t *testing.T, namespace, name, key string) {
	t.Helper()
	secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{key: "ucat_x"}}
	if _, err := client.CoreV1().Secrets(namespace).Create(context.Background(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.CoreV1().Secrets(namespace).Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// valuesOf reads a file of values that users set.
func valuesOf(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "testdata", "values", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
