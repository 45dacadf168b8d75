package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is a block device: a whole disk, or a partition.
type Device struct {
	Path      string // device node, no link: /dev/vdb
	Name      string // the kernel's name: vdb
	Major     int
	Minor     int
	SizeBytes int64
}

// sectorBytes is the unit of the size files of sysfs, whatever the sectors of the disk are.
const sectorBytes = 512

// deviceAt reads what the kernel says of the device node at path, following links.
func (n *Node) deviceAt(path string) (Device, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Device{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return Device{}, &fs.PathError{Op: "stat", Path: real, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Device{}, fmt.Errorf("%s is not a block device", real)
	}
	dev, err := n.deviceByNumber(int(unix.Major(st.Rdev)), int(unix.Minor(st.Rdev)))
	dev.Path = real
	return dev, err
}

// deviceByNumber finds a device in sysfs. The error matches fs.ErrNotExist when the kernel has none of that number.
func (n *Node) deviceByNumber(major, minor int) (Device, error) {
	dir, err := filepath.EvalSymlinks(n.numberDir(major, minor))
	if err != nil {
		return Device{}, err
	}
	sectors, err := readInt(filepath.Join(dir, "size"))
	if err != nil {
		return Device{}, err
	}
	name := filepath.Base(dir)
	return Device{
		Path: filepath.Join(n.devDir, name), Name: name,
		Major: major, Minor: minor, SizeBytes: sectors * sectorBytes,
	}, nil
}

func (n *Node) numberDir(major, minor int) string {
	return filepath.Join(n.sysDir, "dev", "block", fmt.Sprintf("%d:%d", major, minor))
}

// disks lists the names of all whole disks that the kernel knows.
func (n *Node) disks() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(n.sysDir, "block"))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, nil
}

// diskNumber reads major and minor of a whole disk by its name.
func (n *Node) diskNumber(name string) (major, minor int, err error) {
	text, err := readText(filepath.Join(n.sysDir, "block", name, "dev"))
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscanf(text, "%d:%d", &major, &minor); err != nil {
		return 0, 0, fmt.Errorf("%s/block/%s/dev says %q: %w", n.sysDir, name, text, err)
	}
	return major, minor, nil
}

// wholeDisk returns the disk that a partition or a mapping is on, or the device itself if it is neither.
func (n *Node) wholeDisk(dev Device) (Device, error) {
	dir, err := filepath.EvalSymlinks(n.numberDir(dev.Major, dev.Minor))
	if err != nil {
		return Device{}, err
	}
	name, err := n.mappingName(dev)
	if err != nil {
		return Device{}, err
	}
	if name != "" {
		return n.slaveOf(dev, dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return dev, nil
		}
		return Device{}, err
	}
	return n.deviceIn(filepath.Dir(dir))
}

// slaveOf returns the one disk that a mapping is on. The error matches fs.ErrNotExist when that disk has left.
func (n *Node) slaveOf(mapping Device, dir string) (Device, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "slaves"))
	if err != nil {
		return Device{}, err
	}
	switch len(entries) {
	case 0:
		return Device{}, fmt.Errorf("the disk under %s: %w", mapping.Path, fs.ErrNotExist)
	case 1:
		return n.deviceIn(filepath.Join(dir, "slaves", entries[0].Name()))
	}
	return Device{}, fmt.Errorf("%s is a mapping on %d devices", mapping.Path, len(entries))
}

// deviceIn returns the device that a folder of sysfs describes.
func (n *Node) deviceIn(dir string) (Device, error) {
	text, err := readText(filepath.Join(dir, "dev"))
	if err != nil {
		return Device{}, err
	}
	var major, minor int
	if _, err := fmt.Sscanf(text, "%d:%d", &major, &minor); err != nil {
		return Device{}, fmt.Errorf("%s/dev says %q: %w", dir, text, err)
	}
	return n.deviceByNumber(major, minor)
}

// partitions lists the partitions of a whole disk that the kernel has found, by partition number.
func (n *Node) partitions(disk Device) (map[int]Device, error) {
	dir, err := filepath.EvalSymlinks(n.numberDir(disk.Major, disk.Minor))
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, disk.Name+"*", "partition"))
	if err != nil {
		return nil, err
	}
	found := make(map[int]Device, len(files))
	for _, file := range files {
		number, err := readInt(file)
		if err != nil {
			return nil, err
		}
		if found[int(number)], err = n.deviceIn(filepath.Dir(file)); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func readText(path string) (string, error) {
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}

func readInt(path string) (int64, error) {
	text, err := readText(path)
	if err != nil {
		return 0, err
	}
	value, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return value, nil
}
