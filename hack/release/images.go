package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/debian"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/image"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/project"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/rootfs"
)

// base are packages of every image: base-files says to scanners which Debian it is.
var base = []string{"base-files", "ca-certificates"}

// assumed are packages that others depend on, and no image needs: what only scripts of installation run, what xfs_scrub alone is
// written in or linked with, and what base-files and ca-certificates want when they are installed.
var assumed = []string{
	"adduser", "awk", "debconf", "dpkg", "init-system-helpers", "libicu72", "lsb-base", "openssl", "python3", "sysvinit-utils",
}

// unloadable are the programs that cannot be loaded without what is assumed, and that the driver does not run.
var unloadable = []string{"usr/sbin/xfs_scrub", "usr/sbin/xfs_scrub_all"}

// certificatesOnly are images whose programs need nothing of Debian's but certificates: no library, no shell.
func certificatesOnly(target project.Target) bool { return len(target.Packages) == 0 }

// bases are what the programs are laid upon.
type bases struct {
	suite   string
	targets map[string]project.Target
	// packages are Debian's, by program and architecture.
	packages map[string]map[string][]debian.Package
	// trees are their files.
	trees map[string]map[string]*rootfs.Tree
}

// all are the packages of all images, each once.
func (b bases) all() []debian.Package {
	var all []debian.Package
	for _, name := range project.Programs {
		for _, architecture := range architectures {
			all = append(all, b.packages[name][architecture]...)
		}
	}
	for i := range all {
		all[i].Path = "" // where it lies on this machine says nothing
	}
	slices.SortFunc(all, func(a, b debian.Package) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(all)
}

func (r *release) getPackages(ctx context.Context) (err error) {
	r.bases, err = getBases(ctx, r.options, project.Programs, architectures)
	if err != nil {
		return err
	}
	return r.write("debian-packages.lock", 0o644, []byte(r.bases.lock()))
}

// getBases gets the packages of programs' images and takes them apart.
func getBases(ctx context.Context, o options, programs, architectures []string) (bases, error) {
	targets, suite, err := o.tree.Dockerfile()
	if err != nil {
		return bases{}, err
	}
	sources, err := debian.Sources(o.sources, suite)
	if err != nil {
		return bases{}, err
	}
	locked, err := readLock(o.lock)
	if err != nil {
		return bases{}, err
	}
	b := bases{suite: suite, targets: targets, packages: map[string]map[string][]debian.Package{}, trees: map[string]map[string]*rootfs.Tree{}}
	for _, name := range programs {
		b.packages[name], b.trees[name] = map[string][]debian.Package{}, map[string]*rootfs.Tree{}
	}
	for _, architecture := range architectures {
		apt, err := debian.New(ctx, filepath.Join(o.cache, suite+"-"+architecture), architecture, sources)
		if err != nil {
			return b, err
		}
		for _, name := range programs {
			if err := b.get(ctx, apt, name, architecture, locked); err != nil {
				return b, err
			}
		}
	}
	return b, nil
}

func (b bases) get(ctx context.Context, apt *debian.Apt, name, architecture string, locked map[string][]string) error {
	target := b.targets[name]
	wanted, without := slices.Concat(base, target.Packages), assumed
	if certificatesOnly(target) {
		without = slices.Concat(assumed, []string{"libc6"})
	} else {
		wanted = append(wanted, "dash") // some programs are scripts
	}
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	key := name + " " + architecture
	if locked != nil {
		wanted = wanted[:0]
		for _, line := range locked[key] {
			fields := strings.Fields(line)
			wanted = append(wanted, fields[0]+"="+fields[1])
		}
	}
	packages, err := apt.Get(ctx, wanted, without)
	if err != nil {
		return fmt.Errorf("the image %s: %w", name, err)
	}
	if locked != nil {
		if got := lines(packages); !slices.Equal(got, locked[key]) {
			return fmt.Errorf("the image %s for %s would have other packages than the lock file says: %s", name, architecture,
				difference(locked[key], got))
		}
	}
	tree, err := debian.Unpack(ctx, packages)
	if err != nil {
		return fmt.Errorf("the image %s: %w", name, err)
	}
	if err := debian.Bundle(tree); err != nil {
		return err
	}
	tree.Drop(func(name string) bool { return slices.Contains(unloadable, name) })
	tree.AddDir("tmp", 0o1777)
	tree.AddFile("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/usr/sbin/nologin\nnonroot:x:65534:65534:nonroot:/:/usr/sbin/nologin\n"))
	tree.AddFile("etc/group", 0o644, []byte("root:x:0:\nnonroot:x:65534:\n"))
	b.packages[name][architecture], b.trees[name][architecture] = packages, tree
	return nil
}

func lines(packages []debian.Package) (lines []string) {
	for _, p := range packages {
		lines = append(lines, p.String())
	}
	return lines
}

// difference names a few entries that only one of two lists has.
func difference(want, got []string) string {
	const enough = 3
	var found []string
	for _, each := range want {
		if !slices.Contains(got, each) {
			found = append(found, "not "+each)
		}
	}
	for _, each := range got {
		if !slices.Contains(want, each) {
			found = append(found, "but "+each)
		}
	}
	return strings.Join(found[:min(len(found), enough)], ", ")
}

// lock is the lock file: IMAGE ARCHITECTURE PACKAGE VERSION PACKAGE'S-ARCHITECTURE SHA256, a line for each.
func (b bases) lock() string {
	var out strings.Builder
	out.WriteString("# image, architecture, package, version, the package's architecture, its SHA-256; make release LOCK=FILE takes exactly these\n")
	for _, name := range project.Programs {
		for _, architecture := range architectures {
			for _, line := range lines(b.packages[name][architecture]) {
				fmt.Fprintf(&out, "%s %s %s\n", name, architecture, line)
			}
		}
	}
	return out.String()
}

// readLock reads a lock file; the lines are by image and architecture. It is nil where no file is named.
func readLock(path string) (map[string][]string, error) {
	if path == "" {
		return nil, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	locked := map[string][]string{}
	for n, line := range strings.Split(strings.TrimSpace(string(content)), "\n") {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "#"):
		case len(fields) != 6:
			return nil, fmt.Errorf("%s:%d: want IMAGE ARCHITECTURE PACKAGE VERSION ARCHITECTURE SHA256, not %q", path, n+1, line)
		default:
			key := fields[0] + " " + fields[1]
			locked[key] = append(locked[key], strings.Join(fields[2:], " "))
		}
	}
	return locked, nil
}

func (r *release) buildImages(context.Context) error {
	for _, name := range project.Programs {
		digest, err := r.bases.write(filepath.Join(r.output, "images", name), name, r.programs[name], imageFacts{
			reference: r.imageName(name) + ":" + r.version, version: r.version, commit: r.commit, time: r.time,
		})
		if err != nil {
			return err
		}
		r.images[name] = digest
	}
	return nil
}

// write writes the layout of a program's image for all architectures of which there is a program.
func (b bases) write(dir, name string, programs map[string][]byte, facts imageFacts) (digest string, err error) {
	target := b.targets[name]
	labels := map[string]string{
		"org.opencontainers.image.title": name, "org.opencontainers.image.version": facts.version,
		"org.opencontainers.image.revision": facts.commit, "org.opencontainers.image.source": homepage,
		"org.opencontainers.image.licenses": "Apache-2.0", "org.opencontainers.image.created": facts.time.Format("2006-01-02T15:04:05Z"),
		"org.opencontainers.image.description": descriptions[name],
	}
	var images []image.Image
	for _, architecture := range architectures {
		if programs[architecture] == nil {
			continue
		}
		program := rootfs.New()
		program.AddFile(name, 0o755, programs[architecture])
		images = append(images, image.Image{
			Architecture: architecture, Entrypoint: target.Entrypoint, User: target.User, Labels: labels, Created: facts.time,
			Layers: []image.Layer{
				{Tree: b.trees[name][architecture], Comment: "Debian " + b.suite + ": " + strings.Join(slices.Concat(base, target.Packages), " ")},
				{Tree: program, Comment: name + " " + facts.version},
			},
		})
	}
	return image.Write(dir, facts.reference, labels, images...)
}
