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
	"runtime"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/elfcheck"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/image"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/project"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/rootfs"
)

// runnable are the programs that images have beside their own, and how each can be run without doing anything.
var runnable = map[string][][]string{
	"csi-driver": {
		{"blkid", "--version"}, {"btrfs", "--version"}, {"cryptsetup", "--version"}, {"dmsetup", "--help"}, {"e2fsck", "-V"},
		{"mkfs.btrfs", "--version"}, {"mkfs.ext2", "-V"}, {"mkfs.ext3", "-V"}, {"mkfs.ext4", "-V"}, {"mkfs.xfs", "-V"}, {"mount", "--version"},
		{"resize2fs", "-h"}, {"sh", "-c", ":"}, {"umount", "--version"}, {"xfs_growfs", "-V"}, {"xfs_logprint", "-V"},
	},
	"upcloud-sim": {{"haproxy", "-v"}, {"ip", "-Version"}},
}

// searched are the directories in which programs are looked for in an image.
var searched = []string{"/usr/sbin", "/usr/bin"}

// usageStatus is what programs end with that know of no better way to be asked than a flag that they do not have.
var usageStatus = map[string]int{"resize2fs": 1}

// verify checks a release as a user can: checksums, images, and whether every program can be loaded; with run, those for this
// machine's architecture are run.
func verify(ctx context.Context, dir string, run bool) error {
	problems := []error{verifySums(dir)}
	for _, name := range project.Programs {
		if err := verifyImage(ctx, filepath.Join(dir, "images", name), name, run); err != nil {
			problems = append(problems, fmt.Errorf("the image %s: %w", name, err))
		}
	}
	return errors.Join(problems...)
}

func verifySums(dir string) error {
	listed, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		return err
	}
	files, err := sums(dir)
	if err != nil {
		return err
	}
	delete(files, "SHA256SUMS")
	maps.DeleteFunc(files, func(name, _ string) bool { return strings.HasPrefix(name, "images/") }) // which have digests of their own
	var problems []error
	for _, line := range strings.Split(strings.TrimSpace(string(listed)), "\n") {
		want, name, _ := strings.Cut(line, "  ")
		switch got, there := files[name]; {
		case !there:
			problems = append(problems, fmt.Errorf("SHA256SUMS lists %s, which is not there", name))
		case got != want:
			problems = append(problems, fmt.Errorf("%s is not what SHA256SUMS says", name))
		}
		delete(files, name)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		problems = append(problems, fmt.Errorf("SHA256SUMS does not list %s", name))
	}
	return errors.Join(problems...)
}

func verifyImage(ctx context.Context, layout, name string, run bool) error {
	if err := image.CheckBlobs(layout); err != nil {
		return err
	}
	var problems []error
	for _, architecture := range architectures {
		if err := verifyFiles(ctx, layout, name, architecture, run && architecture == runtime.GOARCH); err != nil {
			problems = append(problems, fmt.Errorf("for %s: %w", architecture, err))
		}
	}
	return errors.Join(problems...)
}

func verifyFiles(ctx context.Context, layout, name, architecture string, run bool) error {
	tree, config, err := image.Files(layout, architecture)
	if err != nil {
		return err
	}
	var problems []error
	faults, checked := elfcheck.Check(tree, architecture)
	for _, each := range faults {
		problems = append(problems, errors.New(each))
	}
	commands := [][]string{{config.Config.Entrypoint[0], "--version"}}
	for _, each := range runnable[name] {
		path := ""
		for _, dir := range searched {
			if tree.Lookup(dir+"/"+each[0]) != nil {
				path = dir + "/" + each[0]
				break
			}
		}
		if path == "" {
			problems = append(problems, fmt.Errorf("the program %s is not there", each[0]))
			continue
		}
		commands = append(commands, append([]string{path}, each[1:]...))
	}
	if tree.Lookup(config.Config.Entrypoint[0]) == nil || checked == 0 {
		problems = append(problems, fmt.Errorf("%s is not there", config.Config.Entrypoint[0]))
	}
	if run && len(problems) == 0 {
		problems = append(problems, runAll(ctx, tree, config, commands))
	}
	return errors.Join(problems...)
}

// runAll runs commands with the tree as their root, as the image's user.
func runAll(ctx context.Context, tree *rootfs.Tree, config *v1.ConfigFile, commands [][]string) error {
	root, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := errors.Join(os.Chmod(root, 0o755), extract(tree, root)); err != nil {
		return err
	}
	attributes := &syscall.SysProcAttr{Chroot: root}
	if config.Config.User != "" {
		var uid, gid uint32
		if _, err := fmt.Sscanf(config.Config.User, "%d:%d", &uid, &gid); err != nil {
			return fmt.Errorf("the image's user is %q, want UID:GID, which Kubernetes can tell from root", config.Config.User)
		}
		attributes.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	var problems []error
	for _, each := range commands {
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, each[0], each[1:]...)
		cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = "/", config.Config.Env, &out, &out, attributes
		err := cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == usageStatus[filepath.Base(each[0])] {
			err = nil
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("running %s: %w: %s", strings.Join(each, " "), err, strings.TrimSpace(out.String())))
		}
	}
	return errors.Join(problems...)
}

// compare says in what two releases differ.
func compare(one, other string) error {
	a, err := sums(one)
	if err != nil {
		return err
	}
	b, err := sums(other)
	if err != nil {
		return err
	}
	names := maps.Clone(a)
	maps.Copy(names, b)
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if a[name] != b[name] {
			problems = append(problems, fmt.Errorf("%s is not the same", name))
		}
	}
	if len(problems) > 0 || len(a) == 0 {
		return fmt.Errorf("the releases %s and %s differ:\n%w", one, other, errors.Join(problems...))
	}
	fmt.Printf("release: %d files are the same in %s and %s\n", len(a), one, other)
	return nil
}
