package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupHierarchies are the folders that are the root of a cgroup tree: one on a cgroup v2 machine, one a controller on
// a cgroup v1 machine.
func cgroupHierarchies() ([]string, error) {
	if unified() {
		return []string{cgroupRoot}, nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, fmt.Errorf("find the cgroup hierarchies: %w", err)
	}
	var hierarchies []string
	for _, entry := range entries {
		if entry.IsDir() { // cpu,cpuacct and the like are links to one that is listed too
			hierarchies = append(hierarchies, filepath.Join(cgroupRoot, entry.Name()))
		}
	}
	return hierarchies, nil
}

func unified() bool {
	var stat unix.Statfs_t
	return unix.Statfs(cgroupRoot, &stat) == nil && stat.Type == unix.CGROUP2_SUPER_MAGIC
}

// MakeCgroups makes the cgroup name in every hierarchy, ready for a kubelet to make its own below it.
func MakeCgroups(name string) error {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		dir := filepath.Join(hierarchy, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the cgroup: %w", err)
		}
		if err := inheritCgroup(hierarchy, dir); err != nil {
			return err
		}
	}
	return nil
}

// inheritCgroup gives dir what a new cgroup does not get by itself: the parent's controllers in v2, the parent's cores
// and memory nodes in v1, without which no process may be put in it.
func inheritCgroup(parent, dir string) error {
	if unified() {
		controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, controller := range strings.Fields(string(controllers)) {
			// A controller that cannot be handed down (cpuset on some machines) is one the kubelet does without.
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0)
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
		}
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
			return fmt.Errorf("fill in the cgroup's %s: %w", file, err)
		}
	}
	return nil
}

// RemoveCgroups ends what still runs in the cgroups whose names match the pattern (path.Match), and removes them. It waits
// for the kernel to let go of them, two minutes at most.
func RemoveCgroups(pattern string) error {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return err
	}
	var failed error
	for _, hierarchy := range hierarchies {
		found, _ := filepath.Glob(filepath.Join(hierarchy, pattern))
		for _, dir := range found {
			failed = errors.Join(failed, removeCgroup(dir))
		}
	}
	return failed
}

func removeCgroup(root string) error {
	var dirs []string
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for i := len(dirs) - 1; i >= 0; i-- { // children before their parents
		if err := emptyAndRemove(dirs[i]); err != nil {
			return err
		}
	}
	return nil
}

func emptyAndRemove(dir string) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		err := syscall.Rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove the cgroup %s: %w", dir, err)
		}
		killCgroup(dir)
		time.Sleep(20 * time.Millisecond) // the kernel has no event for a cgroup v1 that became empty
	}
}

func killCgroup(dir string) {
	processes, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for _, line := range strings.Fields(string(processes)) {
		if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
