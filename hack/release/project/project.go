// Package project reads what the work tree says of a release: its version, in every place that names one, the packages and the
// programs of its images, and the commit.
package project

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/changelog"
)

// ImagePrefix is how manifests of the work tree name the project's images; a release puts its registry in the place of it.
const ImagePrefix = "cloud-provider-upcloud/"

// Programs are those that a release has, each as a binary and as an image.
var Programs = []string{"ccm", "csi-driver", "upcloud-doctor", "upcloud-sim"}

// Tree is the project's work tree.
type Tree struct{ Dir string }

// version is one with its v: a release, or one before it.
var version = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-(alpha|beta|rc)\.(0|[1-9]\d*))?$`)

// image is an image of the project in a manifest.
var image = regexp.MustCompile(`(image: *"?)` + ImagePrefix + `([a-z-]+)(:([A-Za-z0-9._-]+))?`)

// chartField is a line of a Chart.yaml that has the chart's version or that of what it installs.
var chartField = regexp.MustCompile(`(?m)^(version|appVersion): *"?([^"\s#]+)"?`)

// CheckVersion says whether a version is of the form that releases have.
func CheckVersion(v string) error {
	if !version.MatchString(v) {
		return fmt.Errorf("VERSION is %q, which is no version of a release: give one such as v1.2.3 or v1.2.3-rc.1", v)
	}
	return nil
}

// Check says what keeps the tree from being released as a version; every problem is a line of the error. Changes that are not released
// yet may stand for the version's in the changelog if unreleased says so.
func (t Tree) Check(ctx context.Context, v string, unreleased bool) error {
	if err := CheckVersion(v); err != nil {
		return err
	}
	return errors.Join(t.checkClean(ctx), t.checkTag(ctx, v), t.checkManifests(v), t.checkCharts(v), t.checkChangelog(v, unreleased))
}

func (t Tree) checkClean(ctx context.Context) error {
	status, err := t.git(ctx, "status", "--porcelain")
	if err != nil {
		return err
	}
	if status == "" {
		return nil
	}
	lines := strings.Split(status, "\n")
	return fmt.Errorf("the work tree has %d changes that are not committed, the first is %q: commit them or take them back", len(lines),
		strings.TrimSpace(lines[0]))
}

func (t Tree) checkTag(ctx context.Context, v string) error {
	tagged, err := t.git(ctx, "rev-parse", "--verify", "--quiet", v+"^{commit}")
	if err != nil {
		return nil //nolint:nilerr // no such tag yet
	}
	head, err := t.git(ctx, "rev-parse", "HEAD")
	if err != nil || head == tagged {
		return err
	}
	return fmt.Errorf("the tag %s is at commit %.12s, and the work tree at %.12s: check out the tag, or take the next version", v, tagged, head)
}

func (t Tree) checkManifests(v string) error {
	var problems []error
	seen := 0
	err := t.eachManifest(func(name string, content []byte) error {
		for n, line := range strings.Split(string(content), "\n") {
			match := image.FindStringSubmatch(line)
			if match == nil {
				continue
			}
			seen++
			if match[4] != v {
				problems = append(problems, fmt.Errorf("%s:%d: the image is %s, and the release %s (make prepare-release VERSION=%s changes it)",
					name, n+1, strings.TrimSpace(strings.TrimPrefix(match[0], match[1])), v, v))
			}
		}
		return nil
	})
	if err == nil && seen == 0 {
		err = fmt.Errorf("no manifest in deploy has an image %sNAME", ImagePrefix)
	}
	return errors.Join(append(problems, err)...)
}

func (t Tree) checkCharts(v string) error {
	charts, err := t.charts()
	if err != nil {
		return err
	}
	var problems []error
	for _, name := range charts {
		content, err := os.ReadFile(filepath.Join(t.Dir, name))
		if err != nil {
			return err
		}
		found := chartField.FindAllStringSubmatch(string(content), -1)
		if len(found) != 2 {
			problems = append(problems, fmt.Errorf("%s: it has not one version and one appVersion", name))
		}
		for _, match := range found {
			if strings.TrimPrefix(match[2], "v") != strings.TrimPrefix(v, "v") {
				problems = append(problems, fmt.Errorf("%s: %s is %s, and the release %s (make prepare-release VERSION=%s changes it)", name,
					match[1], match[2], v, v))
			}
		}
	}
	return errors.Join(problems...)
}

func (t Tree) checkChangelog(v string, unreleased bool) error {
	_, err := t.Notes(v, unreleased)
	return err
}

// Notes is what the changelog says of a version.
func (t Tree) Notes(v string, unreleased bool) (changelog.Section, error) {
	const name = "CHANGELOG.md"
	content, err := os.ReadFile(filepath.Join(t.Dir, name))
	if err != nil {
		return changelog.Section{}, err
	}
	sections, err := changelog.Parse(string(content))
	if err != nil {
		return changelog.Section{}, fmt.Errorf("%s: %w", name, err)
	}
	next, hasNext := changelog.Find(sections, changelog.Unreleased)
	hasNext = hasNext && !next.Empty()
	section, found := changelog.Find(sections, strings.TrimPrefix(v, "v"))
	switch {
	case !found && unreleased && hasNext:
		return next, nil
	case !found:
		return section, fmt.Errorf("%s has no section ## [%s] - DATE: make prepare-release VERSION=%s makes one of what is below [%s] "+
			"(DRY_RUN=1 tries a release without it)", name, strings.TrimPrefix(v, "v"), v, changelog.Unreleased)
	case section.Empty():
		return section, fmt.Errorf("%s:%d: the section tells of no change", name, section.Line)
	case hasNext && !unreleased:
		return section, fmt.Errorf("%s:%d: [%s] has changes that %s would have, and not name: move them below [%s]", name, next.Line,
			changelog.Unreleased, v, section.Version)
	}
	return section, nil
}

// Prepare writes a version into every place that names one: manifests, charts, changelog. The answer names the files that it changed.
func (t Tree) Prepare(v, date string) (changed []string, err error) {
	if err := CheckVersion(v); err != nil {
		return nil, err
	}
	write := func(name string, old, content []byte) error {
		if bytes.Equal(old, content) {
			return nil
		}
		changed = append(changed, name)
		return os.WriteFile(filepath.Join(t.Dir, name), content, 0o644)
	}
	old, err := os.ReadFile(filepath.Join(t.Dir, "CHANGELOG.md"))
	if err != nil {
		return nil, err
	}
	content, err := changelog.Release(string(old), strings.TrimPrefix(v, "v"), date)
	if err != nil {
		return nil, fmt.Errorf("CHANGELOG.md: %w", err)
	}
	if err := write("CHANGELOG.md", old, []byte(content)); err != nil {
		return changed, err
	}
	err = t.eachManifest(func(name string, old []byte) error {
		return write(name, old, image.ReplaceAll(old, []byte("${1}"+ImagePrefix+"${2}:"+v)))
	})
	charts, chartsErr := t.charts()
	for _, name := range charts {
		old, err := os.ReadFile(filepath.Join(t.Dir, name))
		if err != nil {
			return changed, err
		}
		new := chartField.ReplaceAllFunc(old, func(line []byte) []byte {
			match := chartField.FindSubmatch(line)
			set := strings.TrimPrefix(v, "v")
			if bytes.HasPrefix(match[2], []byte("v")) {
				set = v
			}
			return bytes.Replace(line, match[2], []byte(set), 1)
		})
		if err := write(name, old, new); err != nil {
			return changed, err
		}
	}
	return changed, errors.Join(err, chartsErr)
}

// eachManifest calls f for every YAML file in deploy.
func (t Tree) eachManifest(f func(name string, content []byte) error) error {
	return filepath.WalkDir(filepath.Join(t.Dir, "deploy"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(t.Dir, path)
		if err != nil {
			return err
		}
		return f(name, content)
	})
}

// charts are the Chart.yaml files, none where there is no chart. Charts within a chart have versions of their own.
func (t Tree) charts() (names []string, err error) {
	err = t.eachManifest(func(name string, _ []byte) error {
		if filepath.Base(name) == "Chart.yaml" && !strings.Contains(name, "/charts/") {
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// Commit is the one checked out, and its time.
func (t Tree) Commit(ctx context.Context) (hash string, when time.Time, err error) {
	out, err := t.git(ctx, "log", "-1", "--format=%H %ct")
	if err != nil {
		return "", when, err
	}
	hash, seconds, _ := strings.Cut(out, " ")
	n, err := strconv.ParseInt(seconds, 10, 64)
	return hash, time.Unix(n, 0).UTC(), err
}

func (t Tree) git(ctx context.Context, arguments ...string) (string, error) {
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", t.Dir}, arguments...)...)
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(problems.String()))
	}
	return strings.TrimRight(out.String(), "\n"), nil
}

// Target is what the Dockerfile says of an image.
type Target struct {
	// Packages are Debian's that the image has.
	Packages   []string
	Entrypoint []string
	// User is the one that the program runs as, "" for root.
	User string
}

// dockerfileLine is one that Dockerfile reads: its instruction and the rest.
var dockerfileLine = regexp.MustCompile(`(?m)^(FROM|ENTRYPOINT|USER|ARG) +(.*)$`)

// Dockerfile reads the targets of the project's Dockerfile and the suite of Debian that they are made of, so that both ways to make
// an image make the same one.
func (t Tree) Dockerfile() (targets map[string]Target, suite string, err error) {
	content, err := os.ReadFile(filepath.Join(t.Dir, "Dockerfile"))
	if err != nil {
		return nil, "", err
	}
	targets = map[string]Target{}
	name := ""
	for _, match := range dockerfileLine.FindAllStringSubmatch(string(content), -1) {
		target := targets[name]
		key, value, _ := strings.Cut(match[2], "=")
		switch {
		case match[1] == "FROM":
			if _, as, ok := strings.Cut(match[2], " AS "); ok {
				name, target = strings.TrimSpace(as), Target{}
			}
		case match[1] == "ENTRYPOINT":
			if err := json.Unmarshal([]byte(match[2]), &target.Entrypoint); err != nil {
				return nil, "", fmt.Errorf("Dockerfile: ENTRYPOINT %s: %w", match[2], err)
			}
		case match[1] == "USER":
			target.User = match[2]
		case key == "DEBIAN":
			suite = value
		case strings.HasSuffix(key, "_PACKAGES"):
			target.Packages = strings.Fields(strings.Trim(value, `"`))
		}
		if name != "" {
			targets[name] = target
		}
	}
	for _, program := range Programs {
		if !slices.Equal(targets[program].Entrypoint, []string{"/" + program}) {
			return nil, "", fmt.Errorf("Dockerfile: the target %s has no ENTRYPOINT [\"/%s\"]", program, program)
		}
	}
	if suite == "" {
		return nil, "", errors.New("Dockerfile: it has no line ARG DEBIAN=SUITE")
	}
	return targets, suite, nil
}

// toolchain is the line of go.mod that names the Go that releases are built with.
var toolchain = regexp.MustCompile(`(?m)^toolchain (go\S+)$`)

// Toolchain is the Go that releases are built with.
func (t Tree) Toolchain() (string, error) {
	content, err := os.ReadFile(filepath.Join(t.Dir, "go.mod"))
	if err != nil {
		return "", err
	}
	match := toolchain.FindSubmatch(content)
	if match == nil {
		return "", errors.New("go.mod: it has no line toolchain goVERSION")
	}
	return string(match[1]), nil
}
