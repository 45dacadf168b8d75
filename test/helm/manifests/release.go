package manifests

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/chart"
)

// Names of the files of a release.
const (
	Single             = "upcloud.yaml"
	SnapshotController = "upcloud-snapshot-controller.yaml"
	SnapshotClass      = "upcloud-snapshot-class.yaml"
)

// Release are the single files that `kubectl apply -f` takes: everything of deploy/kubernetes/base, of snapshot-controller and of
// snapshot-class, by the files' names. Images are named with a registry and a version, if these are given.
func Release(project, registry, version string) (map[string]string, error) {
	values := Base
	if registry != "" || version != "" {
		values = fmt.Sprintf("csi: {snapshots: enabled, image: {repository: %[1]s/csi-driver, tag: %[2]q}}\nccm: {image: {repository: %[1]s/ccm, tag: %[2]q}}\n",
			strings.TrimSuffix(or(registry, "cloud-provider-upcloud"), "/"), version)
	}
	rendered, err := chart.Render(chart.Options{Project: project, Values: values})
	if err != nil {
		return nil, err
	}
	const classTemplate = "templates/csi/volumesnapshotclass.yaml"
	class := chart.Rendered{classTemplate: rendered[classTemplate]}
	delete(rendered, classTemplate)
	const controllerOn = "csi: {enabled: false}\nccm: {enabled: false}\nsnapshotController: {enabled: true}\n"
	controller, err := chart.Render(chart.Options{Project: project, Values: controllerOn})
	if err != nil {
		return nil, err
	}
	crds, err := chart.CRDs(project, controllerOn)
	if err != nil {
		return nil, err
	}
	resources := ""
	for _, name := range slices.Sorted(maps.Keys(crds)) {
		resources += "---\n" + strings.TrimPrefix(crds[name], "---\n")
	}
	return map[string]string{
		Single: "# The CSI driver and the cloud controller manager. First the Secret:\n" +
			"#   kubectl -n kube-system create secret generic upcloud --from-literal=token=ucat_...\n" +
			chart.WithoutHelm(rendered.YAML()),
		SnapshotController: "# The snapshot custom resources and their controller, for clusters that have none.\n" +
			resources + chart.WithoutHelm(controller.YAML()),
		SnapshotClass: "# The VolumeSnapshotClass, for clusters with the snapshot custom resources.\n" + chart.WithoutHelm(class.YAML()),
	}, nil
}

// WriteRelease writes the single files into a folder.
func WriteRelease(project, registry, version, dir string) error {
	files, err := Release(project, registry, version)
	if err != nil {
		return err
	}
	return write(dir, files)
}

// Images are the names of all images of a rendering, sorted.
func Images(rendered chart.Rendered) ([]string, error) {
	objects, err := chart.Objects(rendered.YAML())
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, object := range objects {
		collectImages(object.Object, found)
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func collectImages(value any, found map[string]bool) {
	switch value := value.(type) {
	case []any:
		for _, each := range value {
			collectImages(each, found)
		}
	case map[string]any:
		for key, each := range value {
			if image, ok := each.(string); ok && key == "image" {
				found[image] = true
			}
			collectImages(each, found)
		}
	}
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
