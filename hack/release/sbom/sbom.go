// Package sbom writes what programs and images are made of, in the form SPDX 2.3.
package sbom

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/debian"
)

// Subject is what a document describes: a program, or an image for one architecture.
type Subject struct {
	Name, Version string
	// SHA256 is that of the program, or of the image's manifest, in hex.
	SHA256 string
	// Homepage is where the project is at home.
	Homepage string
	// Program is a program built by Go, whose modules are listed.
	Program []byte
	// Debian are the packages that an image has, and Suite the release of Debian that they are of.
	Debian []debian.Package
	Suite  string
	// Image says that the subject is an image: its program is a part of it.
	Image bool
}

// Document describes the subject; created is the time of the release.
func Document(s Subject, created time.Time) ([]byte, error) {
	main := &v2_3.Package{
		PackageName: s.Name, PackageSPDXIdentifier: id("subject", s.Name), PackageVersion: s.Version,
		PackageDownloadLocation: "NOASSERTION", PackageHomePage: s.Homepage,
		PackageLicenseConcluded: "Apache-2.0", PackageLicenseDeclared: "Apache-2.0", PackageCopyrightText: "NOASSERTION",
		PackageChecksums: []common.Checksum{{Algorithm: common.SHA256, Value: s.SHA256}}, PrimaryPackagePurpose: "APPLICATION",
	}
	if s.Image {
		main.PrimaryPackagePurpose = "CONTAINER"
		main.PackageLicenseConcluded, main.PackageLicenseDeclared = "NOASSERTION", "NOASSERTION"
	}
	doc := &v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: s.Name + "-" + s.Version,
		DocumentNamespace: s.Homepage + "/spdx/" + url.PathEscape(s.Name) + "/" + s.Version + "/" + s.SHA256,
		CreationInfo: &v2_3.CreationInfo{
			Created: created.UTC().Format(time.RFC3339), Creators: []common.Creator{{CreatorType: "Tool", Creator: "hack-release-" + s.Version}},
		},
		Packages:      []*v2_3.Package{main},
		Relationships: []*v2_3.Relationship{relation("DOCUMENT", common.TypeRelationshipDescribe, main.PackageSPDXIdentifier)},
	}
	add := func(p *v2_3.Package) {
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships,
			relation(main.PackageSPDXIdentifier, common.TypeRelationshipContains, p.PackageSPDXIdentifier))
	}
	for _, p := range s.Debian {
		purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s&distro=%s", p.Name, url.QueryEscape(p.Version), p.Architecture, s.Suite)
		add(part("deb", p.Name, p.Version, purl, p.SHA256))
	}
	info, err := buildinfo.Read(bytes.NewReader(s.Program))
	if err != nil {
		return nil, fmt.Errorf("%s: the modules of its program: %w", s.Name, err)
	}
	if s.Image {
		add(part("golang", info.Path, s.Version, "pkg:golang/"+info.Main.Path+"@"+s.Version+"#"+strings.TrimPrefix(info.Path, info.Main.Path+"/"), ""))
	}
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	add(part("golang", "stdlib", goVersion, "pkg:golang/stdlib@"+goVersion, ""))
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		p := part("golang", module.Path, module.Version, "pkg:golang/"+module.Path+"@"+url.PathEscape(module.Version), "")
		p.PackageComment = "go.sum: " + module.Sum
		add(p)
	}
	return json.MarshalIndent(doc, "", " ")
}

func part(kind, name, version, purl, sha256 string) *v2_3.Package {
	p := &v2_3.Package{
		PackageName: name, PackageSPDXIdentifier: id(kind, name), PackageVersion: version, PackageDownloadLocation: "NOASSERTION",
		PackageLicenseConcluded: "NOASSERTION", PackageLicenseDeclared: "NOASSERTION", PackageCopyrightText: "NOASSERTION",
		PackageExternalReferences: []*v2_3.PackageExternalReference{{Category: "PACKAGE-MANAGER", RefType: "purl", Locator: purl}},
	}
	if sha256 != "" {
		p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: sha256}}
	}
	return p
}

// unfit are the characters that an identifier cannot have.
var unfit = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func id(kind, name string) common.ElementID {
	return common.ElementID(kind + "-" + unfit.ReplaceAllString(strings.ReplaceAll(name, "/", "-"), "-"))
}

func relation(from common.ElementID, kind string, to common.ElementID) *v2_3.Relationship {
	return &v2_3.Relationship{
		RefA: common.DocElementID{ElementRefID: from}, RefB: common.DocElementID{ElementRefID: to}, Relationship: kind,
	}
}
