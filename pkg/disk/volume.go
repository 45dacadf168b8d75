package disk

import (
	"strings"

	"github.com/google/uuid"
)

// serialLength is how many digits virtio leaves of the storage UUID: VIRTIO_BLK_ID_BYTES is 20.
const serialLength = 20

// Volume says which disk is meant.
type Volume struct {
	// ID is the UUID of the UpCloud storage.
	ID string
	// SizeBytes is the size that the disk had when it was attached, 0 if unknown. A device may be larger (it was
	// grown since), never smaller: a smaller one is not ready, or not the volume.
	SizeBytes int64
}

// Serial is the serial number that a server sees for the storage: the first 20 hexadecimal digits of its UUID.
func Serial(volumeID string) (string, error) {
	id, err := uuid.Parse(volumeID)
	if err != nil || len(volumeID) != 36 {
		return "", fail(ErrInvalid, "volume ID %q is not the UUID of an UpCloud storage", volumeID)
	}
	return VirtioSerial(id.String()), nil
}

func isVolumeID(id string) bool {
	_, err := Serial(id)
	return err == nil
}

// LinkName is the name of the link that udev makes for the storage below /dev/disk/by-id.
func LinkName(volumeID string) (string, error) {
	serial, err := Serial(volumeID)
	if err != nil {
		return "", err
	}
	return "virtio-" + serial, nil
}

// MatchesSerial tells whether a serial number is that of the volume: at least the digits that virtio leaves of its UUID,
// and nothing else than its digits. Disks on other buses may tell more of them, with or without dashes.
func MatchesSerial(serial, volumeID string) bool {
	start, err := Serial(volumeID)
	if err != nil {
		return false
	}
	told := digits(serial)
	return strings.HasPrefix(told, start) && strings.HasPrefix(digits(volumeID), told)
}

// VirtioSerial is as much of a serial number as a disk on the virtio bus would tell. See [MatchesSerial].
func VirtioSerial(serial string) string {
	told := digits(serial)
	return told[:min(len(told), serialLength)]
}

func digits(serial string) string { return strings.ToLower(strings.ReplaceAll(serial, "-", "")) }
