package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"
)

// mostUsers is how many users an error names.
const mostUsers = 5

// users tells who uses a device, as far as it can be seen from here: mounts in this and in other mount namespaces, processes,
// devices on top, swap.
func (n *Node) users(dev Device) []string {
	stack := n.stack(dev)
	mounted := n.mountsOf(stack)
	var users []string
	for _, m := range mounted {
		users = append(users, m.String())
	}
	for _, part := range stack {
		if part.Name != dev.Name && part.mapping != "" {
			users = append(users, "the mapping "+part.mapping)
		}
	}
	users = slices.Concat(users, loopUsers(n.sysDir, stack), swapUsers(stack))
	if len(users) < mostUsers {
		users = append(users, processUsers(stack, mounted)...)
	}
	return users[:min(len(users), mostUsers)]
}

// describeUsers is users in words.
func (n *Node) describeUsers(dev Device) string {
	users := n.users(dev)
	if len(users) == 0 {
		return fmt.Sprintf("something that cannot be seen from here: on the node, run grep %s /proc/*/mountinfo, and lsof %s",
			filepath.Base(dev.Path), dev.Path)
	}
	return strings.Join(users, "; ")
}

// usedMount is a mount of a volume in some mount namespace.
type usedMount struct {
	mount.MountInfo
	process string // folder in /proc of a process in that namespace, "" for this process's own namespace
}

func (m usedMount) String() string {
	text := "mounted at " + unescape(m.MountPoint)
	if m.process == "" {
		return text
	}
	return text + " in the mount namespace of " + processName(m.process)
}

// reachable is a path by which this process reaches the mount.
func (m usedMount) reachable() string {
	if m.process == "" {
		return unescape(m.MountPoint)
	}
	return m.process + "/root" + unescape(m.MountPoint)
}

// processName is the ID and the program's name of a process, given its folder in /proc.
func processName(folder string) string {
	comm, _ := readText(filepath.Join(folder, "comm"))
	return fmt.Sprintf("process %s (%s)", filepath.Base(folder), comm)
}

// mountsOf lists the mounts of the devices, in this mount namespace and, where this process may see the others, in theirs: each
// namespace once, with a process that is in it.
func (n *Node) mountsOf(stack []layer) (found []usedMount) {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	seen := map[string]bool{own: true}
	found = ownMountsOf(stack)
	namespaces, _ := filepath.Glob("/proc/[0-9]*/ns/mnt")
	for _, link := range namespaces {
		namespace, err := os.Readlink(link)
		if err != nil || seen[namespace] {
			continue
		}
		seen[namespace] = true
		process := filepath.Dir(filepath.Dir(link))
		found = append(found, mountsIn(filepath.Join(process, "mountinfo"), process, stack)...)
	}
	return found
}

// ownMountsOf lists the mounts of the devices in this mount namespace.
func ownMountsOf(stack []layer) []usedMount { return mountsIn(mountInfoFile, "", stack) }

func mountsIn(file, process string, stack []layer) (found []usedMount) {
	infos, err := mount.ParseMountInfo(file)
	if err != nil {
		return nil // the process has ended
	}
	for _, m := range infos {
		if onStack(m, stack) {
			found = append(found, usedMount{m, process})
		}
	}
	return found
}

// layer is a device of a stack.
type layer struct {
	Device
	mapping string // name of the mapping, "" for disks and partitions
}

// stack returns the device, its partitions and everything that is on top of them.
func (n *Node) stack(dev Device) []layer {
	name, _ := n.mappingName(dev)
	found := []layer{{Device: dev, mapping: name}}
	for i := 0; i < len(found) && len(found) < 256; i++ {
		dir := n.numberDir(found[i].Major, found[i].Minor)
		partitions, _ := filepath.Glob(filepath.Join(dir, found[i].Name+"*", "partition"))
		holders, _ := filepath.Glob(filepath.Join(dir, "holders", "*", "dev"))
		for _, file := range slices.Concat(partitions, holders) {
			on, err := n.deviceIn(filepath.Dir(file))
			known := func(l layer) bool { return l.Major == on.Major && l.Minor == on.Minor }
			if err != nil || slices.ContainsFunc(found, known) {
				continue
			}
			name, _ := n.mappingName(on)
			found = append(found, layer{Device: on, mapping: name})
		}
	}
	return found
}

// onStack tells whether a mount is of a filesystem on one of the devices.
func onStack(m mount.MountInfo, stack []layer) bool {
	return slices.ContainsFunc(stack, func(l layer) bool {
		if m.FsType == "btrfs" { // whose number is of the kernel's own making
			return m.Source == l.Path || m.Source == "/dev/"+l.Name || l.mapping != "" && m.Source == "/dev/mapper/"+l.mapping
		}
		return m.Major == l.Major && m.Minor == l.Minor
	})
}

// numberOnStack tells whether a device number is one of the stack's.
func numberOnStack(major, minor uint32, stack []layer) bool {
	return slices.ContainsFunc(stack, func(l layer) bool { return uint32(l.Major) == major && uint32(l.Minor) == minor })
}

// processUsers lists the processes that have a file of the mounted filesystems open or work in one of their folders, or that
// have one of the devices open. It asks no filesystem, as that may hang.
func processUsers(stack []layer, mounted []usedMount) (users []string) {
	var points []string
	for _, m := range mounted {
		if m.process == "" {
			points = append(points, unescape(m.MountPoint))
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		links, _ := filepath.Glob(process + "/fd/*")
		links = append([]string{process + "/cwd", process + "/root", process + "/exe"}, links...)
		at := slices.IndexFunc(links, func(link string) bool { return leadsTo(link, stack, points) })
		if at < 0 {
			continue
		}
		path, _ := os.Readlink(links[at])
		verb := "has open"
		if at < 2 {
			verb = "works in"
		}
		users = append(users, fmt.Sprintf("%s %s %s", processName(process), verb, path))
		if len(users) == mostUsers {
			break
		}
	}
	return users
}

// leadsTo tells whether a link in /proc leads to one of the devices, to a file on one of them, or to a path below one of the mount
// points: a filesystem that was shut down does not say where its files are.
func leadsTo(link string, stack []layer, points []string) bool {
	var st unix.Statx_t
	// The attributes that the kernel has will do: those of a network filesystem may take for ever to come.
	if err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC, 0, &st); err == nil {
		device := st.Mode&unix.S_IFMT == unix.S_IFBLK && numberOnStack(st.Rdev_major, st.Rdev_minor, stack)
		if device || numberOnStack(st.Dev_major, st.Dev_minor, stack) {
			return true
		}
	}
	path, err := os.Readlink(link)
	return err == nil && slices.ContainsFunc(points, func(point string) bool {
		return path == point || strings.HasPrefix(path, point+"/")
	})
}

// loopUsers lists the loop devices that have one of the devices as their file: kubelets make one for each raw block volume.
func loopUsers(sysDir string, stack []layer) (users []string) {
	files, _ := filepath.Glob(filepath.Join(sysDir, "block", "loop*", "loop", "backing_file"))
	for _, file := range files {
		path, err := readText(file)
		if err != nil {
			continue
		}
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, 0, &st); err != nil {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFBLK && numberOnStack(st.Rdev_major, st.Rdev_minor, stack) {
			users = append(users, fmt.Sprintf("the loop device /dev/%s on %s", filepath.Base(filepath.Dir(filepath.Dir(file))), path))
		}
	}
	return users
}

func swapUsers(stack []layer) (users []string) {
	text, err := readText("/proc/swaps")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, " ")
		for _, l := range stack {
			if name == l.Path || name == "/dev/"+l.Name {
				users = append(users, "swap on "+name)
			}
		}
	}
	return users
}

// inUse is the error for a mount that cannot be taken down.
func (n *Node) inUse(m mount.MountInfo, path string) error {
	users := []string{"a process works in it or has a file of it open"}
	if dev, err := n.deviceUnder(m, path); err == nil {
		stack := n.stack(dev)
		if named := append(loopUsers(n.sysDir, stack), processUsers(stack, []usedMount{{MountInfo: m}})...); len(named) > 0 {
			users = named
		}
	}
	return fail(ErrInUse, "%s cannot be unmounted, as it is in use: %s; end that first", path, strings.Join(users, "; "))
}
