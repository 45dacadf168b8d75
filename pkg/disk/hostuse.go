package disk

import (
	"os"
	"path"
	"slices"
	"strings"

	"k8s.io/mount-utils"
)

// A PersistentVolume may name any disk of the account, also one that the node itself lives on, and the API marks few of those. The
// node sees it: a filesystem of the disk is mounted in the host's mount namespace, and the driver did not mount it.

// hostMountInfoFile is the host's view, as far as the driver sees the host's processes (hostPID); else it is the driver's own view.
const hostMountInfoFile = "/proc/1/mountinfo"

// systemFolders are where a system has its own filesystems.
var systemFolders = []string{"/", "/boot", "/boot/efi", "/efi", "/etc", "/home", "/opt", "/root", "/srv", "/tmp", "/usr", "/var"}

// requireNotHosts refuses a disk that the node itself uses.
func (n *Node) requireNotHosts(dev Device, volumeID string) error {
	stack := n.stack(dev)
	host, err := mount.ParseMountInfo(n.hostMountInfo)
	if err != nil {
		host = nil // whose processes the driver may not see
	}
	own, err := mount.ParseMountInfo(mountInfoFile)
	if err != nil {
		return err
	}
	uses := swapUsers(stack)
	for _, m := range hostMounts(host, own, inHostNamespace(), func(m mount.MountInfo) bool { return onStack(m, stack) }) {
		uses = append(uses, "mounted at "+unescape(m.MountPoint))
	}
	if len(uses) == 0 {
		return nil
	}
	return fail(ErrRefused, "the node itself uses the disk of volume %s (%s): %s; check whether the PersistentVolume names the right "+
		"storage, or end that use", volumeID, dev.Path, strings.Join(uses[:min(len(uses), mostUsers)], "; "))
}

// inHostNamespace tells whether the driver runs in the mount namespace of the host, in no container.
func inHostNamespace() bool {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	host, err := os.Readlink("/proc/1/ns/mnt")
	return err != nil || own == host
}

// hostMounts picks from the host's mounts of a disk those that the driver did not make. What it made is in its own namespace as
// well, as the same folder of the disk in the same group of mounts that follow each other. Where it has no namespace of its own,
// that says nothing, and only the folders of a system tell.
func hostMounts(host, own []mount.MountInfo, sameNamespace bool, ofDisk func(mount.MountInfo) bool) []mount.MountInfo {
	return slices.DeleteFunc(slices.Clone(host), func(m mount.MountInfo) bool {
		if !ofDisk(m) {
			return true
		}
		if slices.Contains(systemFolders, path.Clean(unescape(m.MountPoint))) {
			return false
		}
		return sameNamespace || slices.ContainsFunc(own, func(o mount.MountInfo) bool {
			return o.Major == m.Major && o.Minor == m.Minor && o.Root == m.Root && peerGroup(o) != "" && peerGroup(o) == peerGroup(m)
		})
	})
}

// peerGroup is the group of mounts that a mount shares its own mounts with, "" if it shares them with none.
func peerGroup(m mount.MountInfo) string {
	for _, field := range m.OptionalFields {
		if group, found := strings.CutPrefix(field, "shared:"); found {
			return group
		}
	}
	return ""
}
