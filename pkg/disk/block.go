package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	"k8s.io/mount-utils"
)

// StageBlockRequest asks for the volume's device as it is, for a raw block volume.
type StageBlockRequest struct {
	Volume Volume
	// Path is the staging path, a folder. It gets a bind mount of the device node, by which PublishBlock knows that the
	// volume was staged, and which device is to be published.
	Path string
	// Encryption, if not nil, asks for an encrypted volume: what is published is the inside.
	Encryption *Encryption
	// ReadOnly neither encrypts a blank volume, nor lets anybody write to the inside of an encrypted one.
	ReadOnly bool
	// Origin names what the volume was copied from, "" if it was made empty. A copy is never encrypted anew.
	Origin string
}

// StageBlock waits for the volume's device and proves that it is the volume's, and opens it if it is encrypted, after
// encrypting it if it is provably blank. Doing it again is fine.
func (n *Node) StageBlock(ctx context.Context, req StageBlockRequest) error {
	if err := ValidateEncryption(req.Encryption); err != nil {
		return err
	}
	if err := n.findUsable(ctx, req.Volume); err != nil {
		return err
	}
	type stageBlockKey struct {
		volume       Volume
		path, origin string
		readOnly     bool
		encryption   [sha256.Size]byte
	}
	key := stageBlockKey{req.Volume, req.Path, req.Origin, req.ReadOnly, req.Encryption.fingerprint()}
	return n.jobs.run(ctx, req.Volume.ID, key, func(ctx context.Context) error {
		return n.stageBlock(ctx, req)
	})
}

func (n *Node) stageBlock(ctx context.Context, req StageBlockRequest) (err error) {
	dev, err := n.stillThere(req.Volume)
	if err != nil {
		return err
	}
	staged, err := n.blockStaged(ctx, dev, req)
	if staged || err != nil {
		return err
	}
	if err := n.requireNotHosts(dev, req.Volume.ID); err != nil {
		return err
	}
	if err := n.requireNotMounted(ctx, dev, req); err != nil {
		return err
	}
	if req.Encryption != nil {
		defer n.closeIfFailed(ctx, req.Volume.ID)(&err)
		dev, _, err = n.unlock(ctx, dev, StageRequest{
			Volume: req.Volume, Encryption: req.Encryption, ReadOnly: req.ReadOnly, Origin: req.Origin,
		})
		if err != nil {
			return err
		}
	}
	// Whoever gets the device may write to it: a marker of a format that was interrupted must not stay.
	if err := n.unmark(ctx, dev, req.Volume.ID); err != nil {
		return err
	}
	node := stagedNode(req.Path, req.Volume.ID)
	if err := makeFile(node); err != nil {
		return err
	}
	return n.bind(ctx, dev.Path, node, false)
}

// blockStaged tells whether the staging path has the node of the volume's device, as asked.
func (n *Node) blockStaged(ctx context.Context, dev Device, req StageBlockRequest) (bool, error) {
	node := stagedNode(req.Path, req.Volume.ID)
	top, err := n.top(ctx, node)
	if top == nil || err != nil {
		return false, err
	}
	on, err := n.deviceAt(node)
	if err != nil {
		return false, err
	}
	disk, err := n.diskOf(on, req.Volume.ID)
	if err != nil {
		return false, fail(ErrConflict, "%s is in use already, not by volume %s: %v", node, req.Volume.ID, err)
	}
	if disk.Major != dev.Major || disk.Minor != dev.Minor {
		klog.FromContext(ctx).Info("Taking down the node of an earlier attachment of the volume", "path", node, "device", disk.Path)
		if err := n.flush(ctx, disk, req.Volume.ID); err != nil {
			return false, err
		}
		return false, n.unmountAll(ctx, node)
	}
	mapping, err := n.mappingName(on)
	if err == nil && (mapping != "") != (req.Encryption != nil) {
		err = fail(ErrConflict, "volume %s is staged at %s %s, and %s was asked for",
			req.Volume.ID, req.Path, clarity(mapping != ""), clarity(req.Encryption != nil))
	}
	return err == nil, err
}

// requireNotMounted refuses to hand out the device of a volume beside its filesystem, which is mounted here: whoever writes
// to the one destroys the other.
func (n *Node) requireNotMounted(ctx context.Context, dev Device, req StageBlockRequest) error {
	if _, err := n.top(ctx, req.Path); err != nil { // a mount of an earlier attachment goes
		return err
	}
	all, err := mount.ParseMountInfo(mountInfoFile)
	if err != nil {
		return err
	}
	stack := n.stack(dev)
	for _, m := range all {
		if onStack(m, stack) {
			return fail(ErrConflict, "volume %s is mounted as %s at %s, and was asked for as a raw block volume: unstage it there first",
				req.Volume.ID, m.FsType, unescape(m.MountPoint))
		}
	}
	return nil
}

// requireNotRaw refuses to make or mount a filesystem on a volume that is staged as a raw block volume here.
func (n *Node) requireNotRaw(ctx context.Context, dev Device, volumeID string) error {
	all, err := mount.ParseMountInfo(mountInfoFile)
	if err != nil {
		return err
	}
	for _, m := range all {
		node := unescape(m.MountPoint)
		if !strings.EqualFold(filepath.Base(node), stagedNodePrefix+volumeID) {
			continue
		}
		if top, err := n.top(ctx, node); top == nil || err != nil { // that of an earlier attachment goes
			continue
		}
		on, err := n.deviceAt(node)
		if err == nil {
			on, err = n.diskOf(on, volumeID)
		}
		if err == nil && on.Major == dev.Major && on.Minor == dev.Minor {
			return fail(ErrConflict, "volume %s is staged as a raw block volume at %s, and was asked for as a filesystem: unstage it "+
				"there first", volumeID, filepath.Dir(node))
		}
	}
	return nil
}

// stagedNodePrefix begins the name of the node within the staging path of a raw block volume.
const stagedNodePrefix = "device-"

func stagedNode(stagingPath, volumeID string) string {
	return filepath.Join(stagingPath, stagedNodePrefix+volumeID)
}

// makeFile makes an empty file to mount a device node on, and the folders that it is in.
func makeFile(path string) error {
	if err := requireNoLink(path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	return file.Close()
}

// PublishBlockRequest asks for a staged raw block volume at one more path.
type PublishBlockRequest struct {
	Volume      Volume
	StagingPath string
	Path        string
	// ReadOnly makes the kernel refuse writes. It does so for the device as a whole, so that the volume is published
	// read-only at all paths or at none.
	ReadOnly bool
	// SingleWriter refuses when the volume is published at another path already.
	SingleWriter bool
}

// PublishBlock makes the volume's device node appear at req.Path, a file. Doing it again is fine.
func (n *Node) PublishBlock(ctx context.Context, req PublishBlockRequest) error {
	return n.jobs.run(ctx, req.Volume.ID, req, func(ctx context.Context) error {
		return n.publishBlock(ctx, req)
	})
}

func (n *Node) publishBlock(ctx context.Context, req PublishBlockRequest) error {
	dev, err := n.stagedBlock(ctx, req)
	if err != nil {
		return err
	}
	target, err := n.top(ctx, req.Path)
	if err != nil {
		return err
	}
	if target != nil && !isDevice(req.Path, dev) {
		staging := mount.MountInfo{MountPoint: stagedNode(req.StagingPath, req.Volume.ID)}
		earlier, err := n.takeDownEarlier(ctx, *target, staging, req.Volume.ID, req.Path)
		if err != nil {
			return err
		}
		if earlier {
			target = nil
		}
	}
	switch {
	case target != nil && !isDevice(req.Path, dev):
		return fail(ErrConflict, "something else than the device of volume %s is mounted at %s: %s",
			req.Volume.ID, req.Path, target.Source)
	case target != nil && readOnly(*target) != req.ReadOnly:
		return fail(ErrConflict, "volume %s is published at %s %s, and %s was asked for",
			req.Volume.ID, req.Path, writability(readOnly(*target)), writability(req.ReadOnly))
	case target != nil:
		return nil
	}
	others, err := blockPublications(dev, req.Path)
	if err != nil {
		return err
	}
	for _, other := range others {
		switch {
		case req.SingleWriter:
			return fail(ErrRefused, "volume %s may have a single writer and is published at %s already: unpublish it there first",
				req.Volume.ID, other.path)
		case other.readOnly != req.ReadOnly:
			return fail(ErrRefused, "volume %s is published at %s %s, and %s was asked for: a raw block device is read-only for all "+
				"its users or for none. Unpublish it there first",
				req.Volume.ID, other.path, writability(other.readOnly), writability(req.ReadOnly))
		}
	}
	if err := setReadOnly(dev, req.ReadOnly); err != nil {
		return err
	}
	if err := makeFile(req.Path); err != nil {
		return err
	}
	return n.bind(ctx, dev.Path, req.Path, req.ReadOnly)
}

// stagedBlock proves that the volume is staged as a raw block volume, and returns its device.
func (n *Node) stagedBlock(ctx context.Context, req PublishBlockRequest) (Device, error) {
	node := stagedNode(req.StagingPath, req.Volume.ID)
	top, err := n.top(ctx, node)
	if err != nil {
		return Device{}, err
	}
	if top == nil {
		return Device{}, fail(ErrNotStaged, "volume %s is not staged as a raw block volume: no device is mounted at %s",
			req.Volume.ID, node)
	}
	dev, err := n.deviceAt(node)
	if err == nil {
		_, err = n.diskOf(dev, req.Volume.ID)
	}
	if err != nil {
		return Device{}, fail(ErrNotStaged, "%s does not hold the device of volume %s: %v", node, req.Volume.ID, err)
	}
	dev.Path = node
	return dev, nil
}

type publication struct {
	path     string
	readOnly bool
}

// blockPublications lists where the node of a device is bind-mounted, but for one path and for staging paths.
func blockPublications(dev Device, except string) ([]publication, error) {
	all, err := mount.ParseMountInfo(mountInfoFile)
	if err != nil {
		return nil, err
	}
	var found []publication
	for _, m := range all {
		at := unescape(m.MountPoint)
		node := m.FsType == "devtmpfs" || m.FsType == "tmpfs" // what /dev is; others need not answer
		if !node || m.Root == "/" || at == except || strings.HasPrefix(filepath.Base(at), stagedNodePrefix) || !isDevice(at, dev) {
			continue
		}
		found = append(found, publication{path: at, readOnly: readOnly(m)})
	}
	return found, nil
}

func isDevice(path string, dev Device) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK &&
		int(unix.Major(st.Rdev)) == dev.Major && int(unix.Minor(st.Rdev)) == dev.Minor
}

// setReadOnly makes the kernel refuse or take writes to a device, whoever has its node. A disk that takes none by itself
// stays so.
func setReadOnly(dev Device, readOnly bool) error {
	file, err := os.OpenFile(dev.Path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	is, err := unix.IoctlGetInt(int(file.Fd()), unix.BLKROGET)
	if err != nil {
		return &fs.PathError{Op: "BLKROGET", Path: dev.Path, Err: err}
	}
	want := 0
	if readOnly {
		want = 1
	}
	if is == want {
		return nil
	}
	if err := unix.IoctlSetPointerInt(int(file.Fd()), unix.BLKROSET, want); err != nil {
		return &fs.PathError{Op: "BLKROSET", Path: dev.Path, Err: err}
	}
	return nil
}

// unpublishBlock takes down the node of a raw block volume. The last that goes takes the write protection along.
func (n *Node) unpublishBlock(ctx context.Context, volumeID, path string) error {
	dev, err := n.deviceAt(path)
	if err == nil {
		_, err = n.diskOf(dev, volumeID)
	}
	if err != nil { // the device is gone, or was never ours: there is nothing to reset
		return n.unmountAll(ctx, path)
	}
	others, err := blockPublications(dev, path)
	if err != nil {
		return err
	}
	if len(others) == 0 {
		dev.Path = path
		if err := setReadOnly(dev, false); err != nil && !errors.Is(err, unix.ENXIO) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return n.unmountAll(ctx, path)
}
