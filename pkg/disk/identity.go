package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// loopMajor is the major number of loop devices, which carry the disks of a simulated server.
const loopMajor = 7

// verify proves that a whole disk is the volume's: its serial number must be the volume's, and it must not be smaller
// than the volume. A link with the right name proves nothing, it may be stale.
func (n *Node) verify(dev Device, vol Volume) error {
	if err := n.verifyIdentity(dev, vol.ID); err != nil {
		return err
	}
	if vol.SizeBytes > 0 && dev.SizeBytes < vol.SizeBytes {
		return fmt.Errorf("%s has %d bytes, the volume has %d", dev.Path, dev.SizeBytes, vol.SizeBytes)
	}
	return nil
}

// stillThere looks the device up again, for work that waited for its turn after the device was found: it may have been
// detached meanwhile, and its name be another disk's by now.
func (n *Node) stillThere(vol Volume) (Device, error) {
	dev, err := n.lookup(vol)
	if err != nil {
		return Device{}, fail(ErrNoDevice, "the device of volume %s has left this node: %v. "+
			"Check that the storage is attached to this server", vol.ID, err)
	}
	return dev, nil
}

// verifyAgain proves that a device, a disk or a partition, is the volume's still.
func (n *Node) verifyAgain(source Device, vol Volume) error {
	now, err := n.deviceAt(source.Path)
	if err == nil {
		now, err = n.diskOf(now, vol.ID)
	}
	if err == nil {
		err = n.verify(now, vol)
	}
	if err != nil {
		return fail(ErrNoDevice, "the device of volume %s has left this node while it was made ready: %v. "+
			"Check that the storage is attached to this server", vol.ID, err)
	}
	return nil
}

// verifyIdentity compares the serial number. Loop devices have none: there the name of the backing file must start
// with the volume's UUID.
func (n *Node) verifyIdentity(dev Device, volumeID string) error {
	want, err := Serial(volumeID)
	if err != nil {
		return err
	}
	if dev.Major == loopMajor {
		return n.verifyBackingFile(dev, volumeID)
	}
	got, err := n.serialOf(dev.Name)
	if err != nil {
		return err
	}
	switch {
	case got == "":
		return fmt.Errorf("%s tells no serial number, so that nothing proves that it is volume %s", dev.Path, volumeID)
	case !MatchesSerial(got, volumeID):
		return fmt.Errorf("%s has the serial number %s, volume %s has %s", dev.Path, got, volumeID, want)
	}
	return nil
}

func (n *Node) verifyBackingFile(dev Device, volumeID string) error {
	file, err := readText(filepath.Join(n.sysDir, "block", dev.Name, "loop", "backing_file"))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is a loop device without a file", dev.Path)
	}
	if err != nil {
		return err
	}
	if !strings.HasPrefix(filepath.Base(file), strings.ToLower(volumeID)) {
		return fmt.Errorf("%s is a loop device on %s, whose name does not start with %s", dev.Path, file, volumeID)
	}
	return nil
}

// serialOf reads the serial number of a disk, "" if it has none: virtio disks show it on the disk itself, NVMe on the
// device behind it, and SCSI and IDE disks in page 0x80 of their vital product data.
func (n *Node) serialOf(name string) (string, error) {
	dir := filepath.Join(n.sysDir, "block", name)
	for _, file := range []string{"serial", "device/serial"} {
		serial, err := readText(filepath.Join(dir, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || serial != "" {
			return serial, err
		}
	}
	page, err := os.ReadFile(filepath.Join(dir, "device", "vpd_pg80"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(page) < 4 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	length := int(binary.BigEndian.Uint16(page[2:])) // SPC-4, 7.8.20: type, page, length, serial number
	return strings.Trim(string(page[4:min(4+length, len(page))]), " \x00"), nil
}
