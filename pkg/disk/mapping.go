package disk

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
)

const mapperPrefix = "upcloud-"

// mapperName is the name of the volume's mapping: what an encrypted volume looks like when it is open is at
// /dev/mapper/upcloud-<UUID of the storage>.
func mapperName(volumeID string) string { return mapperPrefix + strings.ToLower(volumeID) }

// mappingName returns the name of a mapping (a device of the device mapper), "" of any other device.
func (n *Node) mappingName(dev Device) (string, error) {
	name, err := readText(filepath.Join(n.numberDir(dev.Major, dev.Minor), "dm", "name"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return name, err
}
