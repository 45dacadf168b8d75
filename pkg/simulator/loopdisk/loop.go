//go:build linux

package loopdisk

import (
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
	path   string // /dev/loopN
	number int
	file   *os.File
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
	// should this process die, the device goes when nobody uses it
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_PARTSCAN
	copy(config.Info.File_name[:], filepath.Base(backing.Name()))
	if err := unix.IoctlLoopConfigure(int(file.Fd()), config); err != nil {
		file.Close()
		return nil, fmt.Errorf("configure %s: %w", path, err)
	}
	l := &loop{path: path, number: n, file: file}
	// The kernel remembers for a free loop device that its former disk was set read-only. A disk that is new to a server is not.
	if err := unix.IoctlSetPointerInt(int(file.Fd()), unix.BLKROSET, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("make %s writable: %w", path, err), l.pull())
	}
	return l, nil
}

// backingFile is the path of the file that a loop device is made of, "" if it is free.
func backingFile(n int) string {
	text, _ := os.ReadFile("/sys/block/loop" + strconv.Itoa(n) + "/loop/backing_file")
	return strings.TrimSuffix(strings.TrimSpace(string(text)), " (deleted)")
}

// adoptLoop takes over a device that another process made of the image, and whose disk was not pulled.
func adoptLoop(n int, image string) (*loop, error) {
	path := "/dev/loop" + strconv.Itoa(n)
	file, err := openDevice(path, n)
	if err != nil {
		return nil, err
	}
	info, err := unix.IoctlLoopGetStatus64(int(file.Fd()))
	if err == nil && info.Offset != 0 {
		err = errors.New("its disk was pulled out")
	}
	if err == nil && backingFile(n) != image { // it stays what it is now, as it is open here
		err = errors.New("it is another disk's by now")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take over %s: %w", path, err), file.Close())
	}
	return &loop{path: path, number: n, file: file}, nil
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

// nowhere is an offset in the file, in bytes, where no file has anything and none can be written to.
const nowhere = 1 << 62

// pull takes the disk out of the machine, as a hypervisor does: what was written reaches the file, and from then on every
// access fails, to a mounted filesystem's too. The device goes at once, or when its last user is gone.
func (l *loop) pull() error {
	err := errors.Join(l.cutOff(), l.clear())
	return errors.Join(err, l.file.Close())
}

// cutOff moves the device's window on the file to where there is nothing: the kernel first writes what it holds of the
// device, then waits for what is under way. The size becomes zero.
func (l *loop) cutOff() error {
	info, err := unix.IoctlLoopGetStatus64(int(l.file.Fd()))
	if err != nil {
		return fmt.Errorf("read the state of %s: %w", l.path, err)
	}
	info.Offset = nowhere
	for range attempts {
		if err = unix.IoctlLoopSetStatus64(int(l.file.Fd()), info); !errors.Is(err, unix.EAGAIN) {
			break // EAGAIN: somebody wrote to the device meanwhile
		}
	}
	if err != nil {
		return fmt.Errorf("cut %s off: %w", l.path, err)
	}
	return nil
}

func (l *loop) clear() error {
	err := unix.IoctlSetInt(int(l.file.Fd()), unix.LOOP_CLR_FD, 0)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("free %s: %w", l.path, err)
	}
	return nil
}

// release lets go of the device: it stays while others use it, and goes else.
func (l *loop) release() error { return errors.Join(l.sync(), l.file.Close()) }

// loopsBelow returns the numbers of the loop devices whose files lie in the folder, by the files' paths.
func loopsBelow(dir string) (map[string][]int, error) {
	found, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	out := map[string][]int{}
	for _, path := range found {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(filepath.Dir(path))), "loop"))
		if err != nil {
			continue
		}
		if image := backingFile(n); filepath.Dir(image) == dir {
			out[image] = append(out[image], n)
		}
	}
	return out, nil
}

// pullNumber takes the disk out of a device that another process made of the image. A device whose last user has ended meanwhile
// may be anybody's by now, and is left alone.
func pullNumber(n int, image string) error {
	path := "/dev/loop" + strconv.Itoa(n)
	file, err := openDevice(path, n)
	if err != nil {
		return err
	}
	if backingFile(n) != image {
		return file.Close()
	}
	return (&loop{path: path, number: n, file: file}).pull()
}
