package debian

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/rootfs"
)

// unneeded are directories of packages that nothing in an image reads, as patterns of path.Match: documentation, what runs on
// machines that boot, conversions of character sets, and queues of tc. The licences below /usr/share/doc stay.
var unneeded = []string{
	"usr/share/bash-completion", "usr/share/bug", "usr/share/doc-base", "usr/share/info", "usr/share/initramfs-tools", "usr/share/lintian",
	"usr/share/locale", "usr/share/man", "usr/share/zsh", "usr/lib/systemd/system", "etc/cron.d", "etc/init.d", "etc/logrotate.d", "usr/lib/udev",
	"usr/lib/*/gconv", "usr/lib/*/tc",
}

// Unpack makes a tree of the packages, with a description of each where scanners of images look for it.
func Unpack(ctx context.Context, packages []Package) (*rootfs.Tree, error) {
	tree := rootfs.New()
	for _, p := range packages {
		files, err := output(ctx, "--fsys-tarfile", p.Path)
		if err != nil {
			return nil, err
		}
		if err := tree.AddTar(bytes.NewReader(files)); err != nil {
			return nil, fmt.Errorf("the package %s: %w", p.Name, err)
		}
		control, err := output(ctx, "--field", p.Path)
		if err != nil {
			return nil, err
		}
		tree.AddFile("var/lib/dpkg/status.d/"+p.Name, 0o644, append(bytes.TrimRight(control, "\n"), '\n'))
	}
	tree.Drop(func(name string) bool {
		for dir := name; dir != "."; dir = path.Dir(dir) {
			if slices.ContainsFunc(unneeded, func(pattern string) bool { match, err := path.Match(pattern, dir); return err == nil && match }) {
				return true
			}
		}
		doc, isDoc := strings.CutPrefix(name, "usr/share/doc/")
		return isDoc && strings.Contains(doc, "/") && path.Base(doc) != "copyright"
	})
	return tree, nil
}

func output(ctx context.Context, arguments ...string) ([]byte, error) {
	var problems bytes.Buffer
	cmd := exec.CommandContext(ctx, "dpkg-deb", arguments...)
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg-deb %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(problems.String()))
	}
	return out, nil
}

// Bundle gathers the certificates of the package ca-certificates into the file that programs read, as its own script would when it
// is installed.
func Bundle(tree *rootfs.Tree) error {
	var bundle bytes.Buffer
	for _, name := range tree.Names() {
		if !strings.HasPrefix(name, "usr/share/ca-certificates/") || path.Ext(name) != ".crt" {
			continue
		}
		content := tree.Lookup(name).Content
		bundle.Write(content)
		if !bytes.HasSuffix(content, []byte("\n")) {
			bundle.WriteByte('\n')
		}
	}
	if bundle.Len() == 0 {
		return fmt.Errorf("the package ca-certificates has no certificates in /usr/share/ca-certificates")
	}
	tree.Drop(func(name string) bool {
		return strings.HasPrefix(name, "usr/share/ca-certificates") || strings.HasPrefix(name, "etc/ca-certificates") ||
			name == "usr/sbin/update-ca-certificates"
	})
	tree.AddFile("etc/ssl/certs/ca-certificates.crt", 0o644, bundle.Bytes())
	return nil
}
