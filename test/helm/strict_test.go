package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/chart"
)

// otherKinds are not in Kubernetes' own API.
var otherKinds = map[string]bool{"PodMonitor": true, "ServiceMonitor": true, "VolumeSnapshotClass": true, "CustomResourceDefinition": true}

// valuesFiles are the files of testdata/values: what users set.
func valuesFiles(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("testdata/values/*.yaml")
	if err != nil || len(paths) < 4 {
		t.Fatalf("%q: %v", paths, err)
	}
	values := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		values[strings.TrimSuffix(filepath.Base(path), ".yaml")] = string(text)
	}
	return values
}

// Kubernetes' own types know every field of every object, and what they take is not lost.
func TestKubernetesKnowsEveryField(t *testing.T) {
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	known := 0
	for name, values := range valuesFiles(t) {
		for _, version := range []string{"v1.31.0", "v1.36.3"} {
			for key, object := range render(t, chart.Options{Values: values, Kubernetes: version, Namespace: "storage"}) {
				if otherKinds[object.GetKind()] {
					continue
				}
				text, err := json.Marshal(object)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := strict.Decode(text, nil, nil); err != nil {
					t.Errorf("%s, %s: %s: %v", name, version, key, err)
				}
				known++
			}
		}
	}
	if known < 100 {
		t.Errorf("only %d objects were decoded", known)
	}
	wrong := []byte(`{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}, "automount": true}`)
	if _, _, err := strict.Decode(wrong, nil, nil); err == nil || !runtime.IsStrictDecodingError(err) {
		t.Errorf("an unknown field: %v", err)
	}
}
