package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/chart"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/manifests"
)

const top = "../.."

// What is checked in is what the chart makes.
func TestManifestsAndReadmeAreMadeFromTheChart(t *testing.T) {
	files, err := manifests.Files(top)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range files {
		got, err := os.ReadFile(filepath.Join(top, "deploy", "kubernetes", path))
		if err != nil {
			t.Error(err)
		} else if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("deploy/kubernetes/%s differs from the chart (run make manifests): -chart +file\n%s", path, diff)
		}
	}
	want, err := manifests.Readme(top)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(chart.Dir(top), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("the chart's README differs from values.yaml (run make manifests): -values +README\n%s", diff)
	}
}

func TestSingleFilesHaveEveryObjectOfTheirFolders(t *testing.T) {
	files, err := manifests.Release(top, "registry.example/upcloud/", "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	images := "images:\n- {name: cloud-provider-upcloud/csi-driver, newName: registry.example/upcloud/csi-driver, newTag: v1.2.3}\n" +
		"- {name: cloud-provider-upcloud/ccm, newName: registry.example/upcloud/ccm, newTag: v1.2.3}\n"
	for name, folder := range map[string]string{
		manifests.Single: "base", manifests.SnapshotController: "snapshot-controller", manifests.SnapshotClass: "snapshot-class",
	} {
		t.Run(name, func(t *testing.T) {
			same(t, kustomize(t, "resources: [DEPLOY/"+folder+"]\n"+images), objects(t, files[name]))
		})
	}
}

func objects(t *testing.T, text string) map[string]*unstructured.Unstructured {
	t.Helper()
	found, err := chart.Objects(text)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// same compares what two sets of objects mean.
func same(t *testing.T, kustomized, rendered map[string]*unstructured.Unstructured) {
	t.Helper()
	if len(kustomized) == 0 {
		t.Fatal("no objects")
	}
	for key, object := range kustomized {
		if rendered[key] == nil {
			t.Errorf("%s is made by kustomize alone", key)
		} else if diff := cmp.Diff(chart.Meaning(object), chart.Meaning(rendered[key])); diff != "" {
			t.Errorf("%s: -kustomize +chart\n%s", key, diff)
		}
	}
	for key := range rendered {
		if kustomized[key] == nil {
			t.Errorf("%s is made by the chart alone", key)
		}
	}
}

// render renders the chart and adds the custom resources.
func render(t *testing.T, options chart.Options) map[string]*unstructured.Unstructured {
	t.Helper()
	options.Project = top
	rendered, err := chart.Render(options)
	if err != nil {
		t.Fatal(err)
	}
	crds, err := chart.CRDs(top, options.Values)
	if err != nil {
		t.Fatal(err)
	}
	all := rendered.YAML()
	for _, crd := range crds {
		all += "\n---\n" + crd
	}
	return objects(t, all)
}
