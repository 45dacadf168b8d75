package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"time"

	"k8s.io/klog/v2"
)

// StageRequest asks for the volume's filesystem at a path of the machine.
type StageRequest struct {
	Volume Volume
	Path   string
	// Filesystem is the type wanted; "" takes what is there, and DefaultFilesystem on a blank disk.
	Filesystem string
	// Options are further mount options.
	Options []string
	// MkfsOptions are further arguments of mkfs, for a volume that is formatted: see ValidateMkfsOptions.
	MkfsOptions []string
	// Encryption, if not nil, asks for an encrypted volume.
	Encryption *Encryption
	// ReadOnly mounts read-only, and neither formats nor repairs.
	ReadOnly bool
	// Origin names what the volume was copied from, "" if it was made empty. A copy is never formatted.
	Origin string
}

// key makes requests comparable: equal keys, equal work.
func (r StageRequest) key() any {
	type stageKey struct {
		volume                                  Volume
		path, filesystem, options, mkfs, origin string
		readOnly                                bool
		encryption                              [sha256.Size]byte
	}
	return stageKey{
		r.Volume, r.Path, r.Filesystem, strings.Join(r.Options, "\x00"), strings.Join(r.MkfsOptions, "\x00"), r.Origin,
		r.ReadOnly, r.Encryption.fingerprint(),
	}
}

// Stage mounts the volume at req.Path, formatting it first if it is provably blank. Doing it again is fine.
//
// The wait for the device honours ctx. What follows (probe, mkfs, fsck, mount) runs to its end once begun, also when
// ctx ends before; the same request joins it.
func (n *Node) Stage(ctx context.Context, req StageRequest) error {
	if err := ValidateFilesystem(req.Filesystem); err != nil {
		return err
	}
	if err := ValidateMountOptions(req.Options, false); err != nil { // for reading only is what has the last word
		return err
	}
	if err := ValidateEncryption(req.Encryption); err != nil {
		return err
	}
	if err := n.findUsable(ctx, req.Volume); err != nil {
		return err
	}
	return n.jobs.run(withPatience(ctx), req.Volume.ID, req.key(), func(ctx context.Context) error {
		return n.stage(ctx, req)
	})
}

func (n *Node) stage(ctx context.Context, req StageRequest) (err error) {
	dev, err := n.stillThere(req.Volume)
	if err != nil {
		return err
	}
	staged, err := n.staged(ctx, dev, req)
	if err != nil {
		return err
	}
	if staged {
		if req.ReadOnly {
			return nil
		}
		return n.growStaged(ctx, req) // in case the first try ended in between
	}
	if err := n.requireNotHosts(dev, req.Volume.ID); err != nil {
		return err
	}
	if err := n.requireNotRaw(ctx, dev, req.Volume.ID); err != nil {
		return err
	}
	if !req.ReadOnly { // a node that died may have left the disk protected from writing
		if err := setReadOnly(dev, false); err != nil {
			return err
		}
	}
	on, fresh := dev, false // on is what the filesystem or the partition table is on
	if req.Encryption != nil {
		defer n.closeIfFailed(ctx, req.Volume.ID)(&err)
		if on, fresh, err = n.unlock(ctx, dev, req); err != nil {
			return err
		}
	}
	source, fsType, err := n.prepare(ctx, on, fresh, req)
	if err != nil {
		return n.explainBusy(err, on, req.Volume.ID)
	}
	if source.Name != on.Name { // a partition
		release, err := lockFromUdev(ctx, dev)
		if err != nil {
			return err
		}
		defer release()
	}
	if !req.ReadOnly {
		if source, err = n.growBeforeMount(ctx, dev, source, fsType, req); err != nil {
			return err
		}
	}
	if err := makeFolder(req.Path); err != nil {
		return err
	}
	// mkfs and fsck take their time, in which nothing keeps the disk from being detached.
	if err := n.verifyAgain(source, req.Volume); err != nil {
		return err
	}
	if fsType == "btrfs" {
		if err := n.requireNoTwin(ctx, source, req.Volume.ID); err != nil {
			return err
		}
	}
	options := slices.Concat(req.Options, filesystemTypes[fsType].mountOptions)
	elsewhere := n.mountedAnywhere(source)
	switch {
	case req.ReadOnly && elsewhere: // goes if it is read-only there, too: its journal tells nothing now
		options = append(options, "ro")
	case req.ReadOnly:
		more, err := n.readOnlyOptions(ctx, source, fsType, req)
		if err != nil {
			return err
		}
		options = append(options, more...)
	}
	if err := n.mountDevice(ctx, source.Path, req.Path, fsType, options); err != nil {
		return n.explainBusy(err, source, req.Volume.ID)
	}
	if elsewhere {
		if err := n.requireUsable(ctx, source, req); err != nil {
			return errors.Join(err, n.unmountAll(ctx, req.Path))
		}
	}
	if req.ReadOnly {
		return nil
	}
	if err := n.growStaged(ctx, req); err != nil {
		// Who gets an error takes the volume for not staged: kubelets let it be detached then without unstaging it.
		return errors.Join(err, n.unmountAll(ctx, req.Path))
	}
	return nil
}

// staged tells whether the volume is mounted at the staging path already, as asked.
func (n *Node) staged(ctx context.Context, dev Device, req StageRequest) (bool, error) {
	top, err := n.top(ctx, req.Path)
	if top == nil || err != nil {
		return false, err
	}
	disk, err := n.holds(top, req.Volume.ID)
	if err != nil {
		return false, fail(ErrConflict, "%s is in use already, not by volume %s: %v", req.Path, req.Volume.ID, err)
	}
	if disk.Major != dev.Major || disk.Minor != dev.Minor {
		klog.FromContext(ctx).Info("Taking down a mount of an earlier attachment of the volume", "path", req.Path,
			"source", top.Source, "device", dev.Path)
		if err := n.flush(ctx, disk, req.Volume.ID); err != nil {
			return false, err
		}
		return false, n.unmountAll(ctx, req.Path)
	}
	on, err := n.deviceOf(top)
	if err != nil {
		return false, err
	}
	mapping, err := n.mappingName(on)
	if err != nil {
		return false, err
	}
	if reason, err := n.deadReason(ctx, *top, req.Volume.ID, req.Path); err != nil {
		return false, err
	} else if reason != "" {
		return false, n.takeDownDead(ctx, *top, req.Volume.ID, reason, req.Path)
	}
	wantReadOnly := req.ReadOnly || asksReadOnly(req.Options)
	switch {
	case req.Filesystem != "" && req.Filesystem != top.FsType:
		return false, fail(ErrConflict, "volume %s is staged at %s as %s, and %s was asked for",
			req.Volume.ID, req.Path, top.FsType, req.Filesystem)
	case (mapping != "") != (req.Encryption != nil):
		return false, fail(ErrConflict, "volume %s is staged at %s %s, and %s was asked for",
			req.Volume.ID, req.Path, clarity(mapping != ""), clarity(req.Encryption != nil))
	case wantReadOnly != readOnly(*top):
		return false, fail(ErrConflict, "volume %s is staged at %s %s, and %s was asked for",
			req.Volume.ID, req.Path, writability(readOnly(*top)), writability(wantReadOnly))
	}
	if difference := optionConflict(*top, req.Options); difference != "" {
		return false, fail(ErrConflict, "volume %s is staged at %s with other mount options: %s (asked for: %q; in effect: %q); unstage it "+
			"first (in Kubernetes, delete all Pods on this node that use it), or ask for the same options", req.Volume.ID, req.Path,
			difference, strings.Join(req.Options, ","), strings.Join(slices.Concat(top.MountOptions, top.SuperOptions), ","))
	}
	return true, nil
}

// asksReadOnly tells whether mount options make a mount read-only: the last that says something counts.
func asksReadOnly(options []string) (readOnly bool) {
	for option := range strings.SplitSeq(strings.Join(options, ","), ",") {
		switch option {
		case "ro":
			readOnly = true
		case "rw":
			readOnly = false
		}
	}
	return readOnly
}

func writability(readOnly bool) string {
	if readOnly {
		return "read-only"
	}
	return "for writing"
}

func clarity(encrypted bool) string {
	if encrypted {
		return "encrypted"
	}
	return "in the clear"
}

func (n *Node) mountDevice(ctx context.Context, source, path, fsType string, options []string) (err error) {
	defer n.observe("mount", time.Now(), &err)
	defer doing(ctx, "mounting "+source)()
	klog.FromContext(ctx).V(2).Info("Mounting", "device", source, "path", path, "filesystem", fsType, "options", options)
	return n.mounter.Mount(source, path, fsType, options)
}

// Unstage takes down everything that is mounted at path, and the volume's mapping if it is encrypted. Nothing there, or no
// such path, is fine. The folder stays: it belongs to the caller.
//
// It fails with ErrInUse while anything on the machine uses the volume, as it is going to be detached next. What was written until
// then is on the disk when it returns.
func (n *Node) Unstage(ctx context.Context, volumeID, path string) error {
	type unstageKey struct{ path string }
	return n.jobs.run(withPatience(ctx), volumeID, unstageKey{path}, func(ctx context.Context) error {
		return n.unstage(ctx, volumeID, path)
	})
}

func (n *Node) unstage(ctx context.Context, volumeID, path string) (err error) {
	if err := n.flushVolume(ctx, volumeID, path); err != nil {
		return err
	}
	defer n.flushIfFailed(ctx, volumeID, path, &err)
	if err := n.unmountAll(ctx, path); err != nil {
		return err
	}
	if !isVolumeID(volumeID) {
		return nil // nothing else can be left of it, and its node would have any path
	}
	node := stagedNode(path, volumeID) // in the folder that nothing is mounted on any more
	if err := n.unmountAll(ctx, node); err != nil {
		return err
	}
	if err := removePath(node); err != nil {
		return err
	}
	if err := n.closeVolume(ctx, volumeID); err != nil {
		return err
	}
	disk, err := n.lookup(Volume{ID: volumeID})
	if err != nil {
		klog.FromContext(ctx).V(4).Info("The device of the unstaged volume is not here", "seen", err.Error())
		return nil
	}
	return n.requireReleased(ctx, disk, volumeID)
}
