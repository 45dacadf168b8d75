package toolchain

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// contents reads a tar into a map by name.
func contents(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for reader := tar.NewReader(r); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[header.Name]; twice {
			t.Errorf("%s is in the archive twice", header.Name)
		}
		if files[header.Name], err = io.ReadAll(reader); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWriteArchive(t *testing.T) {
	var base bytes.Buffer
	baseTar := tar.NewWriter(&base)
	if err := add(baseTar, "etc/os-release", []byte("ID=test\n")); err != nil {
		t.Fatal(err)
	}
	if err := baseTar.Close(); err != nil {
		t.Fatal(err)
	}
	basePath := writeFile(t, "base.tar", base.Bytes())
	program := writeFile(t, "program", []byte("#!/bin/sh\n"))
	path := filepath.Join(t.TempDir(), "images.tar")
	err := WriteArchive(path,
		Image{Name: "example.test/one:1", Base: basePath, Files: map[string]string{"/bin/one": program}, Entrypoint: []string{"/bin/one"}},
		Image{Name: "example.test/two:1", Base: basePath, Files: map[string]string{"/bin/two": program}, Links: map[string]string{"/two": "/bin/two"}})
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	archive := contents(t, file)

	var manifest []imageManifest
	if err := json.Unmarshal(archive["manifest.json"], &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 2 || !slices.Equal(manifest[0].RepoTags, []string{"example.test/one:1"}) || manifest[0].Layers[0] != manifest[1].Layers[0] {
		t.Fatalf("the manifest is %+v, want two images that share their base", manifest)
	}
	for _, image := range manifest {
		var config struct {
			RootFS struct {
				DiffIDs []string `json:"diff_ids"`
			} `json:"rootfs"`
		}
		if err := json.Unmarshal(archive[image.Config], &config); err != nil {
			t.Fatal(err)
		}
		for i, layer := range image.Layers {
			if want := "sha256:" + sum(archive[layer]); config.RootFS.DiffIDs[i] != want {
				t.Errorf("%v: layer %d has diff ID %s, want the digest of its bytes, %s", image.RepoTags, i, config.RootFS.DiffIDs[i], want)
			}
		}
	}
	top := contents(t, bytes.NewReader(archive[manifest[1].Layers[1]]))
	if string(top["bin/two"]) != "#!/bin/sh\n" {
		t.Errorf("the second image's own layer holds %v", top)
	}
	if _, ok := top["two"]; !ok {
		t.Error("the second image's link is missing")
	}
}

func TestCacheKeepsOnlyFinishedAndCurrentResults(t *testing.T) {
	cache := &Cache{dir: t.TempDir(), announce: func(string) {}}
	failed := errors.New("no compiler")
	makes := 0
	if _, err := cache.get(t.Context(), "tool", "0000000000000001", func(path string) error {
		makes++
		_ = os.WriteFile(path, []byte("half"), 0o600)
		return failed
	}); !errors.Is(err, failed) || makes != attempts {
		t.Fatalf("the error is %v after %d attempts, want %v after %d", err, makes, failed, attempts)
	}
	makes = 0
	fill := func(path string) error { makes++; return os.WriteFile(path, []byte("whole"), 0o600) }
	for range 2 {
		if _, err := cache.get(t.Context(), "tool", "0000000000000001", fill); err != nil {
			t.Fatal(err)
		}
	}
	if makes != 1 {
		t.Errorf("made %d times, want once", makes)
	}
	if _, err := cache.get(t.Context(), "tool", "0000000000000002", fill); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(cache.dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "tool-0000000000000002" {
		t.Errorf("the cache holds %v, want the newest result alone", entries)
	}
}

func TestWhatCannotBeMadeAtFirstIsMadeAnew(t *testing.T) {
	cache := &Cache{dir: t.TempDir(), announce: func(string) {}}
	makes := 0
	path, err := cache.get(t.Context(), "tool", "0000000000000001", func(path string) error {
		if makes++; makes < attempts {
			_ = os.WriteFile(path, []byte("half"), 0o600)
			return errors.New("the mirror is away")
		}
		if _, err := os.Stat(path); err == nil {
			return errors.New("there is something of the attempt before")
		}
		return os.WriteFile(path, []byte("whole"), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "whole" {
		t.Errorf("what is made is %q, %v", text, err)
	}
}

func TestKeyDependsOnEveryFile(t *testing.T) {
	file := writeFile(t, "go.mod", []byte("module a\n"))
	before, err := key([]string{"v1"}, []string{file})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("module b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := key([]string{"v1"}, []string{file})
	if err != nil {
		t.Fatal(err)
	}
	other, err := key([]string{"v2"}, []string{file})
	if err != nil {
		t.Fatal(err)
	}
	if before == after || after == other {
		t.Errorf("keys %s, %s, %s must differ", before, after, other)
	}
}

func TestSuiteIsOfTheClustersVersion(t *testing.T) {
	module, err := os.ReadFile("../upstream/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(module, []byte("k8s.io/kubernetes "+KubernetesVersion+"\n")) {
		t.Errorf("upstream/go.mod does not ask for k8s.io/kubernetes %s", KubernetesVersion)
	}
}
