package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/mount-utils"
)

// Condition is how a volume is, as CSI's VolumeCondition has it.
type Condition struct {
	Abnormal bool
	// Message says what is wrong and what to do, or that nothing is known to be wrong.
	Message string
}

func abnormal(format string, args ...any) Condition {
	return Condition{Abnormal: true, Message: fmt.Sprintf(format, args...)}
}

// Condition tells how the volume at path is: whether its disk has left the machine, its filesystem stopped taking writes
// or any work, or the kernel recorded errors of it. It fails with ErrNotMounted when the volume is not there.
//
// A disk that hangs is waited for until ctx ends.
func (n *Node) Condition(ctx context.Context, volumeID, path string) (Condition, error) {
	return look(ctx, n, volumeID, path, n.condition)
}

func (n *Node) condition(volumeID, path string) (Condition, error) {
	mounts, err := mountsAt(path)
	if err != nil {
		return Condition{}, err
	}
	if len(mounts) == 0 {
		return Condition{}, fail(ErrNotMounted, "volume %s is not at %s: nothing is mounted there", volumeID, path)
	}
	top := mounts[len(mounts)-1]
	if n.deviceGone(top, path) {
		return hasLeft(volumeID, path), nil
	}
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); {
	case isShutDown(err):
		return abnormal("the filesystem of volume %s at %s was shut down after an error (%v). Delete the Pod, so that it is "+
			"repaired and mounted again", volumeID, path, err), nil
	case err != nil:
		return Condition{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	case st.Mode&unix.S_IFMT == unix.S_IFBLK:
		if n.pulled(int(unix.Major(st.Rdev)), int(unix.Minor(st.Rdev))) {
			return hasLeft(volumeID, path), nil
		}
		if _, err := n.blockStats(volumeID, path, st); err != nil {
			return Condition{}, err
		}
		return Condition{Message: "the device is there"}, nil
	}
	disk, err := n.holds(&top, volumeID)
	if err != nil {
		return Condition{}, fail(ErrNotMounted, "volume %s is not at %s: %v", volumeID, path, err)
	}
	// A disk that was pulled may stay known for as long as it is mounted, and come back as another device meanwhile.
	now, lookupErr := n.lookup(Volume{ID: volumeID})
	if gone := lookupErr != nil || now.Major != disk.Major || now.Minor != disk.Minor; gone {
		return hasLeft(volumeID, path), nil
	}
	return n.filesystemCondition(top, volumeID, path)
}

func hasLeft(volumeID, path string) Condition {
	return abnormal("the disk of volume %s has left this node while it was mounted at %s: what was written last may be lost. "+
		"Delete the Pod, so that the volume is attached and mounted again", volumeID, path)
}

// pulled tells whether a disk of a simulated server was detached while somebody had it open: its device has no file then.
func (n *Node) pulled(major, minor int) bool {
	if major != loopMajor {
		return false
	}
	_, err := readText(filepath.Join(n.numberDir(major, minor), "loop", "backing_file"))
	return errors.Is(err, fs.ErrNotExist)
}

func (n *Node) filesystemCondition(m mount.MountInfo, volumeID, path string) (Condition, error) {
	turned, err := turnedReadOnly(m)
	if err != nil {
		return Condition{}, err
	}
	if turned {
		return abnormal("the filesystem of volume %s at %s takes no more writes: the kernel made it read-only after an error (see "+
			"dmesg). Delete the Pod, so that it is checked and mounted again", volumeID, path), nil
	}
	recorded, err := n.recordedErrors(m)
	if err != nil {
		return Condition{}, err
	}
	if recorded != "" {
		return abnormal("the filesystem of volume %s at %s has errors on record: %s", volumeID, path, recorded), nil
	}
	return Condition{Message: "no errors are known"}, nil
}

// turnedReadOnly tells whether the kernel made a filesystem read-only that was mounted for writing: the mounts of it say
// "rw" then, and the filesystem itself "ro". Since Linux 6.15 ext4 says "emergency_ro" instead; from 6.12 on, and on older
// ones that took the change over, it says nothing: then its errors tell.
func turnedReadOnly(m mount.MountInfo) (bool, error) {
	if slices.Contains(m.SuperOptions, "emergency_ro") || slices.Contains(m.SuperOptions, "shutdown") {
		return true, nil
	}
	if !slices.Contains(m.SuperOptions, "ro") {
		return false, nil
	}
	all, err := mount.ParseMountInfo(mountInfoFile)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(other mount.MountInfo) bool {
		return other.Major == m.Major && other.Minor == m.Minor && slices.Contains(other.MountOptions, "rw")
	}), nil
}

// recordedErrors returns what the kernel has on record of a filesystem, "" if nothing.
func (n *Node) recordedErrors(m mount.MountInfo) (string, error) {
	switch {
	case isExt(m.FsType):
		dev, err := n.deviceOf(&m)
		if err != nil {
			return "", err
		}
		text, err := extErrors(filepath.Join(n.sysDir, "fs", "ext4", dev.Name))
		if text != "" && slices.Contains(m.SuperOptions, "errors=remount-ro") {
			text = "it takes no more writes, as it is mounted with errors=remount-ro; errors: " + text
		}
		return text, err
	case m.FsType == "btrfs":
		dir, err := n.btrfsDir(unescape(m.MountPoint))
		if err != nil {
			return "", err
		}
		return btrfsErrors(dir)
	}
	return "", nil // an XFS with errors shuts down
}

// extErrors reads the counter in the superblock, which is kept until e2fsck repairs.
func extErrors(dir string) (string, error) {
	count, err := readInt(filepath.Join(dir, "errors_count"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && count == 0 {
		return "", nil // ext2 and 3 of an old kernel's own drivers have no counter
	}
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("%d since it was last repaired", count)
	function, _ := readText(filepath.Join(dir, "last_error_func"))
	if seconds, err := readInt(filepath.Join(dir, "last_error_time")); err == nil && seconds > 0 {
		text += fmt.Sprintf(", the last one at %s in %s", time.Unix(seconds, 0).UTC().Format(time.RFC3339), function)
	}
	return text + ". Run e2fsck on the device while the volume is not mounted", nil
}

// btrfsErrors reads the counters of the filesystem's device, which are kept until somebody resets them.
func btrfsErrors(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "devinfo", "*", "error_stats"))
	if err != nil {
		return "", err
	}
	var found []string
	for _, file := range files { // none before Linux 5.14
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(data)) {
			name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
			if count, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64); err == nil && count > 0 {
				found = append(found, fmt.Sprintf("%s %d", name, count))
			}
		}
	}
	if len(found) == 0 {
		return "", nil
	}
	return strings.Join(found, ", ") + ". Run btrfs scrub on it, restore what it cannot mend, and then btrfs device stats --reset", nil
}
