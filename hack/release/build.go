package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/image"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/project"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/provenance"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/sbom"
)

const homepage = "https://github.com/cloud-provider-upcloud/cloud-provider-upcloud"

// architectures are those that a release is for.
var architectures = []string{"amd64", "arm64"}

// release is one in the making.
type release struct {
	options
	commit string
	time   time.Time
	// goVersion is that of the Go that builds.
	goVersion string
	notes     string
	// programs are the contents of the programs, by name and architecture.
	programs map[string]map[string][]byte
	bases    bases
	// images are the digests of the images' indexes, by program.
	images map[string]string
}

// build makes a release. What was in the folder is replaced when all has been made.
func (o options) build(ctx context.Context) error {
	if err := o.check(ctx); err != nil {
		return err
	}
	r := &release{options: o, programs: map[string]map[string][]byte{}, images: map[string]string{}}
	section, err := o.tree.Notes(o.version, o.dryRun)
	if err != nil {
		return err
	}
	r.notes = section.Text
	if r.commit, r.time, err = o.tree.Commit(ctx); err != nil {
		return err
	}
	if r.toolchain == "" {
		if r.toolchain, err = o.tree.Toolchain(); err != nil {
			return err
		}
	}
	if err := r.useToolchain(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.output), 0o755); err != nil {
		return err
	}
	r.output, err = os.MkdirTemp(filepath.Dir(o.output), ".release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(r.output)
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"Debian packages", r.getPackages},
		{"programs, by " + r.goVersion, r.buildPrograms},
		{"images", r.buildImages},
		{"manifests and charts", r.writeManifests},
		{"bills of materials", r.writeSBOMs},
		{"release notes, provenance, checksums", r.writeRest},
		{"checks of images and programs", func(ctx context.Context) error { return verify(ctx, r.output, false) }},
	} {
		start := time.Now()
		fmt.Printf("release: %s\n", step.what)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		fmt.Printf("release: %s: %.0f s\n", step.what, time.Since(start).Seconds())
	}
	if err := errors.Join(os.RemoveAll(o.output), os.Chmod(r.output, 0o755), os.Rename(r.output, o.output)); err != nil {
		return err
	}
	fmt.Printf("release: %s of commit %.12s is in %s\n", o.version, r.commit, o.output)
	if o.registry == Placeholder {
		fmt.Printf("release: the images are named %s/NAME, which cannot be pulled: set REGISTRY to where they will be pushed\n", Placeholder)
	}
	return nil
}

// useToolchain asks for the version of the Go that the release is built with, which "local" does not say.
func (r *release) useToolchain(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION")
	cmd.Dir = r.tree.Dir
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN="+r.toolchain)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s cannot be had (GO_TOOLCHAIN=local takes this machine's Go): %w: %s", r.toolchain, err, strings.TrimSpace(problems.String()))
	}
	r.goVersion = strings.TrimSpace(string(out))
	return nil
}

// buildPrograms builds every program for every architecture, static, and the same wherever the tree lies.
func (r *release) buildPrograms(ctx context.Context) error {
	for _, architecture := range architectures {
		dir, err := os.MkdirTemp("", "release-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		arguments := []string{"build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=-s -w -X main.version=" + r.version, "-o", dir + "/"}
		for _, name := range project.Programs {
			arguments = append(arguments, "./cmd/"+name)
		}
		cmd := exec.CommandContext(ctx, "go", arguments...)
		cmd.Dir = r.tree.Dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=",
			"GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off", "GOTOOLCHAIN="+r.toolchain)
		var problems bytes.Buffer
		cmd.Stderr = &problems
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("building for %s with %s: %w: %s", architecture, r.goVersion, err,
				strings.TrimSpace(problems.String()))
		}
		for _, name := range project.Programs {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			if r.programs[name] == nil {
				r.programs[name] = map[string][]byte{}
			}
			r.programs[name][architecture] = content
			if err := r.write(programName(name, architecture), 0o755, content); err != nil {
				return err
			}
		}
	}
	return nil
}

func programName(name, architecture string) string { return name + "-linux-" + architecture }

func (r *release) writeSBOMs(context.Context) error {
	for _, name := range project.Programs {
		for _, architecture := range architectures {
			program := r.programs[name][architecture]
			subject := sbom.Subject{
				Name: programName(name, architecture), Version: r.version, SHA256: sum(program), Homepage: homepage, Program: program,
			}
			whole := subject
			var err error
			if whole.SHA256, err = image.Digest(filepath.Join(r.output, "images", name), architecture); err != nil {
				return err
			}
			whole.Name, whole.Image = "image-"+name+"-linux-"+architecture, true
			whole.Debian, whole.Suite = r.bases.packages[name][architecture], r.bases.suite
			for _, each := range []sbom.Subject{subject, whole} {
				document, err := sbom.Document(each, r.time)
				if err != nil {
					return err
				}
				if err := r.write("sbom/"+each.Name+".spdx.json", 0o644, document); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *release) writeRest(context.Context) error {
	if err := r.write("release-notes.md", 0o644, []byte(r.releaseNotes())); err != nil {
		return err
	}
	files, err := sums(r.output)
	if err != nil {
		return err
	}
	var subjects []provenance.Subject
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasPrefix(name, "images/") { // whose digest stands for all of it
			subjects = append(subjects, provenance.Subject{Name: name, Digest: map[string]string{"sha256": files[name]}})
		}
	}
	for _, name := range project.Programs {
		digest := strings.TrimPrefix(r.images[name], "sha256:")
		subjects = append(subjects, provenance.Subject{Name: r.imageName(name), Digest: map[string]string{"sha256": digest}})
	}
	if r.builder == "" {
		r.builder = homepage + "/blob/main/docs/releasing.md#on-a-machine-of-ones-own"
	}
	statement, err := provenance.Statement(provenance.Build{
		Type: homepage + "/blob/main/docs/releasing.md#what-a-release-has", Builder: r.builder, Repository: homepage, Commit: r.commit,
		Parameters: map[string]string{"VERSION": r.version, "REGISTRY": r.registry}, Toolchain: r.goVersion, Packages: r.bases.all(),
	}, subjects)
	if err != nil {
		return err
	}
	if err := r.write("provenance.intoto.json", 0o644, statement); err != nil {
		return err
	}
	files, err = sums(r.output)
	if err != nil {
		return err
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasPrefix(name, "images/") {
			fmt.Fprintf(&b, "%s  %s\n", files[name], name)
		}
	}
	return r.write("SHA256SUMS", 0o644, []byte(b.String()))
}

func (r *release) releaseNotes() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n## Images\n\n| image | digest |\n|---|---|\n", r.notes)
	for _, name := range project.Programs {
		fmt.Fprintf(&b, "| `%s:%s` | `%s` |\n", r.imageName(name), r.version, r.images[name])
	}
	fmt.Fprintf(&b, "\nBuilt from commit %s by %s, the same wherever it is built. `SHA256SUMS` has the files' checksums, `sbom/` what is in "+
		"programs and images, `debian-packages.lock` the images' Debian packages, `provenance.intoto.json` how all was made.\n", r.commit, r.goVersion)
	return b.String()
}

func (r *release) imageName(program string) string { return r.registry + "/" + program }

func (r *release) write(name string, mode os.FileMode, content []byte) error {
	path := filepath.Join(r.output, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, mode)
}
