// Package manifests makes the files of deploy/kubernetes, and the single files of a release, from the Helm chart.
package manifests

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/chart"
)

const header = "# Made from deploy/helm/cloud-provider-upcloud: change it there, then make manifests.\n"

// Base are the values of deploy/kubernetes/base. What kustomize adds later is not known here, so that all is there for snapshots.
const Base = "csi: {snapshots: enabled}\n"

// set is what one set of values makes: files of deploy/kubernetes by template.
type set struct {
	values string
	files  map[string]string
}

var sets = []set{
	{Base, map[string]string{
		"templates/csi/csidriver.yaml":           "base/csi-driver/csidriver.yaml",
		"templates/csi/controller-rbac.yaml":     "base/csi-driver/controller-rbac.yaml",
		"templates/csi/controller.yaml":          "base/csi-driver/controller.yaml",
		"templates/csi/node-rbac.yaml":           "base/csi-driver/node-rbac.yaml",
		"templates/csi/node.yaml":                "base/csi-driver/node.yaml",
		"templates/csi/pdb.yaml":                 "base/csi-driver/pdb.yaml",
		"templates/csi/storageclasses.yaml":      "base/csi-driver/storageclasses.yaml",
		"templates/csi/volumesnapshotclass.yaml": "snapshot-class/volumesnapshotclass.yaml",
		"templates/ccm/rbac.yaml":                "base/ccm/rbac.yaml",
		"templates/ccm/deployment.yaml":          "base/ccm/deployment.yaml",
		"templates/ccm/pdb.yaml":                 "base/ccm/pdb.yaml",
	}},
	{Base + "ccm: {podMembers: true, readNamespaceLabels: true}\n", map[string]string{
		"templates/ccm/pod-members-rbac.yaml": "ccm-pod-members/rbac.yaml",
		"templates/ccm/tenants-rbac.yaml":     "ccm-tenants/rbac.yaml",
	}},
	{"doctor: {enabled: true, fix: true}\n", map[string]string{
		"templates/doctor/rbac.yaml":                   "doctor/rbac.yaml",
		"templates/doctor/job.yaml":                    "doctor/job.yaml",
		"templates/doctor/job-load-balancers.yaml":     "doctor/job-load-balancers.yaml",
		"templates/doctor/fix-rbac.yaml":               "doctor-fix/rbac.yaml",
		"templates/doctor/cronjob-storage.yaml":        "doctor-fix/cronjob-storage.yaml",
		"templates/doctor/cronjob-load-balancers.yaml": "doctor-fix/cronjob-load-balancers.yaml",
	}},
	{"admission: {enabled: true}\n", map[string]string{
		"templates/admission/policy.yaml": "admission/policy.yaml",
	}},
	{"snapshotController: {enabled: true}\n", map[string]string{
		"charts/snapshotController/templates/rbac.yaml":       "snapshot-controller/rbac.yaml",
		"charts/snapshotController/templates/deployment.yaml": "snapshot-controller/deployment.yaml",
	}},
}

// Files are the files of deploy/kubernetes that are made from the chart, by their path there.
func Files(project string) (map[string]string, error) {
	files := map[string]string{}
	for _, set := range sets {
		rendered, err := chart.Render(chart.Options{Project: project, Values: set.values})
		if err != nil {
			return nil, err
		}
		for template, path := range set.files {
			if rendered[template] == "" {
				return nil, fmt.Errorf("the chart renders no %s with %q", template, set.values)
			}
			files[path] = chart.WithoutHelm(rendered[template])
			if !strings.HasPrefix(path, "admission/") { // has a header of its own
				files[path] = header + files[path]
			}
		}
	}
	crds, err := chart.CRDs(project, "snapshotController: {enabled: true}\n")
	if err != nil {
		return nil, err
	}
	for name, text := range crds {
		files["snapshot-controller/crds/"+name] = text
	}
	return files, nil
}

// Write writes the files of deploy/kubernetes, and the table of the chart's README.
func Write(project string) error {
	files, err := Files(project)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(project, "deploy", "kubernetes"), files); err != nil {
		return err
	}
	readme, err := Readme(project)
	if err != nil {
		return err
	}
	return write(chart.Dir(project), map[string]string{"README.md": readme})
}

func write(dir string, files map[string]string) error {
	for _, path := range slices.Sorted(maps.Keys(files)) {
		path, text := filepath.Join(dir, path), files[path]
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // for all to read
			return err
		}
	}
	return nil
}
