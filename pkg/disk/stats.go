package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Stats is how full a volume is. A raw block volume has a size only.
type Stats struct {
	Block                                 bool
	TotalBytes, UsedBytes, AvailableBytes int64
	TotalInodes, UsedInodes, FreeInodes   int64
}

// Stats measures the volume that is mounted at path. It fails with ErrNotMounted when no volume is there: the numbers
// of the node's own disk would be worse than none.
//
// A disk that hangs is waited for until ctx ends.
func (n *Node) Stats(ctx context.Context, volumeID, path string) (Stats, error) {
	return look(ctx, n, volumeID, path, n.stats)
}

func (n *Node) stats(volumeID, path string) (Stats, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Stats{}, fail(ErrNotMounted, "volume %s is not at %s: there is no such path", volumeID, path)
		}
		return Stats{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	mounts, err := mountsAt(path)
	if err != nil {
		return Stats{}, err
	}
	if len(mounts) == 0 {
		return Stats{}, fail(ErrNotMounted, "volume %s is not at %s: nothing is mounted there", volumeID, path)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		return n.blockStats(volumeID, path, st)
	}
	if _, err := n.holds(&mounts[len(mounts)-1], volumeID); err != nil {
		return Stats{}, fail(ErrNotMounted, "volume %s is not at %s: %v", volumeID, path, err)
	}
	return filesystemStats(path)
}

func (n *Node) blockStats(volumeID, path string, st unix.Stat_t) (Stats, error) {
	dev, err := n.deviceByNumber(int(unix.Major(st.Rdev)), int(unix.Minor(st.Rdev)))
	if err == nil {
		_, err = n.diskOf(dev, volumeID)
	}
	if err != nil {
		return Stats{}, fail(ErrNotMounted, "volume %s is not at %s: %v", volumeID, path, err)
	}
	return Stats{Block: true, TotalBytes: dev.SizeBytes}, nil
}

// look runs what asks the kernel about the volume at path, which may hang with its disk, for as long as the caller waits. Who looks at
// the same path meanwhile waits for its end: a disk that hangs takes one thread, however often it is looked at.
func look[T any](ctx context.Context, n *Node, volumeID, path string, at func(volumeID, path string) (T, error)) (T, error) {
	var seen T
	err := n.looks.run(ctx, "look "+path, new(byte), func(context.Context) (err error) {
		seen, err = at(volumeID, path)
		return err
	})
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		var none T // seen may be written to still
		return none, fmt.Errorf("volume %s at %s does not answer: %w; look at the kernel's log (dmesg) of this node for errors of its disk",
			volumeID, path, ctx.Err())
	}
	return seen, err
}

func filesystemStats(path string) (Stats, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Stats{}, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	unit := st.Bsize
	return Stats{
		TotalBytes:     int64(st.Blocks) * unit,
		UsedBytes:      int64(st.Blocks-st.Bfree) * unit,
		AvailableBytes: int64(st.Bavail) * unit,
		TotalInodes:    int64(st.Files),
		UsedInodes:     int64(st.Files - st.Ffree),
		FreeInodes:     int64(st.Ffree),
	}, nil
}
