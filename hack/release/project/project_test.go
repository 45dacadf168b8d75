package project

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const chart = "apiVersion: v2\nname: x\nversion: 0.1.0\nappVersion: \"v0.1.0\" # what it installs\nkubeVersion: \">=1.31.0-0\"\n"

// tree is a work tree that can be released as v0.1.0, but for the files that a test changes.
func tree(t *testing.T, files map[string]string) Tree {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{
		"CHANGELOG.md":                  "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-05-01\n\n- a thing\n",
		"deploy/kubernetes/a/ccm.yaml":  "containers:\n  - image: cloud-provider-upcloud/ccm:v0.1.0\n  - image: registry.k8s.io/x:v9\n",
		"deploy/kubernetes/b/node.yaml": "containers:\n  - {name: a}\n  - image: \"cloud-provider-upcloud/csi-driver:v0.1.0\"\n",
		"deploy/helm/x/Chart.yaml":      chart, "deploy/helm/x/charts/y/Chart.yaml": "version: 8.6.0\nappVersion: v8.6.0\n",
	}
	for name, content := range files {
		all[name] = content
	}
	for name, content := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git(t, dir, "init", "-q")
	commit(t, dir)
	return Tree{Dir: dir}
}

func git(t *testing.T, dir string, arguments ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@example.com"}, arguments...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v: %s", arguments, err, out)
	}
}

func commit(t *testing.T, dir string) {
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "x")
}

func TestATreeThatCanBeReleased(t *testing.T) {
	tr := tree(t, nil)
	if err := tr.Check(t.Context(), "v0.1.0", false); err != nil {
		t.Error(err)
	}
	git(t, tr.Dir, "tag", "v0.1.0")
	if err := tr.Check(t.Context(), "v0.1.0", false); err != nil {
		t.Errorf("with its tag: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		version string
		files   map[string]string
		after   func(t *testing.T, dir string)
		dry     bool
		want    []string
		lines   int // of the error, 1 by default
	}{
		"no version":     {version: "0.1.0", want: []string{`VERSION is "0.1.0"`, "such as v1.2.3"}},
		"version's form": {version: "v0.01.0", want: []string{"no version of a release"}},
		"another version": {version: "v0.2.0", want: []string{
			"a/ccm.yaml:2: the image is cloud-provider-upcloud/ccm:v0.1.0, and the release v0.2.0 (make prepare-release VERSION=v0.2.0",
			"b/node.yaml:3: the image is cloud-provider-upcloud/csi-driver:v0.1.0",
			"x/Chart.yaml: version is 0.1.0", "x/Chart.yaml: appVersion is v0.1.0", "CHANGELOG.md has no section ## [0.2.0] - DATE",
		}, lines: 5},
		"no tag in a manifest": {version: "v0.1.0", files: map[string]string{"deploy/c.yaml": "- image: cloud-provider-upcloud/upcloud-doctor\n"},
			want: []string{"deploy/c.yaml:1: the image is cloud-provider-upcloud/upcloud-doctor, and"}},
		"chart without appVersion": {version: "v0.1.0", files: map[string]string{"deploy/helm/x/Chart.yaml": "version: 0.1.0\n"},
			want: []string{"x/Chart.yaml: it has not one version and one appVersion"}},
		"not committed": {version: "v0.1.0", after: func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, want: []string{`1 changes that are not committed, the first is "?? new"`}},
		"tag elsewhere": {version: "v0.1.0", after: func(t *testing.T, dir string) {
			git(t, dir, "tag", "-a", "-m", "x", "v0.1.0")
			git(t, dir, "commit", "-q", "--allow-empty", "-m", "y")
		}, want: []string{"the tag v0.1.0 is at commit", "check out the tag"}},
		"section without changes": {version: "v0.1.0", files: map[string]string{"CHANGELOG.md": "## [0.1.0] - 2026-05-01\n\n### Added\n"},
			want: []string{"CHANGELOG.md:1: the section tells of no change"}},
		"changes that are not in the section": {version: "v0.1.0",
			files: map[string]string{"CHANGELOG.md": "## [Unreleased]\n\n- b\n\n## [0.1.0] - 2026-05-01\n\n- a\n"},
			want:  []string{"CHANGELOG.md:1: [Unreleased] has changes that v0.1.0 would have"}},
		"heading's form": {version: "v0.1.0", files: map[string]string{"CHANGELOG.md": "## 0.1.0\n\n- a\n"}, want: []string{"CHANGELOG.md: line 1"}},
		"nothing to try": {version: "v0.1.0", dry: true, files: map[string]string{"CHANGELOG.md": "## [Unreleased]\n"},
			want: []string{"no section ## [0.1.0]"}},
	} {
		t.Run(name, func(t *testing.T) {
			tr := tree(t, test.files)
			if test.after != nil {
				test.after(t, tr.Dir)
			}
			err := tr.Check(t.Context(), test.version, test.dry)
			if err == nil {
				t.Fatal("it is not refused")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("want an error with %q, got %v", want, err)
				}
			}
			if lines := strings.Count(err.Error(), "\n") + 1; lines != max(1, test.lines) {
				t.Errorf("other problems, too: %v", err)
			}
		})
	}
}

func TestWhatIsNotReleasedMayBeTried(t *testing.T) {
	tr := tree(t, map[string]string{"CHANGELOG.md": "## [Unreleased]\n\n- b\n"})
	if err := tr.Check(t.Context(), "v0.1.0", true); err != nil {
		t.Error(err)
	}
	if got, err := tr.Notes("v0.1.0", true); err != nil || got.Text != "- b" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := tr.Check(t.Context(), "v0.1.0", false); err == nil {
		t.Error("it is released, too")
	}
}

func TestPrepareMakesATreeThatCanBeReleased(t *testing.T) {
	tr := tree(t, map[string]string{"CHANGELOG.md": "## [Unreleased]\n\n- b\n\n## [0.1.0] - 2026-05-01\n\n- a\n"})
	changed, err := tr.Prepare("v0.2.0-rc.1", "2026-06-01")
	want := []string{"CHANGELOG.md", "deploy/kubernetes/a/ccm.yaml", "deploy/kubernetes/b/node.yaml", "deploy/helm/x/Chart.yaml"}
	if err != nil || !slices.Equal(changed, want) {
		t.Fatalf("changed %v, %v", changed, err)
	}
	commit(t, tr.Dir)
	if err := tr.Check(t.Context(), "v0.2.0-rc.1", false); err != nil {
		t.Error(err)
	}
	content, err := os.ReadFile(filepath.Join(tr.Dir, "deploy/helm/x/Chart.yaml"))
	if want := strings.NewReplacer("version: 0.1.0", "version: 0.2.0-rc.1", "v0.1.0", "v0.2.0-rc.1").Replace(chart); err != nil || string(content) != want {
		t.Errorf("%v\n%s", err, content)
	}
	if changed, err := tr.Prepare("v0.2.0-rc.1", "2026-06-01"); err != nil || len(changed) > 0 {
		t.Errorf("a second time changes %v, %v", changed, err)
	}
	if _, err := tr.Prepare("0.3", "2026-06-01"); err == nil {
		t.Error("it takes 0.3 for a version")
	}
}

func TestTheProjectsOwnFilesAreRead(t *testing.T) {
	tr := Tree{Dir: "../../.."}
	targets, suite, err := tr.Dockerfile()
	if err != nil || suite == "" {
		t.Fatalf("%q, %v", suite, err)
	}
	if !slices.Contains(targets["csi-driver"].Packages, "xfsprogs") || targets["csi-driver"].User != "" ||
		!slices.Contains(targets["upcloud-sim"].Packages, "haproxy") || targets["ccm"].User != "65534:65534" || len(targets["ccm"].Packages) != 0 {
		t.Errorf("%+v", targets)
	}
	if version, err := tr.Toolchain(); err != nil || !strings.HasPrefix(version, "go1.") {
		t.Errorf("%q, %v", version, err)
	}
	// Whatever version it is: manifests and charts name the same one.
	content, err := os.ReadFile(filepath.Join(tr.Dir, "deploy/kubernetes/base/ccm/deployment.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	match := image.FindSubmatch(content)
	if match == nil {
		t.Fatalf("no image of the project in the ccm's manifest")
	}
	version := string(match[4])
	if err := tr.checkManifests(version); err != nil {
		t.Error(err)
	}
	if err := tr.checkCharts(version); err != nil {
		t.Error(err)
	}
}
