package disk

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
)

// readOnlyOptions are the mount options under which nothing is written to a volume: "ro" alone lets the kernel replay the
// journal. A journal that has to be replayed is a reason to refuse then, as what would be seen without it is no state that
// the filesystem ever had. Only of a copy it is replayed: that completes the copy, which nobody else has.
func (n *Node) readOnlyOptions(ctx context.Context, source Device, fsType string, req StageRequest) ([]string, error) {
	replay, err := n.needsReplay(ctx, source, fsType)
	if err != nil {
		return nil, err
	}
	switch {
	case replay && req.Origin != "":
		return []string{"ro"}, nil
	case replay:
		return nil, fail(ErrRefused, "volume %s (%s) was not unmounted in order, and its %s can only be read after its journal was "+
			"written back: read-only changes nothing. Use it for writing once", req.Volume.ID, source.Path, fsType)
	case fsType == "ext3" || fsType == "ext4":
		return []string{"ro", "noload"}, nil
	case fsType == "xfs":
		return []string{"ro", "norecovery"}, nil
	}
	return []string{"ro"}, nil
}

// Where the superblock of ext3 and ext4 says that the journal has to be replayed: s_feature_incompat, RECOVER.
const (
	extIncompatAt = 1024 + 0x60
	extRecover    = 0x4
)

// needsReplay tells whether the filesystem on a device that is not mounted has a journal to be replayed.
func (n *Node) needsReplay(ctx context.Context, source Device, fsType string) (bool, error) {
	if fsType == "xfs" {
		output, status, err := command(ctx, "xfs_logprint", "-t", source.Path)
		if err == nil && status != 0 {
			err = commandError("xfs_logprint", []string{"-t", source.Path}, status, output)
		}
		return strings.Contains(output, "<DIRTY>"), err
	}
	file, err := os.Open(source.Path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	if fsType == "btrfs" {
		super, err := readBtrfsSuper(file)
		return super.logRoot != 0, err
	}
	head := make([]byte, 2048)
	if _, err := io.ReadFull(file, head); err != nil {
		return false, fmt.Errorf("reading the superblock of %s: %w", source.Path, err)
	}
	return binary.LittleEndian.Uint32(head[extIncompatAt:])&extRecover != 0, nil
}
