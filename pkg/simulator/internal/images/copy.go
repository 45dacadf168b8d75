//go:build linux

package images

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// copyImage makes to a copy of from, size bytes long. Where the filesystem can share blocks it does; else only what is
// not a hole is copied.
func copyImage(ctx context.Context, from, to string, size int64) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := target.Truncate(0); err != nil {
		return err
	}
	if err := target.Truncate(size); err != nil {
		return err
	}
	length, err := source.Seek(0, 2)
	if err != nil {
		return err
	}
	clone := unix.FileCloneRange{Src_fd: int64(source.Fd()), Src_length: uint64(length)}
	if unix.IoctlFileCloneRange(int(target.Fd()), &clone) == nil {
		return nil
	}
	return copyData(ctx, source, target, length)
}

const chunk = 4 << 20

// copyData copies the parts of source that hold data.
func copyData(ctx context.Context, source, target *os.File, length int64) error {
	for at := int64(0); at < length; {
		start, err := unix.Seek(int(source.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing but a hole to the end
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(source.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for at = start; at < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			in, out := at, at
			n, err := unix.CopyFileRange(int(source.Fd()), &in, int(target.Fd()), &out, int(min(chunk, end-at)), 0)
			if err != nil {
				return err
			}
			if n == 0 {
				return nil
			}
			at += int64(n)
		}
	}
	return nil
}
