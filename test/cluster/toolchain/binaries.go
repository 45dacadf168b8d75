package toolchain

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Versions of what is built from Go modules. Those of the sidecars stand in this module's go.mod.
const (
	KubernetesVersion = "v1.36.3"
	containerdVersion = "v2.4.2"
)

// Paths are the folders that the toolchain reads and writes.
type Paths struct {
	Project string // root of the repository
	Output  string // the project's own programs, built anew each time
}

func (p Paths) module() string { return filepath.Join(p.Project, "test", "cluster") }

// Kubernetes builds the Kubernetes components and kubectl; the answer is the folder with one link for each.
func (c *Cache) Kubernetes(ctx context.Context, paths Paths) (dir string, err error) {
	module := paths.module()
	key, err := key([]string{KubernetesVersion}, []string{
		filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"), filepath.Join(module, "kubernetes")})
	if err != nil {
		return "", err
	}
	return c.get(ctx, "kubernetes", key, func(dir string) error {
		ldflags := "-s -w -X k8s.io/component-base/version.gitVersion=" + KubernetesVersion
		if err := goTool(ctx, module, nil, "build", "-trimpath", "-ldflags", ldflags, "-o", filepath.Join(dir, "kubernetes"), "./kubernetes"); err != nil {
			return err
		}
		for _, component := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"} {
			if err := os.Symlink("kubernetes", filepath.Join(dir, component)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Containerd builds containerd, its runc shim and ctr into the folder in the answer.
func (c *Cache) Containerd(ctx context.Context) (dir string, err error) {
	key, err := key([]string{containerdVersion}, nil)
	if err != nil {
		return "", err
	}
	return c.get(ctx, "containerd", key, func(dir string) error {
		const commands = "github.com/containerd/containerd/v2/cmd/"
		return goTool(ctx, os.TempDir(), []string{"GOBIN=" + dir}, "install", "-trimpath", "-ldflags", "-s -w",
			"-tags", "no_btrfs no_devmapper no_zfs", commands+"containerd@"+containerdVersion,
			commands+"containerd-shim-runc-v2@"+containerdVersion, commands+"ctr@"+containerdVersion)
	})
}

// Sidecars builds the CSI sidecars: those that go.mod names as tools, and this module's stand-ins for those that
// cannot be had as Go modules.
func (c *Cache) Sidecars(ctx context.Context, paths Paths) (dir string, err error) {
	module := paths.module()
	key, err := key(nil, []string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum"), filepath.Join(module, "sidecars")})
	if err != nil {
		return "", err
	}
	return c.get(ctx, "sidecars", key, func(dir string) error {
		return goTool(ctx, module, nil, "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "tool", "./sidecars/...")
	})
}

// Programs builds the project's own programs, as they stand in the work tree.
func Programs(ctx context.Context, paths Paths) error {
	if err := os.MkdirAll(paths.Output, 0o755); err != nil {
		return err
	}
	return goTool(ctx, paths.Project, nil, "build", "-trimpath", "-ldflags", "-s -w", "-o", paths.Output+"/", "./cmd/...")
}

// goTool runs the go command without cgo: the programs run in images and namespaces where the host's libraries are not.
func goTool(ctx context.Context, dir string, env []string, args ...string) error {
	// Version control is left out: a clone that belongs to another user than root would stop the build.
	command := exec.CommandContext(ctx, "go", slices.Insert(args, 1, "-buildvcs=false")...)
	command.Dir = dir
	command.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	return run(command)
}

func run(command *exec.Cmd) error {
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Run(); err != nil {
		text := strings.TrimSpace(output.String())
		if len(text) > 4000 {
			text = "…" + text[len(text)-4000:]
		}
		return fmt.Errorf("%s: %w\n%s", strings.Join(command.Args, " "), err, text)
	}
	return nil
}
