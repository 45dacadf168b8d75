// Package debian gets Debian packages by the machine's apt, of any architecture, and takes them apart without installing them.
package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Package is one that an image is made of.
type Package struct {
	Name, Version, Architecture string
	// SHA256 is that of the archive, in hex.
	SHA256 string
	// Path is where the archive is.
	Path string
}

// String is how the package is written in lock files.
func (p Package) String() string {
	return fmt.Sprintf("%s %s %s %s", p.Name, p.Version, p.Architecture, p.SHA256)
}

// Apt is an apt with state of its own: it knows of no installed packages, and changes nothing of the machine.
type Apt struct {
	dir, architecture string
}

// New makes an apt in a directory, which keeps what is downloaded for the next time, and reads what the sources have.
func New(ctx context.Context, dir, architecture, sources string) (*Apt, error) {
	a := &Apt{dir: dir, architecture: architecture}
	for _, each := range []string{"lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, each), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "debian.sources"), []byte(sources), 0o644); err != nil {
		return nil, err
	}
	if err := a.assume(nil); err != nil {
		return nil, err
	}
	if _, err := a.run(ctx, "update", "--error-on=any"); err != nil {
		return nil, fmt.Errorf("reading the lists of packages for %s: %w", architecture, err)
	}
	return a, nil
}

// assume writes the list of installed packages: those that others depend on, and the image does without.
func (a *Apt) assume(packages []string) error {
	var b bytes.Buffer
	for _, each := range packages {
		fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nArchitecture: %s\nMulti-Arch: allowed\nVersion: 9999:0\n"+
			"Maintainer: nil\nDescription: left out of the image\n\n", each, a.architecture)
	}
	return os.WriteFile(filepath.Join(a.dir, "status"), b.Bytes(), 0o644)
}

// installed is a line of what apt would do: Inst libc6 (2.36-9+deb12u13 Debian:12.13/oldstable [amd64])
var installed = regexp.MustCompile(`(?m)^Inst (\S+) (?:\[\S+\] )?\((\S+) .*\[(\S+)\]\)`)

// Get downloads the packages, each a name or name=version, with all that they depend on but what is assumed; sorted by name.
func (a *Apt) Get(ctx context.Context, packages, assumed []string) ([]Package, error) {
	if err := a.assume(assumed); err != nil {
		return nil, err
	}
	install := append([]string{"--yes", "--no-install-recommends", "install"}, packages...)
	plan, err := a.run(ctx, append([]string{"--simulate"}, install...)...)
	if err != nil {
		return nil, fmt.Errorf("choosing packages for %s: %w", a.architecture, err)
	}
	if _, err := a.run(ctx, append([]string{"--download-only"}, install...)...); err != nil {
		return nil, fmt.Errorf("downloading packages for %s: %w", a.architecture, err)
	}
	var found []Package
	for _, match := range installed.FindAllStringSubmatch(plan, -1) {
		name, _, _ := strings.Cut(match[1], ":")
		p := Package{Name: name, Version: match[2], Architecture: match[3]}
		p.Path = filepath.Join(a.dir, "archives", fmt.Sprintf("%s_%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"), p.Architecture))
		content, err := os.ReadFile(p.Path)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(content)
		p.SHA256 = hex.EncodeToString(sum[:])
		found = append(found, p)
	}
	if len(found) < len(packages) {
		return nil, fmt.Errorf("apt was asked for %d packages for %s and has %d: %s", len(packages), a.architecture, len(found), plan)
	}
	slices.SortFunc(found, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

func (a *Apt) run(ctx context.Context, arguments ...string) (string, error) {
	state := func(name string) string { return filepath.Join(a.dir, name) }
	var options []string
	for _, each := range []string{
		"APT::Architecture=" + a.architecture, "APT::Architectures=" + a.architecture,
		"APT::Sandbox::User=root", // apt's own user cannot read here
		"Acquire::Languages=none", "Acquire::Retries=5",
		"APT::Update::Error-Mode=any",
		"Dir::State=" + a.dir, "Dir::State::lists=" + state("lists"), "Dir::State::status=" + state("status"),
		"Dir::State::extended_states=" + state("extended_states"),
		"Dir::Cache=" + a.dir, "Dir::Cache::archives=" + state("archives"), "Dir::Log=" + state("log"),
		"Dir::Etc::sourcelist=" + state("debian.sources"), "Dir::Etc::sourceparts=-", "Dir::Etc::preferencesparts=-", "Dir::Etc::preferences=-",
		"APT::Install-Recommends=false", "APT::Get::List-Cleanup=false", "Debug::NoLocking=true",
	} {
		options = append(options, "-o", each)
	}
	cmd := exec.CommandContext(ctx, "apt-get", append(append(options, "-q"), arguments...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("apt-get: %w: %s", err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}
