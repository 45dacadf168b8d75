package install

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/controlplane"
)

const (
	top = "../../.."
	// patience bounds every wait for a condition: many times what it takes, for machines that are slow or busy.
	patience = 2 * time.Minute
)

// What all tests share; plane is nil where there is no Kubernetes.
var (
	plane    *controlplane.ControlPlane
	client   kubernetes.Interface
	anything dynamic.Interface
)

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(controlplane.Variable) == "" {
		os.Exit(m.Run()) // every test says why it does not run
	}
	status, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func runAll(m *testing.M) (status int, err error) {
	dir, err := os.MkdirTemp("", "helm")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if plane, err = controlplane.Start(context.Background(), os.Getenv(controlplane.Variable), dir); err != nil {
		return 1, err
	}
	defer plane.Stop()
	if client, err = kubernetes.NewForConfig(plane.Admin); err != nil {
		return 1, err
	}
	quiet := rest.CopyConfig(plane.Admin)
	quiet.WarningHandler = rest.NoWarnings{} // that a kind is deprecated, of which all objects are listed
	if anything, err = dynamic.NewForConfig(quiet); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func needPlane(t *testing.T) {
	t.Helper()
	if plane == nil {
		t.Skipf("%s does not name a folder with etcd and kube-apiserver: make integration builds them and runs this", controlplane.Variable)
	}
}

// objects are all of the cluster, by "Kind namespace/name", but those that only the API server itself has written to.
type objects map[string]*unstructured.Unstructured

func clusterObjects(t *testing.T) objects {
	t.Helper()
	found := objects{}
	for _, resource := range resources(t) {
		list, err := anything.Resource(resource).List(t.Context(), metav1.ListOptions{})
		if apierrors.IsNotFound(err) {
			continue // a custom resource that has just gone
		} else if err != nil {
			t.Fatalf("list %s: %v", resource, err)
		}
		for _, object := range list.Items {
			if !apiServers(&object) {
				found[key(&object)] = &object
			}
		}
	}
	return found
}

// resources are those that can be listed, as the API server has them now.
func resources(t *testing.T) []schema.GroupVersionResource {
	t.Helper()
	lists, err := discovery.NewDiscoveryClientForConfigOrDie(plane.Admin).ServerPreferredResources()
	if err != nil {
		t.Fatal(err)
	}
	var all []schema.GroupVersionResource
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "get", "delete"}}, lists) {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			all = append(all, version.WithResource(resource.Name))
		}
	}
	return all
}

// apiServers says whether the API server made an object for itself, and nothing else has written to it.
func apiServers(object *unstructured.Unstructured) bool {
	fields := object.GetManagedFields()
	return len(fields) > 0 && !slices.ContainsFunc(fields, func(entry metav1.ManagedFieldsEntry) bool { return entry.Manager != "kube-apiserver" })
}

func key(object *unstructured.Unstructured) string {
	return fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName())
}

// texts are what the objects say, without what the API server notes of them: two that mean the same are equal.
func (o objects) texts(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for name, object := range o {
		object = object.DeepCopy()
		object.SetManagedFields(nil)
		object.SetResourceVersion("")
		delete(object.Object, "status")
		text, err := json.MarshalIndent(object.Object, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	return texts
}

// versions are the resource versions, but of what the API server writes to by itself: the status of custom resources' definitions.
func (o objects) versions() map[string]string {
	versions := map[string]string{}
	for name, object := range o.without("CustomResourceDefinition") {
		versions[name] = object.GetResourceVersion()
	}
	return versions
}

// without leaves out the objects of a kind.
func (o objects) without(kind string) objects {
	left := objects{}
	for name, object := range o {
		if object.GetKind() != kind {
			left[name] = object
		}
	}
	return left
}

// since are the names of the objects that were not there before, sorted.
func (o objects) since(before objects) []string {
	var added []string
	for name := range o {
		if before[name] == nil {
			added = append(added, name)
		}
	}
	slices.Sort(added)
	return added
}

// isAsBefore fails the test unless all that was in the cluster is there unchanged, and what is there beside is what may be.
func isAsBefore(t *testing.T, before objects, beside ...string) {
	t.Helper()
	now := clusterObjects(t)
	added := now.since(before)
	if diff := cmp.Diff(beside, added); diff != "" && len(beside)+len(added) > 0 {
		t.Errorf("beside what was there before: -want +got\n%s", diff)
	}
	for _, name := range added {
		delete(now, name)
	}
	if diff := cmp.Diff(before.texts(t), now.texts(t)); diff != "" {
		t.Errorf("what was there before has changed: -before +now\n%s", diff)
	}
}

// field is a value of an object that must be there.
func (o objects) field(t *testing.T, name string, path ...string) any {
	t.Helper()
	if o[name] == nil {
		t.Errorf("there is no %s", name)
		return nil
	}
	value, _, err := unstructured.NestedFieldNoCopy(o[name].Object, path...)
	if err != nil {
		t.Error(err)
	}
	return value
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %s still not: %s", patience, what)
		}
	}
}

// served says whether the API server serves a resource, such as volumesnapshots.
func served(t *testing.T, name string) bool {
	return slices.ContainsFunc(resources(t), func(resource schema.GroupVersionResource) bool { return resource.Resource == name })
}

// customResources are those of snapshots, which uninstalling the chart leaves.
var customResources = []string{
	"CustomResourceDefinition /volumesnapshotclasses.snapshot.storage.k8s.io",
	"CustomResourceDefinition /volumesnapshotcontents.snapshot.storage.k8s.io",
	"CustomResourceDefinition /volumesnapshots.snapshot.storage.k8s.io",
}

// removeCustomResources takes the definitions of custom resources out of the cluster.
func removeCustomResources(t *testing.T, names ...string) {
	t.Helper()
	definitions := anything.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for _, name := range names {
		name = strings.TrimPrefix(name, "CustomResourceDefinition /")
		if err := definitions.Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete the definition %s: %v", name, err)
			continue
		}
		plural, _, _ := strings.Cut(name, ".")
		eventually(t, name+" is gone", func() bool {
			_, err := definitions.Get(context.Background(), name, metav1.GetOptions{})
			return apierrors.IsNotFound(err) && !served(t, plural)
		})
	}
}

// makeMonitorKinds makes the kinds of the Prometheus operator, until the test ends.
func makeMonitorKinds(t *testing.T) {
	t.Helper()
	definitions := anything.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	for _, kind := range []string{"PodMonitor", "ServiceMonitor"} {
		plural := strings.ToLower(kind) + "s"
		definition := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
			"metadata": map[string]any{"name": plural + ".monitoring.coreos.com"},
			"spec": map[string]any{"group": "monitoring.coreos.com", "scope": "Namespaced",
				"names": map[string]any{"kind": kind, "plural": plural, "singular": strings.ToLower(kind)},
				"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{
					"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}}}
		if _, err := definitions.Create(t.Context(), definition, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeCustomResources(t, definition.GetName()) })
		eventually(t, kind+" is served", func() bool { return served(t, plural) })
	}
}
