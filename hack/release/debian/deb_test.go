package debian

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pack makes a Debian package of files.
func pack(t *testing.T, name string, files map[string]string) Package {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("no dpkg-deb here, which makes and reads Debian packages")
	}
	dir := t.TempDir()
	files["DEBIAN/control"] = "Package: " + name + "\nVersion: 1:2-3\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n"
	for file, content := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), name+".deb")
	if out, err := exec.Command("dpkg-deb", "--build", "--root-owner-group", dir, path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return Package{Name: name, Version: "1:2-3", Architecture: "all", Path: path}
}

func TestUnpackKeepsProgramsLicencesAndWhatScannersRead(t *testing.T) {
	tree, err := Unpack(t.Context(), []Package{
		pack(t, "tool", map[string]string{
			"sbin/tool": "program", "usr/share/doc/tool/copyright": "licence", "usr/share/doc/tool/README": "long", "usr/share/man/man8/tool.8": "man",
			"usr/share/locale/de/x.mo": "text", "usr/lib/x86_64-linux-gnu/gconv/a/B.so": "B", "etc/tool.conf": "conf",
		}),
		pack(t, "ca-certificates", map[string]string{
			"usr/share/ca-certificates/mozilla/b.crt": "B", "usr/share/ca-certificates/mozilla/a.crt": "A\n", "usr/sbin/update-ca-certificates": "script",
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Bundle(tree); err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, name := range tree.Names() {
		if len(tree.Lookup(name).Content) > 0 {
			files = append(files, name)
		}
	}
	want := []string{
		"etc/ssl/certs/ca-certificates.crt", "etc/tool.conf", "usr/sbin/tool", "usr/share/doc/tool/copyright",
		"var/lib/dpkg/status.d/ca-certificates", "var/lib/dpkg/status.d/tool",
	}
	if !slices.Equal(files, want) {
		t.Errorf("got %v, want %v", files, want)
	}
	if got := string(tree.Lookup("etc/ssl/certs/ca-certificates.crt").Content); got != "A\nB\n" {
		t.Errorf("certificates: %q", got)
	}
	if got := string(tree.Lookup("var/lib/dpkg/status.d/tool").Content); !strings.Contains(got, "Package: tool\nVersion: 1:2-3\n") {
		t.Errorf("description: %q", got)
	}
	if err := Bundle(tree); err == nil {
		t.Error("no certificates are no error")
	}
}

func TestUnpackNamesThePackageThatIsNone(t *testing.T) {
	p := pack(t, "tool", map[string]string{"sbin/tool": "program"})
	if err := os.WriteFile(p.Path, []byte("cut"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(t.Context(), []Package{p}); err == nil || !strings.Contains(err.Error(), "tool.deb") {
		t.Errorf("%v", err)
	}
	one, other := pack(t, "one", map[string]string{"bin/a": "1"}), pack(t, "other", map[string]string{"usr/bin/a": "2"})
	if _, err := Unpack(t.Context(), []Package{one, other}); err == nil || !strings.Contains(err.Error(), "the package other: /usr/bin/a: two packages have it") {
		t.Errorf("%v", err)
	}
}
