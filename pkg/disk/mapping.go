package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"k8s.io/klog/v2"
)

const mapperPrefix = "upcloud-"

// mapperName is the name of the volume's mapping: what an encrypted volume looks like when it is open is at
// /dev/mapper/upcloud-<UUID of the storage>. With "-1" and so on after it, it is the volume's, too: see freeMapperName.
func mapperName(volumeID string) string { return mapperPrefix + strings.ToLower(volumeID) }

func isMapperName(name, volumeID string) bool {
	rest, ok := strings.CutPrefix(name, mapperName(volumeID))
	return ok && (rest == "" || rest[0] == '-')
}

// mappingName returns the name of a mapping (a device of the device mapper), "" of any other device.
func (n *Node) mappingName(dev Device) (string, error) {
	name, err := readText(filepath.Join(n.numberDir(dev.Major, dev.Minor), "dm", "name"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return name, err
}

// mappings lists the volume's mappings: more than one where the disk of an earlier attachment left while it was in use.
func (n *Node) mappings(volumeID string) ([]layer, error) {
	files, err := filepath.Glob(filepath.Join(n.sysDir, "block", "dm-*", "dm", "name"))
	if err != nil {
		return nil, err
	}
	var found []layer
	for _, file := range files {
		name, err := readText(file)
		if err != nil || !isMapperName(name, volumeID) {
			continue // one that went away meanwhile is none
		}
		dev, err := n.deviceIn(filepath.Dir(filepath.Dir(file)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(dev.Path); err != nil { // a folder of device nodes that the kernel does not fill
			dev.Path = filepath.Join(n.devDir, "mapper", name)
		}
		found = append(found, layer{Device: dev, mapping: name})
	}
	return found, nil
}

// freeMapperName is the name for a new mapping of the volume. One of an earlier attachment, whose disk has left while
// somebody uses it still, keeps its name until that user ends; renaming does not help, as the kernel knows it by its UUID,
// too, which cryptsetup makes of the name.
func (n *Node) freeMapperName(volumeID string) (string, error) {
	mappings, err := n.mappings(volumeID)
	if err != nil {
		return "", err
	}
	taken := make(map[string]bool)
	for _, mapping := range mappings {
		taken[mapping.mapping] = true
	}
	name := mapperName(volumeID)
	for i := 1; taken[name]; i++ {
		name = mapperName(volumeID) + "-" + strconv.Itoa(i)
	}
	return name, nil
}

// closeVolume takes the volume's mappings down, if there are any.
func (n *Node) closeVolume(ctx context.Context, volumeID string) error {
	mappings, err := n.mappings(volumeID)
	if err != nil {
		return err
	}
	for _, mapping := range mappings {
		if err := n.closeMapping(ctx, mapping, volumeID); err != nil {
			return err
		}
	}
	return nil
}

// closeMapping takes a mapping down. One whose disk has left gives errors from then on, and goes when its last user does:
// nothing can be lost by not waiting for that.
func (n *Node) closeMapping(ctx context.Context, mapping layer, volumeID string) (err error) {
	defer n.observe("luks_close", time.Now(), &err)
	name := mapping.mapping
	if _, err := n.wholeDisk(mapping.Device); !errors.Is(err, os.ErrNotExist) {
		return n.whenReleased(ctx, mapping.Device, volumeID, func() (busy bool, err error) {
			output, status, err := cryptsetup(nil, "close", name).run(ctx)
			if err != nil || status == 0 || status == cryptsetupBusy {
				return status == cryptsetupBusy, err
			}
			return false, commandError("cryptsetup", []string{"close", name}, status, output)
		})
	}
	klog.FromContext(ctx).Info("The disk under the mapping is gone; removing the mapping", "mapping", name)
	if _, status, err := command(ctx, "dmsetup", "remove", "--force", name); err != nil || status == 0 {
		return err
	}
	args := []string{"remove", "--deferred", name}
	output, status, err := command(ctx, "dmsetup", args...)
	if err != nil || status == 0 {
		return err
	}
	return commandError("dmsetup", args, status, output)
}

// closeIfFailed returns what closes the mapping again if staging opened it and failed: nobody will unstage the volume. One
// that was open before may be in use.
func (n *Node) closeIfFailed(ctx context.Context, volumeID string) func(failed *error) {
	before, listErr := n.mappings(volumeID)
	return func(failed *error) {
		if *failed == nil || listErr != nil || len(before) > 0 {
			return
		}
		if err := n.closeVolume(ctx, volumeID); err != nil {
			klog.FromContext(ctx).Error(err, "The mapping that was opened cannot be closed again", "volume", volumeID)
		}
	}
}

// growMapping makes a mapping as large as its disk.
func (n *Node) growMapping(ctx context.Context, disk, mapping Device, volumeID string, encryption *Encryption) (err error) {
	name, err := n.mappingName(mapping)
	if err != nil {
		return err
	}
	output, status, err := command(ctx, "dmsetup", "table", name)
	if err != nil {
		return err
	}
	if status != 0 {
		return commandError("dmsetup", []string{"table", name}, status, output)
	}
	table, err := parseCryptTable(output)
	if err != nil {
		return fmt.Errorf("the mapping %s: %w", name, err)
	}
	const roundedOff = 8 // sectors that a mapping with sectors of 4096 bytes may leave
	if table.offset+table.sectors+roundedOff > disk.SizeBytes/sectorBytes {
		return nil
	}
	defer n.observe("grow", time.Now(), &err)
	if table.keyring && encryption == nil {
		return fail(ErrInvalid, "volume %s cannot be grown without its passphrase, as its key is in the kernel's keyring: name the "+
			"secret in the StorageClass also for growing (csi.storage.k8s.io/node-expand-secret-name)", volumeID)
	}
	if !table.keyring {
		encryption = nil
	}
	klog.FromContext(ctx).Info("Growing the encrypted mapping", "mapping", name, "bytes", mapping.SizeBytes, "diskBytes", disk.SizeBytes)
	output, status, err = cryptsetup(encryption, "resize", name).run(ctx)
	switch {
	case err != nil:
		return err
	case status == cryptsetupWrongPassphrase:
		return fail(ErrInvalid, "the passphrase given for growing volume %s is not the one that it was encrypted with", volumeID)
	case status != 0:
		return commandError("cryptsetup", []string{"resize", name}, status, output)
	}
	return nil
}

type cryptTable struct {
	sectors, offset int64
	keyring         bool // the key is not in the table, but in the kernel's keyring
}

// parseCryptTable reads the output of dmsetup table: start, length, "crypt", cipher, key, IV offset, device, offset …
// Warnings may come before.
func parseCryptTable(output string) (cryptTable, error) {
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[2] != "crypt" {
			continue
		}
		length, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return cryptTable{}, err
		}
		offset, err := strconv.ParseInt(fields[7], 10, 64)
		if err != nil {
			return cryptTable{}, err
		}
		return cryptTable{sectors: length, offset: offset, keyring: strings.HasPrefix(fields[4], ":")}, nil
	}
	return cryptTable{}, fmt.Errorf("is no mapping of dm-crypt: %q", output)
}
