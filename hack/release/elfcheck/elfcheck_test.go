package elfcheck

import (
	"debug/elf"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/rootfs"
)

// other is an architecture that this machine is not of.
var other = map[string]string{"amd64": "arm64", "arm64": "amd64"}

func TestCheck(t *testing.T) {
	// What dpkg-deb needs is on every Debian.
	program, err := os.ReadFile("/usr/bin/dpkg-deb")
	if err != nil || other[runtime.GOARCH] == "" {
		t.Skip("no Debian on amd64 or arm64 here, whose programs and libraries this test takes: ", err)
	}
	full := func(missing string) *rootfs.Tree {
		tree := rootfs.New()
		tree.AddFile("usr/bin/dpkg-deb", 0o755, program)
		addNeeded(t, tree, "/usr/bin/dpkg-deb", missing)
		tree.AddFile("etc/text", 0o644, []byte("no program"))
		return tree
	}
	problems, checked := Check(full(""), runtime.GOARCH)
	if len(problems) > 0 || checked < 3 {
		t.Errorf("%d files checked, %v", checked, problems)
	}
	problems, _ = Check(full("libc.so.6"), runtime.GOARCH)
	if !slices.Contains(problems, "/usr/bin/dpkg-deb needs libc.so.6, which is not there") {
		t.Errorf("without the C library: %v", problems)
	}
	problems, _ = Check(full("loader"), runtime.GOARCH)
	if !slices.ContainsFunc(problems, func(p string) bool { return strings.HasPrefix(p, "/usr/bin/dpkg-deb is loaded by /lib") }) {
		t.Errorf("without the loader: %v", problems)
	}
	problems, _ = Check(full(""), other[runtime.GOARCH])
	if !slices.ContainsFunc(problems, func(p string) bool {
		return strings.HasPrefix(p, "/usr/bin/dpkg-deb is for EM_") && strings.HasSuffix(p, other[runtime.GOARCH])
	}) {
		t.Errorf("as another architecture's: %v", problems)
	}
	tree := rootfs.New()
	tree.AddFile("usr/bin/cut", 0o755, program[:100])
	if problems, _ = Check(tree, runtime.GOARCH); len(problems) != 1 || !strings.HasPrefix(problems[0], "/usr/bin/cut cannot be read") {
		t.Errorf("cut off: %v", problems)
	}
}

// addNeeded adds what a program of this machine is loaded with, but for what is to be missing.
func addNeeded(t *testing.T, tree *rootfs.Tree, path, missing string) {
	t.Helper()
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	needed, err := file.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	for i, each := range needed {
		needed[i] = filepath.Join("/usr/lib", triplets[runtime.GOARCH], each)
	}
	if loader := interpreter(file); loader != "" && missing != "loader" {
		needed = append(needed, loader)
	}
	for _, each := range needed {
		if filepath.Base(each) == missing || missing == "loader" && strings.HasPrefix(filepath.Base(each), "ld-linux") || tree.Lookup(each) != nil {
			continue
		}
		content, err := os.ReadFile(each)
		if err != nil {
			t.Fatal(err)
		}
		tree.AddFile(each, 0o755, content)
		addNeeded(t, tree, each, missing)
	}
}
