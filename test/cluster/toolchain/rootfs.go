package toolchain

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// packagesArg is the line of the Dockerfile that lists the driver image's Debian packages.
var packagesArg = regexp.MustCompile(`(?m)^ARG DRIVER_PACKAGES="([^"]+)"$`)

// smallDebian are the options of a Debian with a shell, and without what nobody reads in an image.
var smallDebian = []string{"--variant=minbase", "--dpkgopt=path-exclude=/usr/share/man/*",
	"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*"}

// DriverBase makes the root file system that the driver's image is built on: Debian with the packages that the
// project's Dockerfile names. The answer is a tar.
func (c *Cache) DriverBase(ctx context.Context, paths Paths) (string, error) {
	dockerfile, err := os.ReadFile(filepath.Join(paths.Project, "Dockerfile"))
	if err != nil {
		return "", err
	}
	match := packagesArg.FindSubmatch(dockerfile)
	if match == nil {
		return "", fmt.Errorf("the Dockerfile has no line ARG DRIVER_PACKAGES=\"...\"")
	}
	return c.debian(ctx, "driver-base", strings.Fields(string(match[1])), smallDebian...)
}

// webServer makes the root file system of the image with nginx: that of Debian, with no more than it needs to run.
func (c *Cache) webServer(ctx context.Context) (string, error) {
	return c.debian(ctx, "nginx", []string{"nginx"}, "--variant=extract", "--dpkgopt=path-exclude=/usr/share/*")
}

// debian makes a root file system with the packages; the answer is a tar. The options belong to the name.
func (c *Cache) debian(ctx context.Context, name string, packages []string, options ...string) (string, error) {
	const suite = "bookworm"
	key, err := key(append(slices.Clone(packages), suite), nil)
	if err != nil {
		return "", err
	}
	return c.get(ctx, name, key, func(path string) error {
		tar := path + ".tar" // mmdebstrap chooses the format by the name's ending
		defer os.Remove(tar)
		args := slices.Concat(options, []string{"--aptopt=Acquire::Retries \"5\"", "--include=" + strings.Join(packages, ","), suite, tar})
		if err := run(exec.CommandContext(ctx, "mmdebstrap", args...)); err != nil {
			return err
		}
		return os.Rename(tar, path)
	})
}
