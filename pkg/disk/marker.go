package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A format that was cut short (the node lost power, the container was killed) leaves a disk that is neither blank nor
// has a filesystem, or has one in name only. It must be told from a disk with data. So a marker is written to the blank
// disk before mkfs, and erased after it, before the first mount: as long as it is there, there can be no data.
//
// It names the volume, so that a copy of a marked disk is not taken for one. It lies where mkfs does not write: mkfs.xfs
// erases the last 128 KiB, and no filesystem gets the last MiB (see fittingBytes).
const (
	markerFromEnd = 192 << 10
	markerBytes   = 4096
)

func markerFor(volumeID string) []byte {
	marker := make([]byte, markerBytes)
	copy(marker, "cloud-provider-upcloud: formatting volume "+volumeID+"\n")
	return marker
}

// marked tells whether a format of the volume was begun and not completed.
func marked(dev Device, volumeID string) (bool, error) {
	if dev.SizeBytes < 2*proofBytes {
		return false, nil
	}
	// Not from the kernel's cache of the disk: it does not see what was written through a mapping on top of the disk.
	file, err := os.OpenFile(dev.Path, os.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer file.Close()
	found := alignedBuffer(markerBytes)
	if _, err := file.ReadAt(found, dev.SizeBytes-markerFromEnd); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("reading %s: %w", dev.Path, err)
	}
	return bytes.Equal(found, markerFor(volumeID)), nil
}

// alignedBuffer is memory that the kernel reads into without its cache: aligned to a page.
func alignedBuffer(size int) []byte {
	buffer := make([]byte, size+markerBytes)
	skip := -int(uintptr(unsafe.Pointer(&buffer[0]))) & (markerBytes - 1)
	return buffer[skip : skip+size]
}

// Where the superblocks of ext2, ext3, ext4 and XFS have what we need of them, in bytes from the start of the disk.
const (
	extMagicAt, extMountTimeAt, extMountsAt = 1024 + 0x38, 1024 + 0x2c, 1024 + 0x34
	xfsMagicAt, xfsInodesAt, xfsFreeAt      = 0, 128, 136
	xfsInProgressAt                         = 126 // not 0 until mkfs has ended
	// xfsOwnInodes is what a new XFS uses itself: the root folder and two of the real-time device.
	xfsOwnInodes = 3
)

// requireUnused refuses a marked disk that was put to use by other means since the format was interrupted: the driver's mkfs
// leaves no partition table, no filesystem with another UUID than the driver gave it, and none that was ever mounted.
func (n *Node) requireUnused(ctx context.Context, dev Device, found content, volumeID string) error {
	foreign, err := n.foreign(ctx, dev, found, volumeID)
	if err != nil {
		return err
	}
	mounted, err := everMounted(dev)
	if err != nil || !foreign && !mounted {
		return err
	}
	return fail(ErrRefused, "the format of volume %s (%s) was interrupted, and the disk was used since by other means: it "+
		"holds %s. Not formatting it. To keep what it holds, run: dd if=/dev/zero of=%s bs=%d seek=%d count=1; "+
		"to lose it, fill the first MiB of the disk with zeros",
		volumeID, dev.Path, found, dev.Path, markerBytes, (dev.SizeBytes-markerFromEnd)/markerBytes)
}

// requireStillUnused is requireUnused for a disk as it is now.
func (n *Node) requireStillUnused(ctx context.Context, dev Device, volumeID string) error {
	if err := requireStillMarked(dev, volumeID); err != nil {
		return err
	}
	found, err := n.probe(ctx, dev.Path)
	if err != nil {
		return err
	}
	if found.filesystem == "btrfs" { // it is whole (see prepare): the next try takes it as it is
		return fail(ErrRefused, "a btrfs was made on volume %s (%s) meanwhile. Not formatting it", volumeID, dev.Path)
	}
	return n.requireUnused(ctx, dev, found, volumeID)
}

// foreign tells whether what was found on a marked disk is not what the driver's own mkfs makes.
func (n *Node) foreign(ctx context.Context, dev Device, found content, volumeID string) (bool, error) {
	if found.partitionTable != "" || found.filesystem == "" {
		return found.partitionTable != "", nil
	}
	if _, supported := filesystemTypes[found.filesystem]; !supported {
		return true, nil
	}
	if found.filesystem == "xfs" {
		// Whoever began to make it, it was never whole. Earlier versions of the driver left the UUID to mkfs, which writes it first.
		unfinished, err := xfsInProgress(dev)
		if unfinished || err != nil {
			return false, err
		}
	}
	want, err := filesystemID(volumeID)
	if err != nil {
		return false, err
	}
	has, err := n.probeUUID(ctx, dev.Path)
	return has != want, err
}

// xfsInProgress tells whether the XFS on a disk was not made to its end: the kernel mounts none that is so.
func xfsInProgress(dev Device) (bool, error) {
	head, err := readHead(dev)
	return err == nil && string(head[xfsMagicAt:][:4]) == "XFSB" && head[xfsInProgressAt] != 0, err
}

// everMounted tells whether the disk holds a filesystem that was mounted before, as far as superblocks tell.
func everMounted(dev Device) (bool, error) {
	head, err := readHead(dev)
	if err != nil {
		return false, err
	}
	ext := binary.LittleEndian.Uint16(head[extMagicAt:]) == 0xef53 &&
		(binary.LittleEndian.Uint32(head[extMountTimeAt:]) != 0 || binary.LittleEndian.Uint16(head[extMountsAt:]) != 0)
	xfs := string(head[xfsMagicAt:][:4]) == "XFSB" &&
		binary.BigEndian.Uint64(head[xfsInodesAt:])-binary.BigEndian.Uint64(head[xfsFreeAt:]) > xfsOwnInodes
	return ext || xfs, nil
}

// readHead reads the start of a disk, where superblocks are.
func readHead(dev Device) ([]byte, error) {
	file, err := os.Open(dev.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	head := make([]byte, 4096)
	if _, err := io.ReadFull(file, head); err != nil {
		return nil, fmt.Errorf("reading %s: %w", dev.Path, err)
	}
	return head, nil
}

// markBlank proves that a disk is blank and writes the marker, after which the disk may be formatted at any time. Nothing else can put
// the disk to use in between, as it stays open exclusively.
func (n *Node) markBlank(ctx context.Context, dev Device, volumeID string) error {
	return n.whileBlank(ctx, dev, nil, os.O_RDWR, func(file *os.File) error {
		_, err := file.WriteAt(markerFor(volumeID), dev.SizeBytes-markerFromEnd)
		return errors.Join(err, file.Sync())
	})
}

// unmark erases the marker. Where it is not whole, something else was written there, which stays.
func (n *Node) unmark(ctx context.Context, dev Device, volumeID string) error {
	whole, err := marked(dev, volumeID)
	if err != nil || !whole {
		return err
	}
	return n.exclusively(ctx, dev, os.O_WRONLY, func(file *os.File) error {
		whole := false
		err := onAnotherThread(func() (err error) { // files are opened where they are in the table of all threads
			whole, err = marked(dev, volumeID)
			return err
		})
		if err != nil || !whole { // what had the disk until now may have written there
			return err
		}
		_, err = file.WriteAt(make([]byte, markerBytes), dev.SizeBytes-markerFromEnd)
		return errors.Join(err, file.Sync())
	})
}

// eraseEnds removes what an interrupted mkfs left at both ends of a marked disk. The marker stays: it is written over with itself. A new
// encrypted device is marked by it: its ends read as random bytes, which may look like a filesystem that was in use. The marker
// comes last, so that no such bytes are ever seen on a marked device.
//
// check, if not nil, is asked whether that may be while the disk is open exclusively: until then something else may have had the
// disk, and have put it to use. It may start programs.
func (n *Node) eraseEnds(ctx context.Context, dev Device, volumeID string, check func() error) error {
	return n.exclusively(ctx, dev, os.O_WRONLY, func(file *os.File) error {
		if check != nil {
			if err := onAnotherThread(check); err != nil {
				return err
			}
		}
		if _, err := file.WriteAt(make([]byte, proofBytes), 0); err != nil {
			return err
		}
		if err := file.Sync(); err != nil {
			return err
		}
		tail := make([]byte, proofBytes)
		copy(tail[proofBytes-markerFromEnd:], markerFor(volumeID))
		_, err := file.WriteAt(tail, dev.SizeBytes-proofBytes)
		return errors.Join(err, file.Sync())
	})
}

// requireStillMarked refuses a disk whose marker was overwritten.
func requireStillMarked(dev Device, volumeID string) error {
	whole, err := marked(dev, volumeID)
	if err != nil || whole {
		return err
	}
	return fail(ErrRefused, "the format of volume %s (%s) was interrupted, and something else has written to the disk since. Not formatting it",
		volumeID, dev.Path)
}

// requireStillBlank proves a marked disk to be blank right before it is formatted. What was written to it since it was
// marked is not the driver's: the marker goes, so that the next try does not take it for what an interrupted format left.
func (n *Node) requireStillBlank(ctx context.Context, dev Device, volumeID string) error {
	err := n.requireBlank(ctx, dev, markerFor(volumeID))
	if !errors.Is(err, ErrRefused) {
		return err
	}
	err = fail(ErrRefused, "volume %s was blank, and is not any more now that it is its turn to be formatted: %v", volumeID, err)
	return errors.Join(err, n.unmark(ctx, dev, volumeID))
}
