//go:build linux

package loopdisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const loopControl = "/dev/loop-control"

// attempts to get a free loop device: another program may take the one that the kernel just named.
const attempts = 64

// loop is a loop device of ours. The descriptor stays open, so that the device cannot become another's meanwhile.
type loop struct {
	path string
	file *os.File
}

// attachLoop makes a loop device of the file.
func attachLoop(image string) (*loop, error) {
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range attempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("no free loop device: %w", err)
		}
		l, err := configure(n, backing)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		return l, err
	}
	return nil, errors.New("no free loop device: other programs take them as fast as they come")
}

func configure(n int, backing *os.File) (*loop, error) {
	path := "/dev/loop" + strconv.Itoa(n)
	file, err := openDevice(path, n)
	if err != nil {
		return nil, err
	}
	config := &unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR // should this process die, the device goes when nobody uses it
	copy(config.Info.File_name[:], filepath.Base(backing.Name()))
	if err := unix.IoctlLoopConfigure(int(file.Fd()), config); err != nil {
		file.Close()
		return nil, fmt.Errorf("configure %s: %w", path, err)
	}
	return &loop{path: path, file: file}, nil
}

// openDevice opens a loop device, and makes its node where no udev does.
func openDevice(path string, n int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return file, err
	}
	if err := unix.Mknod(path, unix.S_IFBLK|0o660, int(unix.Mkdev(7, uint32(n)))); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

func (l *loop) updateCapacity() error {
	if err := unix.IoctlSetInt(int(l.file.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("resize %s: %w", l.path, err)
	}
	return nil
}

// sync writes what the device still buffers to the file.
func (l *loop) sync() error {
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", l.path, err)
	}
	return nil
}

// forget drops what the kernel still holds of the device's former content.
func (l *loop) forget() error {
	if err := unix.IoctlSetInt(int(l.file.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("flush %s: %w", l.path, err)
	}
	return nil
}

// detach frees the device: at once, or when the last user is gone.
func (l *loop) detach() error {
	err := l.file.Sync()
	if clear := unix.IoctlSetInt(int(l.file.Fd()), unix.LOOP_CLR_FD, 0); clear != nil && !errors.Is(clear, unix.ENXIO) {
		err = errors.Join(err, fmt.Errorf("free %s: %w", l.path, clear))
	}
	return errors.Join(err, l.file.Close())
}

// detachAllBelow frees the loop devices whose files lie in the folder.
func detachAllBelow(dir string) error {
	found, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range found {
		backing, err := os.ReadFile(path)
		if err != nil {
			continue // freed meanwhile
		}
		if filepath.Dir(strings.TrimSuffix(strings.TrimSpace(string(backing)), " (deleted)")) != dir {
			continue
		}
		device := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(path)))
		file, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, (&loop{path: device, file: file}).detach())
	}
	return errors.Join(errs...)
}

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
