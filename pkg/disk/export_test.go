package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/mount-utils"
)

// Hold keeps the volume's turn until release is called.
func (n *Node) Hold(volumeID string) (release func()) {
	begun, end := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = n.jobs.run(context.Background(), volumeID, end, func(context.Context) error {
			close(begun)
			<-end
			return nil
		})
	}()
	<-begun
	return func() {
		close(end)
		<-done
	}
}

// HoldFormats keeps volumes from being formatted until release is called.
func (n *Node) HoldFormats() (release func()) {
	var releases []func()
	for range n.formats.limit {
		looks := 0
		goesOn := func() string { looks++; return strconv.Itoa(looks) }
		releases = append(releases, n.formats.take(&turn{doing: newActivity(), progress: goesOn}))
	}
	return func() {
		for _, release := range releases {
			release()
		}
	}
}

// WithStallTime has a format count as hung when it makes no progress for so long.
func (n *Node) WithStallTime(d time.Duration) {
	n.formats.mu.Lock()
	defer n.formats.mu.Unlock()
	n.formats.stallTime = d
}

// WithoutWatchers makes the node unable to watch for devices, as one is whose kernel has no watchers left.
func (n *Node) WithoutWatchers(err error) {
	n.newWatcher = func() (*fsnotify.Watcher, error) { return nil, err }
}

// WithCheapKeys makes keys of encrypted volumes cost nothing to try, so that tests are quick.
func (n *Node) WithCheapKeys() {
	n.keyCost = []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
}

// MayGrowMountedExt is mayGrowMountedExt, for tests to know what can be tested here.
func MayGrowMountedExt() bool { return mayGrowMountedExt() }

// WriteExclusively writes to the start of a disk that is open exclusively.
func (n *Node) WriteExclusively(ctx context.Context, path string, data []byte) error {
	return n.exclusively(ctx, Device{Path: path}, os.O_WRONLY, func(file *os.File) error {
		_, err := file.Write(data)
		return errors.Join(err, file.Sync())
	})
}

// TryExclusively is tryExclusively.
func TryExclusively(path string) error { return tryExclusively(Device{Path: path}) }

// Look is look, with what asks the kernel.
func (n *Node) Look(ctx context.Context, volumeID, path string, ask func()) error {
	_, err := look(ctx, n, volumeID, path, func(string, string) (bool, error) {
		ask()
		return true, nil
	})
	return err
}

// DeviceGone is deviceGone.
func (n *Node) DeviceGone(m mount.MountInfo) bool { return n.deviceGone(m, m.MountPoint) }

// OptionConflict is optionConflict of a mount with the options that the kernel shows of it and of its filesystem.
func OptionConflict(fsType, mountOptions, superOptions string, asked ...string) string {
	return optionConflict(mount.MountInfo{
		FsType: fsType, MountOptions: splitOptions([]string{mountOptions}), SuperOptions: splitOptions([]string{superOptions}),
	}, asked)
}

// AnswerBefore is answerBefore.
func AnswerBefore(ctx context.Context) (context.Context, context.CancelFunc) {
	return answerBefore(ctx)
}

// WithHostMounts takes the mounts of the host from a file in the form of /proc/PID/mountinfo.
func (n *Node) WithHostMounts(file string) { n.hostMountInfo = file }

// HostMounts is hostMounts for lines of mountinfo and the number of a disk. It returns the paths.
func HostMounts(t *testing.T, host, own []string, sameNamespace bool, major, minor int) (paths []string) {
	t.Helper()
	parse := func(lines []string) []mount.MountInfo {
		file := filepath.Join(t.TempDir(), "mountinfo")
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		infos, err := mount.ParseMountInfo(file)
		if err != nil {
			t.Fatal(err)
		}
		return infos
	}
	ofDisk := func(m mount.MountInfo) bool { return m.Major == major && m.Minor == minor }
	for _, m := range hostMounts(parse(host), parse(own), sameNamespace, ofDisk) {
		paths = append(paths, m.MountPoint)
	}
	return paths
}
