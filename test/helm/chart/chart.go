// Package chart renders the Helm chart as Helm does, without a cluster.
package chart

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

// Name is the chart's.
const Name = "cloud-provider-upcloud"

// Dir is the chart's folder in a project.
func Dir(project string) string { return filepath.Join(project, "deploy", "helm", Name) }

// Options say for what the chart is rendered. Every field but Project has a default.
type Options struct {
	Project   string // folder of the project
	Values    string // YAML, over the chart's own values
	Release   string
	Namespace string
	Revision  int
	// Kubernetes is the version of the cluster, and APIs what it has beside: "group/version/Kind".
	Kubernetes string
	APIs       []string
	// Client answers `lookup`. Without it every object looks missing, as for `helm template`.
	Client engine.ClientProvider
}

// Rendered is what the templates make: text by the template's path in the chart, such as templates/ccm/rbac.yaml.
type Rendered map[string]string

// Load reads the chart of a project.
func Load(project string) (*chart.Chart, error) {
	loaded, err := loader.Load(Dir(project))
	if err != nil {
		return nil, fmt.Errorf("load the chart: %w", err)
	}
	return loaded, nil
}

// Render renders the chart's templates.
func Render(options Options) (Rendered, error) {
	loaded, err := Load(options.Project)
	if err != nil {
		return nil, err
	}
	var values map[string]any
	if err := yaml.Unmarshal([]byte(options.Values), &values); err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	if values == nil {
		values = map[string]any{}
	}
	if err := chartutil.ProcessDependencies(loaded, values); err != nil {
		return nil, err
	}
	version, err := common.ParseKubeVersion(or(options.Kubernetes, "v1.36.0"))
	if err != nil {
		return nil, err
	}
	top, err := util.ToRenderValues(loaded, values, common.ReleaseOptions{
		Name: or(options.Release, "upcloud"), Namespace: or(options.Namespace, "kube-system"), Revision: max(options.Revision, 1), IsInstall: true,
	}, &common.Capabilities{KubeVersion: *version, APIVersions: options.APIs})
	if err != nil {
		return nil, err
	}
	var files map[string]string
	if options.Client != nil {
		files, err = engine.RenderWithClientProvider(loaded, top, options.Client)
	} else {
		files, err = engine.Render(loaded, top)
	}
	if err != nil {
		return nil, err
	}
	rendered := Rendered{}
	for name, text := range files {
		if strings.TrimSpace(text) != "" {
			rendered[strings.TrimPrefix(name, Name+"/")] = text
		}
	}
	return rendered, nil
}

// CRDs are the custom resources of the charts that the values switch on, which Helm applies before it renders.
func CRDs(project, values string) (map[string]string, error) {
	loaded, err := Load(project)
	if err != nil {
		return nil, err
	}
	var parsed map[string]any
	if err := yaml.Unmarshal([]byte(values), &parsed); err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	if err := chartutil.ProcessDependencies(loaded, parsed); err != nil {
		return nil, err
	}
	crds := map[string]string{}
	for _, crd := range loaded.CRDObjects() {
		crds[filepath.Base(crd.Name)] = string(crd.File.Data)
	}
	return crds, nil
}

// YAML is everything rendered but the notes, one document after the other, in the order of the templates' names. Accounts and their
// rights come first, so that no Pod waits for them.
func (r Rendered) YAML() string {
	names := slices.Sorted(maps.Keys(r))
	slices.SortStableFunc(names, func(a, b string) int {
		return boolean(strings.Contains(b, "rbac")) - boolean(strings.Contains(a, "rbac"))
	})
	var all strings.Builder
	for _, name := range names {
		if strings.HasSuffix(name, ".yaml") {
			all.WriteString("---\n# Source: " + name + "\n" + strings.TrimPrefix(strings.TrimSpace(r[name]), "---\n") + "\n")
		}
	}
	return all.String()
}

func boolean(is bool) int {
	if is {
		return 1
	}
	return 0
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
