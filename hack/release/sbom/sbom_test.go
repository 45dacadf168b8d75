package sbom

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/debian"
)

func TestDocument(t *testing.T) {
	path := filepath.Join(t.TempDir(), "release") // a program with modules
	if out, err := exec.Command("go", "build", "-o", path, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.Repeat("ab", 32)
	subject := Subject{
		Name: "image-csi-driver-linux-amd64", Version: "v1.2.3", SHA256: hash, Homepage: "https://example.com/x", Program: program, Image: true,
		Suite:  "bookworm",
		Debian: []debian.Package{{Name: "libc6", Version: "2:2.36-9+deb12u13", Architecture: "amd64", SHA256: hash, Path: "/tmp/x"}},
	}
	created := time.Date(2026, 5, 1, 2, 3, 4, 5, time.FixedZone("x", 3600))
	content, err := Document(subject, created)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := json.Read(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	if described, err := spdxlib.GetDescribedPackageIDs(doc); err != nil || len(described) != 1 || described[0] != "subject-image-csi-driver-linux-amd64" {
		t.Errorf("it describes %v, %v", described, err)
	}
	if doc.CreationInfo.Created != "2026-05-01T01:03:04Z" {
		t.Errorf("created %s", doc.CreationInfo.Created)
	}
	purls := map[string]bool{}
	for _, p := range doc.Packages {
		for _, each := range p.PackageExternalReferences {
			purls[each.Locator[:strings.IndexByte(each.Locator+"@", '@')]] = true
			if strings.Contains(each.Locator, "libc6") && each.Locator != "pkg:deb/debian/libc6@2%3A2.36-9%2Bdeb12u13?arch=amd64&distro=bookworm" {
				t.Errorf("libc6 is %s", each.Locator)
			}
		}
	}
	for _, want := range []string{"pkg:deb/debian/libc6", "pkg:golang/stdlib", "pkg:golang/github.com/spdx/tools-golang"} {
		if !purls[want] {
			t.Errorf("%s is not listed", want)
		}
	}
	if bytes.Contains(content, []byte("/tmp/")) {
		t.Error("it says where files lay on this machine")
	}
	if again, err := Document(subject, created); err != nil || !bytes.Equal(again, content) {
		t.Errorf("a second time it is another: %v", err)
	}
	subject.Program = []byte("text")
	if _, err := Document(subject, created); err == nil || !strings.Contains(err.Error(), "image-csi-driver-linux-amd64") {
		t.Errorf("text in the place of a program: %v", err)
	}
}
