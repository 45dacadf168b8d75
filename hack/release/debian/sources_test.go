package debian

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSourcesAreThoseOfTheSuiteAlone(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"sources.list": "# deb http://commented.example bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] http://one.example/debian bookworm main contrib\n" +
			"deb http://other.example/debian trixie main\ndeb-src http://one.example/debian bookworm main\n",
		"sources.list.d/a.list": "deb https://vendor.example/apt cloud-sdk-bookworm main\ndeb broken\n",
		"sources.list.d/debian.sources": "Types: deb deb-src\nURIs: http://two.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n" +
			"Architectures: amd64\nSigned-By: /k.gpg\n\n# security\nTypes: deb\nURIs: http://two.example/security\nSuites: bookworm-security\nComponents: main\n\n" +
			"Enabled: no\nTypes: deb\nURIs: http://off.example\nSuites: bookworm\nComponents: main\n",
		"sources.list.d/old.save": "deb http://saved.example bookworm main\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const want = `Types: deb
URIs: http://one.example/debian
Suites: bookworm
Components: main contrib
Signed-By: /k.gpg

Types: deb deb-src
URIs: http://two.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /k.gpg

Types: deb
URIs: http://two.example/security
Suites: bookworm-security
Components: main
`
	if got, err := sourcesIn(dir, "bookworm"); err != nil || got != want {
		t.Errorf("%v\n%s", err, got)
	}
	if _, err := sourcesIn(dir, "sid"); err == nil || !strings.Contains(err.Error(), "set APT_SOURCES to a file") {
		t.Errorf("a suite that is not there: %v", err)
	}
	own := filepath.Join(dir, "own")
	if err := os.WriteFile(own, []byte("Types: deb\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Sources(own, "sid"); err != nil || got != "Types: deb\n" {
		t.Errorf("a file that was named: %q, %v", got, err)
	}
}
