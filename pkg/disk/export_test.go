package disk

import (
	"context"

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
	for range cap(n.formats) {
		n.formats <- struct{}{}
	}
	return func() {
		for range cap(n.formats) {
			<-n.formats
		}
	}
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

// WriteExclusively and TryExclusively are writeExclusively and tryExclusively.
func WriteExclusively(ctx context.Context, path string, data []byte) error {
	return writeExclusively(ctx, Device{Path: path}, 0, data)
}

func TryExclusively(path string) error { return tryExclusively(Device{Path: path}) }

// DeviceGone is deviceGone.
func (n *Node) DeviceGone(m mount.MountInfo) bool { return n.deviceGone(m, m.MountPoint) }
