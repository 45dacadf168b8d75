package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/image"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/project"
)

// smallProject is a work tree with the project's Dockerfile and manifests, and small programs in the place of its own: what they
// are laid upon is real.
func smallProject(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "deploy"), os.DirFS("../../deploy")); err != nil {
		t.Fatal(err)
	}
	dockerfile, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"Dockerfile": string(dockerfile), "go.mod": "module example.com/small\n\ngo 1.26.0\n\ntoolchain go1.26.10\n",
		"CHANGELOG.md": "## [Unreleased]\n\n## [0.1.0] - 2026-05-01\n\n### Added\n\n- a thing\n",
	}
	for _, each := range project.Programs {
		files["cmd/"+each+"/main.go"] = "package main\n\nvar version string\n\nfunc main() { println(version) }\n"
	}
	for file, content := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := (project.Tree{Dir: dir}).Prepare("v0.1.0", "2026-05-01"); err != nil {
		t.Fatal(err)
	}
	for _, arguments := range [][]string{{"init", "-q"}, {"add", "."}, {"commit", "-q", "-m", "x"}} {
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@example.com"}, arguments...)...)
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2026-05-01T00:00:00Z", "GIT_AUTHOR_DATE=2026-05-01T00:00:00Z")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", arguments, err, out)
		}
	}
	return dir
}

// execute runs a command as make does.
func execute(t *testing.T, command string, arguments ...string) error {
	t.Helper()
	return run(t.Context(), append([]string{command}, arguments...))
}

func TestRelease(t *testing.T) {
	for _, each := range []string{"apt-get", "dpkg-deb", "git"} {
		if _, err := exec.LookPath(each); err != nil {
			t.Skipf("no %s here, which a release is made with", each)
		}
	}
	const host = "registry.test/up"
	// Two work trees in two folders: nothing of where they lie may be in a release.
	one, other := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "other")
	flags := []string{"--version", "v0.1.0", "--registry", host, "--toolchain", "local"}
	if err := execute(t, "build", append(flags, "--project", smallProject(t), "--output", one)...); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(one, "debian-packages.lock")
	if err := execute(t, "build", append(flags, "--project", smallProject(t), "--output", other, "--lock", lock)...); err != nil {
		t.Fatal(err)
	}
	if err := compare(one, other); err != nil {
		t.Error(err)
	}
	if os.Geteuid() != 0 {
		t.Log("not root: the programs of the images are looked at, not run")
	}
	if err := execute(t, "verify", "--output", one); err != nil {
		t.Error(err)
	}
	t.Run("files", func(t *testing.T) { testFiles(t, one, host) })
	t.Run("images", func(t *testing.T) { testImages(t, one) })
	t.Run("faults", func(t *testing.T) { testFaults(t, other) })
}

func testFiles(t *testing.T, dir, host string) {
	read := func(file string) string {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Error(err)
		}
		return string(content)
	}
	if got := read("upcloud.yaml"); !strings.Contains(got, "image: "+host+"/csi-driver:v0.1.0\n") || !strings.Contains(got, "image: "+host+"/ccm:v0.1.0\n") {
		t.Error("the manifests do not name the images of the release")
	}
	values, err := exec.Command("tar", "-xzOf", filepath.Join(dir, "cloud-provider-upcloud-0.1.0.tgz"), "cloud-provider-upcloud/values.yaml").Output()
	if err != nil || !strings.Contains(string(values), "repository: "+host+"/csi-driver\n") {
		t.Errorf("the chart does not name the images of the release: %v", err)
	}
	if got := read("release-notes.md"); !strings.HasPrefix(got, "### Added\n\n- a thing\n") || !strings.Contains(got, "`"+host+"/ccm:v0.1.0` | `sha256:") ||
		!strings.Contains(got, "by "+runtime.Version()+",") {
		t.Errorf("release notes:\n%s", got)
	}
	var statement struct {
		Subject []struct {
			Name   string
			Digest map[string]string
		}
	}
	if err := json.Unmarshal([]byte(read("provenance.intoto.json")), &statement); err != nil {
		t.Fatal(err)
	}
	subjects := map[string]string{}
	for _, each := range statement.Subject {
		subjects[each.Name] = each.Digest["sha256"]
	}
	sums := read("SHA256SUMS")
	for _, file := range []string{"csi-driver-linux-arm64", "sbom/image-ccm-linux-amd64.spdx.json", "debian-packages.lock"} {
		if subjects[file] == "" || !strings.Contains(sums, subjects[file]+"  "+file+"\n") {
			t.Errorf("%s: the provenance has %q, which SHA256SUMS has not", file, subjects[file])
		}
	}
	if subjects[host+"/upcloud-doctor"] == "" {
		t.Error("the provenance has no image upcloud-doctor")
	}
}

func testImages(t *testing.T, dir string) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	for _, program := range project.Programs {
		layout := filepath.Join(dir, "images", program)
		index, err := image.Open(layout)
		if err != nil {
			t.Fatal(err)
		}
		reference, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/" + program + ":v0.1.0")
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(reference, index); err != nil {
			t.Fatalf("pushing %s: %v", program, err)
		}
		for _, architecture := range architectures {
			pulled, err := remote.Image(reference, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: architecture}))
			if err != nil {
				t.Fatalf("pulling %s for %s: %v", program, architecture, err)
			}
			config, err := pulled.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			if config.Architecture != architecture || !slices.Equal(config.Config.Entrypoint, []string{"/" + program}) ||
				config.Config.Labels["org.opencontainers.image.version"] != "v0.1.0" {
				t.Errorf("%s for %s: %+v", program, architecture, config)
			}
			tree, _, err := image.Files(layout, architecture)
			if err != nil {
				t.Fatal(err)
			}
			for _, each := range []string{"etc/ssl/certs/ca-certificates.crt", "etc/os-release", "etc/passwd", program} {
				if node := tree.Lookup(each); node == nil || len(node.Content) == 0 {
					t.Errorf("%s for %s has no /%s", program, architecture, each)
				}
			}
			if shell := tree.Lookup("bin/sh") != nil; shell != (program == "csi-driver" || program == "upcloud-sim") {
				t.Errorf("%s for %s: shell: %v", program, architecture, shell)
			}
		}
	}
}

// testFaults spoils a release, one thing after the other; each is seen.
func testFaults(t *testing.T, dir string) {
	spoil := func(file string, change func([]byte) []byte, verify func() error, want string) {
		t.Helper()
		path := filepath.Join(dir, file)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.WriteFile(path, old, 0o644); err != nil {
				t.Error(err)
			}
		}()
		if err := os.WriteFile(path, change(slices.Clone(old)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := verify(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want an error with %q, got %v", file, want, err)
		}
	}
	files := func() error { return verifySums(dir) }
	spoil("ccm-linux-arm64", func(b []byte) []byte { return append(b, ' ') }, files, "ccm-linux-arm64 is not what SHA256SUMS says")
	spoil("SHA256SUMS", func(b []byte) []byte { return b[strings.IndexByte(string(b), '\n')+1:] }, files, "SHA256SUMS does not list ")
	spoil("SHA256SUMS", func(b []byte) []byte { return append(b, "00  gone\n"...) }, files, "lists gone, which is not there")
	blobs, err := filepath.Glob(filepath.Join(dir, "images/ccm/blobs/sha256/*"))
	if err != nil || len(blobs) < 7 { // an index, and twice a manifest, a configuration and two layers
		t.Fatalf("%d blobs, %v", len(blobs), err)
	}
	image := func() error { return verifyImage(t.Context(), filepath.Join(dir, "images/ccm"), "ccm", false) }
	for _, blob := range blobs {
		spoil(strings.TrimPrefix(blob, dir), func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, image, "is not what its name says")
	}
	if err := compare(dir, t.TempDir()); err == nil || !strings.Contains(err.Error(), "ccm-linux-amd64 is not the same") {
		t.Errorf("compared with nothing: %v", err)
	}
}

func TestALockThatCannotBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, []byte("# x\nccm amd64 base-files 12\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readLock(path); err == nil || !strings.Contains(err.Error(), path+":2: want IMAGE ARCHITECTURE PACKAGE") {
		t.Errorf("%v", err)
	}
}

func TestCommands(t *testing.T) {
	for want, arguments := range map[string][]string{
		"no command":                nil,
		`"publish" is no command`:   {"publish"},
		"compare wants two folders": {"compare", "a"},
		`VERSION is ""`:             {"check", "--project", "../.."},
	} {
		if err := run(t.Context(), arguments); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want an error with %q, got %v", arguments, want, err)
		}
	}
}
