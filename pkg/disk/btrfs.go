package disk

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// The superblock of btrfs: struct btrfs_super_block of linux/btrfs_tree.h, at 64 KiB.
const (
	btrfsSuperAt     = 64 << 10
	btrfsSuperBytes  = 4096
	btrfsAtFSID      = 0x20
	btrfsAtMagic     = 0x40
	btrfsMagic       = "_BHRfS_M"
	btrfsAtLogRoot   = 0x60
	btrfsAtDevices   = 0x88 // num_devices
	btrfsAtDevItem   = 0xc9 // struct btrfs_dev_item of this device
	btrfsAtDevBytes  = btrfsAtDevItem + 8
	btrfsFSInfo      = 0x8400941f // _IOR(0x94, 31, struct btrfs_ioctl_fs_info_args)
	btrfsFSInfoBytes = 1024
	btrfsFSInfoFSID  = 16
)

type btrfsSuper struct {
	fsid        string
	devices     uint64
	deviceBytes int64  // of the device that the filesystem uses
	logRoot     uint64 // not 0: there is a journal to be replayed
}

func readBtrfsSuper(file *os.File) (btrfsSuper, error) {
	block := make([]byte, btrfsSuperBytes)
	if _, err := file.ReadAt(block, btrfsSuperAt); err != nil {
		return btrfsSuper{}, fmt.Errorf("reading the superblock of %s: %w", file.Name(), err)
	}
	if string(block[btrfsAtMagic:][:len(btrfsMagic)]) != btrfsMagic {
		return btrfsSuper{}, fmt.Errorf("%s has no superblock of a btrfs", file.Name())
	}
	return btrfsSuper{
		fsid:        uuid.UUID(block[btrfsAtFSID:][:16]).String(),
		devices:     binary.LittleEndian.Uint64(block[btrfsAtDevices:]),
		deviceBytes: int64(binary.LittleEndian.Uint64(block[btrfsAtDevBytes:])),
		logRoot:     binary.LittleEndian.Uint64(block[btrfsAtLogRoot:]),
	}, nil
}

// btrfsDevice returns the device of the btrfs mounted at path. mountinfo has a number of the kernel's own making for it,
// and a name that may be another disk's by now; so the kernel is asked which filesystem it is, and sysfs for its device.
// The error matches fs.ErrNotExist when the device has left.
func (n *Node) btrfsDevice(path string) (Device, error) {
	dir, err := n.btrfsDir(path)
	if err != nil {
		return Device{}, err
	}
	entries, err := os.ReadDir(filepath.Join(dir, "devices"))
	if err != nil {
		return Device{}, err
	}
	switch len(entries) {
	case 0:
		return Device{}, fmt.Errorf("the device of the btrfs at %s: %w", path, fs.ErrNotExist)
	case 1:
		return n.deviceIn(filepath.Join(dir, "devices", entries[0].Name()))
	}
	return Device{}, fmt.Errorf("the btrfs at %s lies on %d devices", path, len(entries))
}

// btrfsDir returns the folder of sysfs of the btrfs mounted at path.
func (n *Node) btrfsDir(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		// Not an error that matches fs.ErrNotExist: the path is gone when it was unmounted meanwhile, and the device need not be.
		return "", fmt.Errorf("opening %s: %s", path, err.Error())
	}
	defer unix.Close(fd)
	info := make([]byte, btrfsFSInfoBytes)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), btrfsFSInfo, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return "", fmt.Errorf("asking the kernel about the btrfs at %s: %w", path, errno)
	}
	fsid := uuid.UUID(info[btrfsFSInfoFSID:][:16])
	if fsid == uuid.Nil {
		return "", fmt.Errorf("the btrfs at %s tells no UUID (%s)", path, hex.EncodeToString(info[:32]))
	}
	return filepath.Join(n.sysDir, "fs", "btrfs", fsid.String()), nil
}

// requireNoTwin refuses a btrfs whose UUID is that of another one that is mounted, where the kernel cannot have both: it
// would take the two for one, or refuse with "File exists". Linux 6.7 and later gives the second a UUID for the time that
// it is mounted (temp_fsid). The UUID on the disk is left alone: changing it is no small write, and the copy's owner's to
// decide.
func (n *Node) requireNoTwin(_ context.Context, source Device, volumeID string) error {
	if _, err := os.Stat(filepath.Join(n.sysDir, "fs", "btrfs", "features", "temp_fsid")); err == nil {
		return nil
	}
	file, err := os.Open(source.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	super, err := readBtrfsSuper(file)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(n.sysDir, "fs", "btrfs", super.fsid, "devices"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != source.Name {
			return fail(ErrRefused, "volume %s (%s) holds a btrfs with the UUID %s, and so does %s, which is mounted: this kernel "+
				"can only have one of them. Use the copy on another node, on one with Linux 6.7 or later, or give it a UUID of its "+
				"own while it is mounted nowhere: btrfstune -m %s", volumeID, source.Path, super.fsid, entry.Name(), source.Path)
		}
	}
	return nil
}
