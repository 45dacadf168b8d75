package disk

import (
	"context"
	"slices"
	"strings"
	"time"

	"k8s.io/klog/v2"
)

// DefaultFilesystem is made on a blank volume when nobody asks for another.
const DefaultFilesystem = "ext4"

// filesystemType is what we need to know of a kind of filesystem.
type filesystemType struct {
	mkfs string // the program
	// arguments are all those of mkfs: the device, what the driver decides on, and what was asked for in addition. What the
	// driver needs stands where mkfs lets nothing else undo it.
	arguments func(dev Device, id string, asked []mkfsOption) []string
	// options are those that may be asked for in addition.
	options optionSet
	// fsck is the program that repairs what can be repaired without asking, nil if mounting does that.
	fsck []string
	// mountOptions are always given.
	mountOptions []string
}

// The disk is known to be blank, so discarding it first would only take time, and it would take the marker of a format
// in progress with it. No -F and no -f: mkfs.xfs and mkfs.btrfs refuse then when they find something after all. nouuid lets an
// XFS volume be mounted beside its own clone; for btrfs see requireNoTwin. XFS and btrfs replay their journals when they are
// mounted, and their programs that repair are for people.
var filesystemTypes = map[string]filesystemType{
	"ext2":  {mkfs: "mkfs.ext2", arguments: extArguments, fsck: []string{"e2fsck", "-p"}, options: extOptions},
	"ext3":  {mkfs: "mkfs.ext3", arguments: extArguments, fsck: []string{"e2fsck", "-p"}, options: extOptions},
	"ext4":  {mkfs: "mkfs.ext4", arguments: extArguments, fsck: []string{"e2fsck", "-p"}, options: extOptions},
	"xfs":   {mkfs: "mkfs.xfs", arguments: xfsArguments, mountOptions: []string{"nouuid"}, options: xfsOptions},
	"btrfs": {mkfs: "mkfs.btrfs", arguments: btrfsArguments, options: btrfsOptions},
}

// Filesystems lists the types of filesystem that volumes can have.
func Filesystems() []string {
	names := make([]string, 0, len(filesystemTypes))
	for name := range filesystemTypes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// ValidateFilesystem tells whether volumes can have the type of filesystem; "" stands for any.
func ValidateFilesystem(name string) error {
	if _, ok := filesystemTypes[name]; !ok && name != "" {
		return fail(ErrInvalid, "filesystem type %q is not supported: use one of %s", name, strings.Join(Filesystems(), ", "))
	}
	return nil
}

// prepare returns the device to mount (the disk, or its only partition), the type of the filesystem on it, and makes
// that filesystem first if the disk is provably blank. It changes nothing in any other case but repairs by fsck. fresh says
// that the device was marked just now, by the caller.
func (n *Node) prepare(ctx context.Context, dev Device, fresh bool, req StageRequest) (Device, string, error) {
	found, err := n.probe(ctx, dev.Path)
	if err != nil {
		return Device{}, "", err
	}
	interrupted, err := marked(dev, req.Volume.ID)
	if err != nil {
		return Device{}, "", err
	}
	if interrupted && (found != content{filesystem: "btrfs"} || req.ReadOnly) {
		return n.formatAgain(ctx, dev, found, fresh, req)
	}
	if interrupted { // mkfs.btrfs writes the signature last: this is a whole filesystem, maybe one in use
		if err := n.unmark(ctx, dev, req.Volume.ID); err != nil {
			return Device{}, "", err
		}
	}
	if found.partitionTable != "" && found.filesystem == "" {
		if dev, err = n.onlyPartition(dev, found, req.Volume.ID); err != nil {
			return Device{}, "", err
		}
		if found, err = n.probe(ctx, dev.Path); err != nil {
			return Device{}, "", err
		}
		if found.blank() {
			return Device{}, "", fail(ErrRefused, "volume %s has a partition (%s) without a filesystem, and the driver "+
				"formats whole blank disks only: make a filesystem on the partition by hand, or erase the partition table",
				req.Volume.ID, dev.Path)
		}
	}
	if found.blank() {
		return n.formatBlank(ctx, dev, req)
	}
	if err := acceptable(found, dev, req); err != nil {
		return Device{}, "", err
	}
	if req.ReadOnly {
		return dev, found.filesystem, nil
	}
	return dev, found.filesystem, n.check(ctx, dev, found.filesystem)
}

// acceptable tells whether what was found can be mounted for the request.
func acceptable(found content, dev Device, req StageRequest) error {
	_, supported := filesystemTypes[found.filesystem]
	switch {
	case found.filesystem == luksType && !found.ambiguous:
		return fail(ErrRefused, "volume %s (%s) is encrypted (LUKS), and was asked for as a plain one: it can be mounted with its "+
			"passphrase only. Ask for it as it was made, with encryption on the node", req.Volume.ID, dev.Path)
	case found.ambiguous || found.partitionTable != "" || !supported:
		return fail(ErrRefused, "volume %s (%s) holds %s, which the driver can neither mount nor will overwrite. "+
			"Use it as a raw block volume, or move the data off and erase it", req.Volume.ID, dev.Path, found)
	case req.Filesystem != "" && req.Filesystem != found.filesystem:
		return fail(ErrRefused, "volume %s (%s) holds %s, and %s was asked for: it is not overwritten. "+
			"Ask for %s, or for a new volume", req.Volume.ID, dev.Path, found, req.Filesystem, found.filesystem)
	}
	return nil
}

// onlyPartition returns partition 1 of a disk that has no other: the layout that UpCloud's own CSI driver makes.
func (n *Node) onlyPartition(disk Device, found content, volumeID string) (Device, error) {
	parts, err := n.partitions(disk)
	if err != nil {
		return Device{}, err
	}
	first, ok := parts[1]
	if len(parts) != 1 || !ok {
		return Device{}, fail(ErrRefused, "volume %s (%s) holds %s with %d partitions known to the kernel; only disks "+
			"with a filesystem on the whole disk or on one partition with number 1 can be mounted. "+
			"Use it as a raw block volume", volumeID, disk.Path, found, len(parts))
	}
	return first, nil
}

// mayFormat tells whether the request lets a disk without data be formatted. What may be asked of mkfs is looked at only then: a
// volume keeps its options for good, and may have been formatted when others were allowed.
func mayFormat(dev Device, req StageRequest) error {
	switch {
	case req.ReadOnly:
		return fail(ErrRefused, "volume %s (%s) is blank and asked for read-only: there is nothing to read, "+
			"and nothing is written. Use it once for writing first", req.Volume.ID, dev.Path)
	case req.Origin != "":
		// The source may have been blank, too. That cannot be proven here, and a copy whose data is not there yet looks the same.
		return fail(ErrRefused, "volume %s (%s) was made as a copy of %s and is blank: it is not formatted, as the copy may not be "+
			"complete; if the source was never mounted and so holds nothing, use a new volume without a source, or mount the source once "+
			"(run a Pod with it) and copy it again", req.Volume.ID, dev.Path, req.Origin)
	}
	return ValidateMkfsOptions(req.Filesystem, req.MkfsOptions)
}

func (n *Node) formatBlank(ctx context.Context, dev Device, req StageRequest) (Device, string, error) {
	if err := mayFormat(dev, req); err != nil {
		return Device{}, "", err
	}
	if err := n.markBlank(ctx, dev, req.Volume.ID); err != nil {
		return Device{}, "", err
	}
	fsType := orDefault(req.Filesystem, DefaultFilesystem)
	return dev, fsType, n.format(ctx, dev, fsType, req)
}

// formatAgain completes a format that was interrupted: the marker proves that the disk was blank, and that the driver
// never mounted it.
func (n *Node) formatAgain(ctx context.Context, dev Device, found content, fresh bool, req StageRequest) (Device, string, error) {
	if err := mayFormat(dev, req); err != nil {
		return Device{}, "", err
	}
	if err := n.requireUnused(ctx, dev, found, req.Volume.ID); err != nil {
		return Device{}, "", err
	}
	if !fresh {
		klog.FromContext(ctx).Info("An earlier format of the volume was interrupted; beginning anew", "device", dev.Path)
	}
	if err := n.eraseEnds(ctx, dev, req.Volume.ID, func() error { return n.requireStillUnused(ctx, dev, req.Volume.ID) }); err != nil {
		return Device{}, "", err
	}
	fsType := orDefault(req.Filesystem, DefaultFilesystem)
	return dev, fsType, n.format(ctx, dev, fsType, req)
}

// awaitTurn waits until one more volume may be formatted: many at once must not take all of the node's memory and disk
// bandwidth from its Pods. The wait may be long: the disk may be detached meanwhile, then nothing may be done to what has its name;
// and it may be put to use by other means, then it is not formatted.
func (n *Node) awaitTurn(ctx context.Context, dev Device, vol Volume) (release func(), err error) {
	doing := activityOf(ctx)
	release = n.formats.take(&turn{volumeID: vol.ID, doing: doing, progress: n.formatProgress(dev, doing)})
	err = n.verifyAgain(dev, vol)
	if err == nil {
		err = n.requireStillBlank(ctx, dev, vol.ID)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// format makes the filesystem on a marked disk, and erases the marker.
func (n *Node) format(ctx context.Context, dev Device, fsType string, req StageRequest) (err error) {
	release, err := n.awaitTurn(ctx, dev, req.Volume)
	if err != nil {
		return err
	}
	defer release()
	defer n.observe("format", time.Now(), &err)
	kind := filesystemTypes[fsType]
	asked, err := parseMkfsOptions(fsType, req.MkfsOptions)
	if err != nil {
		return err
	}
	id, err := filesystemID(req.Volume.ID)
	if err != nil {
		return err
	}
	args := kind.arguments(dev, id, asked)
	klog.FromContext(ctx).Info("Formatting the blank volume", "device", dev.Path, "filesystem", fsType, "options", req.MkfsOptions)
	output, status, err := program{name: kind.mkfs, args: args, diesWithDriver: true}.run(ctx)
	if err != nil {
		return err
	}
	if status != 0 {
		return commandError(kind.mkfs, args, status, output)
	}
	made, err := n.probe(ctx, dev.Path)
	if err != nil {
		return err
	}
	if made.filesystem != fsType {
		return fail(ErrInvalid, "mkfs with the options %q made %s on volume %s (%s), and %s was asked for: change the options",
			strings.Join(req.MkfsOptions, " "), made, req.Volume.ID, dev.Path, fsType)
	}
	return n.unmark(ctx, dev, req.Volume.ID)
}

// Exit status bits of e2fsck(8) that still leave a filesystem that can be used.
const fsckCorrected = 1 | 2

// check repairs what can be repaired unattended before the first mount.
func (n *Node) check(ctx context.Context, dev Device, fsType string) (err error) {
	fsck := filesystemTypes[fsType].fsck
	if fsck == nil || n.mountedAnywhere(dev) { // it is mounted once more then: see requireUsable
		return nil
	}
	defer n.observe("fsck", time.Now(), &err)
	args := append(slices.Clone(fsck[1:]), dev.Path)
	output, status, err := command(ctx, fsck[0], args...)
	if err != nil {
		return err
	}
	switch {
	case status&^fsckCorrected == 0:
		if status != 0 {
			klog.FromContext(ctx).Info("Errors in the filesystem were corrected", "device", dev.Path, "output", output)
		}
		return nil
	case status == 4:
		return fail(ErrRefused, "the %s on %s has errors that cannot be repaired unattended: run e2fsck on it by hand. %s",
			fsType, dev.Path, output)
	}
	return commandError(fsck[0], args, status, output)
}
