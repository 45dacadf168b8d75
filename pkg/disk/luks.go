package disk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// Encryption asks that a volume be encrypted on the node, with LUKS2: what leaves the server is ciphertext.
type Encryption struct {
	// Passphrase opens the volume: all bytes count, also a line break at the end. It is given to cryptsetup on its standard
	// input, never as an argument, and is not logged.
	Passphrase []byte
}

// mostPassphraseBytes is what cryptsetup reads of a key file (DEFAULT_KEYFILE_SIZE_MAXKB).
const mostPassphraseBytes = 8 << 20

// ValidateEncryption tells whether volumes can be encrypted as asked; nil is not at all.
func ValidateEncryption(encryption *Encryption) error {
	switch {
	case encryption == nil:
		return nil
	case len(encryption.Passphrase) == 0:
		return fail(ErrInvalid, "the passphrase of the encryption is empty: put one into the secret that the volume's StorageClass names")
	case len(encryption.Passphrase) > mostPassphraseBytes:
		return fail(ErrInvalid, "the passphrase of the encryption has %d bytes: use %d at most", len(encryption.Passphrase), mostPassphraseBytes)
	}
	return nil
}

// fingerprint makes encryptions comparable without keeping the passphrase.
func (e *Encryption) fingerprint() [sha256.Size]byte {
	if e == nil {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(e.Passphrase)
}

// What follows a mapping's name in those of mappings that are not the volume's any more, or not yet.
const (
	asideInfix   = "-gone-"
	openingInfix = "-opening-"
)

// Exit statuses of cryptsetup(8).
const (
	cryptsetupWrongPassphrase = 2
	cryptsetupBusy            = 5
)

// luksType is what blkid calls a volume that is encrypted.
const luksType = "crypto_LUKS"

// keyCost is how dear cryptsetup makes it to try passphrases. Its own default takes up to 1 GiB of memory each time a
// volume is opened, which is more than the container of a node plugin may have. 64 MiB for a second is well above what
// RFC 9106 recommends where memory is scarce.
var keyCost = []string{"--pbkdf", "argon2id", "--pbkdf-memory", "65536", "--pbkdf-parallel", "2", "--iter-time", "1000"}

func (n *Node) cryptsetup(ctx context.Context, encryption *Encryption, args ...string) (output string, status int, err error) {
	var input []byte
	if encryption != nil {
		input = encryption.Passphrase
		args = append([]string{"--key-file=-"}, args...)
	}
	return commandWithInput(ctx, input, "cryptsetup", append([]string{"--batch-mode"}, args...)...)
}

// luksFormat makes a marked disk an encrypted one. It carries the volume's UUID as its own, by which it is known again
// if this is interrupted.
func (n *Node) luksFormat(ctx context.Context, disk Device, volumeID string, encryption *Encryption) (err error) {
	n.formats <- struct{}{}
	defer func() { <-n.formats }()
	defer n.observe("luks_format", time.Now(), &err)
	klog.FromContext(ctx).Info("Encrypting the blank volume", "device", disk.Path)
	args := slices.Concat([]string{"luksFormat", "--type", "luks2", "--uuid", volumeID}, n.keyCost, []string{disk.Path})
	output, status, err := n.cryptsetup(ctx, encryption, args...)
	if err != nil || status == 0 {
		return err
	}
	return commandError("cryptsetup", args, status, output)
}

// luksUUID reads the UUID of an encrypted disk, "" if its head is not whole.
func (n *Node) luksUUID(ctx context.Context, disk Device) (string, error) {
	output, status, err := n.cryptsetup(ctx, nil, "luksUUID", disk.Path)
	if err != nil || status != 0 {
		return "", err
	}
	lines := strings.Split(output, "\n") // warnings come first
	return strings.ToLower(strings.TrimSpace(lines[len(lines)-1])), nil
}

// unlocked returns the volume's mapping if it is open on this disk, for writing if that is asked for. One that is open
// on an earlier attachment of the disk, or in another way, is taken down.
func (n *Node) unlocked(ctx context.Context, disk Device, volumeID string, readOnly bool) (mapping Device, open bool, err error) {
	mapping, open, err = n.mapping(volumeID)
	if err != nil || !open {
		return Device{}, false, err
	}
	under, err := n.wholeDisk(mapping)
	if err == nil && under.Major == disk.Major && under.Minor == disk.Minor {
		protected, err := readInt(filepath.Join(n.numberDir(mapping.Major, mapping.Minor), "ro"))
		if err != nil || readOnly || protected == 0 {
			return mapping, err == nil, err
		}
	}
	klog.FromContext(ctx).Info("Taking down the mapping of an earlier use of the volume", "mapping", mapping.Path)
	return Device{}, false, n.closeMapping(ctx, mapping, volumeID)
}

// unlock opens the encrypted disk of a volume and returns what is inside: a device like a disk. A disk that is provably
// blank is encrypted first, if the request lets it be formatted. For as long as nothing was written inside, the marker is
// there (see marker.go): it is written to the disk before luksFormat, and writing it again inside replaces it.
func (n *Node) unlock(ctx context.Context, disk Device, req StageRequest) (Device, error) {
	mapping, open, err := n.unlocked(ctx, disk, req.Volume.ID, req.ReadOnly)
	if err != nil || open {
		return mapping, err
	}
	fresh, err := n.encryptBlank(ctx, disk, req)
	if err != nil {
		return Device{}, err
	}
	if mapping, err = n.luksOpen(ctx, disk, req); err != nil {
		return Device{}, err
	}
	if fresh {
		return mapping, mark(mapping, req.Volume.ID)
	}
	return mapping, nil
}

// encryptBlank encrypts a disk that is provably blank, and refuses one that is neither blank nor encrypted.
func (n *Node) encryptBlank(ctx context.Context, disk Device, req StageRequest) (fresh bool, err error) {
	found, err := n.probe(ctx, disk.Path)
	if err != nil {
		return false, err
	}
	interrupted, err := marked(disk, req.Volume.ID)
	if err != nil {
		return false, err
	}
	encrypted := found == content{filesystem: luksType}
	switch {
	case interrupted:
		if err := n.beginAnew(ctx, disk, req, encrypted); err != nil {
			return false, err
		}
	case encrypted:
		return false, nil
	case !found.blank():
		return false, fail(ErrRefused, "volume %s (%s) is to be encrypted, and holds %s in the clear: it is not overwritten. "+
			"Use it with a StorageClass that does not encrypt, or copy its data to a new volume", req.Volume.ID, disk.Path, found)
	default:
		if err := mayFormat(disk, req); err != nil {
			return false, err
		}
		if err := n.requireBlank(ctx, disk); err != nil {
			return false, err
		}
		if err := mark(disk, req.Volume.ID); err != nil {
			return false, err
		}
	}
	return true, n.luksFormat(ctx, disk, req.Volume.ID, req.Encryption)
}

// beginAnew erases what an interrupted format left of a marked disk.
func (n *Node) beginAnew(ctx context.Context, disk Device, req StageRequest, encrypted bool) error {
	if err := mayFormat(disk, req); err != nil {
		return err
	}
	if encrypted {
		id, err := n.luksUUID(ctx, disk)
		if err != nil {
			return err
		}
		if id != "" && id != strings.ToLower(req.Volume.ID) {
			return fail(ErrRefused, "the format of volume %s (%s) was interrupted, and the disk was encrypted since by other means "+
				"(LUKS UUID %s). Not formatting it. If it holds nothing, fill its first MiB with zeros", req.Volume.ID, disk.Path, id)
		}
	} else if err := n.requireUnused(ctx, disk, req.Volume.ID); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("An earlier encryption of the volume was interrupted; beginning anew", "device", disk.Path)
	return eraseHead(disk)
}

func (n *Node) luksOpen(ctx context.Context, disk Device, req StageRequest) (mapping Device, err error) {
	defer n.observe("luks_open", time.Now(), &err)
	name := mapperName(req.Volume.ID)
	// The key stays in the mapping, not in a keyring: it can be grown without the passphrase, and containers have no keyring
	// that outlives them. Whoever may read it there is root on the node, and reads the mounted filesystem as well.
	args := []string{"open", "--type", "luks", "--disable-keyring"}
	if req.ReadOnly && req.Origin == "" { // a copy's journal may have to be replayed
		args = append(args, "--readonly")
	}
	args = append(args, disk.Path)
	output, status, err := n.openBeside(ctx, req, args, name)
	switch {
	case err != nil:
		return Device{}, err
	case status == cryptsetupWrongPassphrase:
		return Device{}, fail(ErrInvalid, "the passphrase does not open volume %s (%s): the secret that its StorageClass names "+
			"(csi.storage.k8s.io/node-stage-secret-name) is not the one that it was encrypted with, or was changed since",
			req.Volume.ID, disk.Path)
	case status != 0 && strings.Contains(output, "device-mapper"):
		return Device{}, fail(ErrRefused, "volume %s (%s) is encrypted, and the kernel of this node has no device mapper: load it with "+
			"modprobe dm_crypt. %s", req.Volume.ID, disk.Path, output)
	case status != 0:
		return Device{}, commandError("cryptsetup", append(args, name), status, output)
	}
	mapping, open, err := n.mapping(req.Volume.ID)
	if err == nil && !open {
		err = fmt.Errorf("cryptsetup opened %s, and the kernel has no mapping %s", disk.Path, name)
	}
	if err != nil {
		return Device{}, err
	}
	under, err := n.wholeDisk(mapping)
	if err == nil && (under.Major != disk.Major || under.Minor != disk.Minor) {
		err = fmt.Errorf("the mapping %s is not on %s, but on %s: it is taken down when this is tried again", name, disk.Path, under.Path)
	}
	return mapping, err
}

// openBeside opens the disk under the name, also beside a mapping that closeMapping has put aside. That one keeps the UUID that
// cryptsetup made of its first name, which no other may have: the new one is opened by another name, and renamed.
func (n *Node) openBeside(ctx context.Context, req StageRequest, args []string, name string) (output string, status int, err error) {
	names, err := n.mappingNames()
	if err != nil {
		return "", 0, err
	}
	opening, aside := "", false
	for _, other := range names {
		aside = aside || strings.HasPrefix(other, name+asideInfix)
		if strings.HasPrefix(other, name+openingInfix) { // the rename was interrupted
			opening = other
		}
	}
	if !aside && opening == "" {
		return n.cryptsetup(ctx, req.Encryption, append(args, name)...)
	}
	if opening == "" {
		opening = name + openingInfix + strconv.FormatInt(time.Now().UnixNano(), 36)
		output, status, err = n.cryptsetup(ctx, req.Encryption, append(args, opening)...)
		if err != nil || status != 0 {
			return output, status, err
		}
	}
	return command(ctx, "dmsetup", "rename", opening, name)
}

// mappingNames lists the names of the kernel's mappings.
func (n *Node) mappingNames() (names []string, err error) {
	files, err := filepath.Glob(filepath.Join(n.sysDir, "block", "dm-*", "dm", "name"))
	for _, file := range files {
		if name, err := readText(file); err == nil { // one that went away meanwhile is none
			names = append(names, name)
		}
	}
	return names, err
}

// closeVolume takes the volume's mapping down, if there is one.
func (n *Node) closeVolume(ctx context.Context, volumeID string) error {
	mapping, open, err := n.mapping(volumeID)
	if err != nil || !open {
		return err
	}
	return n.closeMapping(ctx, mapping, volumeID)
}

// closeMapping takes a mapping down. One whose disk has left is taken down also while something has it open: it gives
// errors from then on, loses its name and goes when the last user does.
func (n *Node) closeMapping(ctx context.Context, mapping Device, volumeID string) (err error) {
	defer n.observe("luks_close", time.Now(), &err)
	name := mapperName(volumeID)
	_, underErr := n.wholeDisk(mapping)
	gone := errors.Is(underErr, os.ErrNotExist)
	if !gone {
		return n.whenReleased(ctx, mapping, volumeID, func() (busy bool, err error) {
			output, status, err := n.cryptsetup(ctx, nil, "close", name)
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
	aside := name + asideInfix + strconv.Itoa(mapping.Minor)
	for _, args := range [][]string{{"rename", name, aside}, {"remove", "--deferred", aside}} {
		if output, status, err := command(ctx, "dmsetup", args...); err != nil || status != 0 {
			return errors.Join(err, commandError("dmsetup", args, status, output))
		}
	}
	return nil
}

// growMapping makes a mapping as large as its disk.
func (n *Node) growMapping(ctx context.Context, disk, mapping Device, volumeID string, encryption *Encryption) (err error) {
	name := mapperName(volumeID)
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
	output, status, err = n.cryptsetup(ctx, encryption, "resize", name)
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

// mapping finds the volume's mapping among the kernel's devices.
func (n *Node) mapping(volumeID string) (dev Device, open bool, err error) {
	files, err := filepath.Glob(filepath.Join(n.sysDir, "block", "dm-*", "dm", "name"))
	if err != nil {
		return Device{}, false, err
	}
	for _, file := range files {
		if name, err := readText(file); err != nil || name != mapperName(volumeID) {
			continue // a mapping that went away meanwhile is none
		}
		dev, err := n.deviceIn(filepath.Dir(filepath.Dir(file)))
		if err != nil {
			return Device{}, false, err
		}
		if _, err := os.Stat(dev.Path); err != nil { // a folder of device nodes that the kernel does not fill
			named, namedErr := n.deviceAt(filepath.Join(n.devDir, "mapper", mapperName(volumeID)))
			if namedErr != nil || named.Major != dev.Major || named.Minor != dev.Minor {
				return Device{}, false, fmt.Errorf("the mapping %s has no device node: %w", mapperName(volumeID), err)
			}
			return named, true, nil
		}
		return dev, true, nil
	}
	return Device{}, false, nil
}

// isGone tells whether an error says that a device has left the machine.
func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOMEDIUM)
}
