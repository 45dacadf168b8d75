package disk

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

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

// Exit statuses of cryptsetup(8).
const (
	cryptsetupWrongPassphrase = 2
	cryptsetupBusy            = 5
)

// luksType is what blkid calls a volume that is encrypted.
const luksType = "crypto_LUKS"

// encrypted is what is found on such a volume.
var encrypted = content{filesystem: luksType}

// keyCost is how dear cryptsetup makes it to try passphrases. Its own default takes up to 1 GiB of memory each time a
// volume is opened, which is more than the container of a node plugin may have. 64 MiB for a second is well above what
// RFC 9106 recommends where memory is scarce.
var keyCost = []string{"--pbkdf", "argon2id", "--pbkdf-memory", "65536", "--pbkdf-parallel", "2", "--iter-time", "1000"}

// cryptsetup is the program with the passphrase to read, if there is an encryption.
func cryptsetup(encryption *Encryption, args ...string) program {
	p := program{name: "cryptsetup", args: []string{"--batch-mode"}}
	if encryption != nil {
		p.input = encryption.Passphrase
		p.args = append(p.args, "--key-file=-")
	}
	p.args = append(p.args, args...)
	return p
}

// luksFormat makes a marked disk an encrypted one. It carries the volume's UUID as its own, by which it is known again
// if this is interrupted.
func (n *Node) luksFormat(ctx context.Context, disk Device, vol Volume, encryption *Encryption) (err error) {
	release, err := n.awaitTurn(ctx, disk, vol)
	if err != nil {
		return err
	}
	defer release()
	defer n.observe("luks_format", time.Now(), &err)
	klog.FromContext(ctx).Info("Encrypting the blank volume", "device", disk.Path)
	args := slices.Concat([]string{"luksFormat", "--type", "luks2", "--uuid", vol.ID}, n.keyCost, []string{disk.Path})
	format := cryptsetup(encryption, args...)
	format.diesWithDriver = true
	output, status, err := format.run(ctx)
	if err != nil || status == 0 {
		return err
	}
	return commandError("cryptsetup", args, status, output)
}

// luksUUID reads the UUID of an encrypted disk, "" if its head is not whole.
func (n *Node) luksUUID(ctx context.Context, disk Device) (string, error) {
	output, status, err := cryptsetup(nil, "luksUUID", disk.Path).run(ctx)
	if err != nil || status != 0 {
		return "", err
	}
	lines := strings.Split(output, "\n") // warnings come first
	return strings.ToLower(strings.TrimSpace(lines[len(lines)-1])), nil
}

// unlocked returns the volume's mapping if it is open on this disk, for writing if that is asked for. Those that are open
// on an earlier attachment of the disk, or in another way, are taken down.
func (n *Node) unlocked(ctx context.Context, disk Device, volumeID string, readOnly bool) (found Device, open bool, err error) {
	mappings, err := n.mappings(volumeID)
	if err != nil {
		return Device{}, false, err
	}
	for _, mapping := range mappings {
		under, err := n.wholeDisk(mapping.Device)
		if err == nil && under.Major == disk.Major && under.Minor == disk.Minor {
			protected, err := readInt(filepath.Join(n.numberDir(mapping.Major, mapping.Minor), "ro"))
			if err != nil {
				return Device{}, false, err
			}
			if readOnly || protected == 0 {
				found, open = mapping.Device, true
				continue
			}
		}
		klog.FromContext(ctx).Info("Taking down the mapping of an earlier use of the volume", "mapping", mapping.mapping)
		if err := n.closeMapping(ctx, mapping, volumeID); err != nil {
			return Device{}, false, err
		}
	}
	return found, open, nil
}

// unlock opens the encrypted disk of a volume and returns what is inside: a device like a disk. A disk that is provably
// blank is encrypted first, if the request lets it be formatted. For as long as nothing was written inside, the marker is
// there (see marker.go), and fresh says that it is new: it is written to the disk before luksFormat, and writing it again inside
// replaces it, when the ends of the device inside are zeros.
func (n *Node) unlock(ctx context.Context, disk Device, req StageRequest) (mapping Device, fresh bool, err error) {
	mapping, open, err := n.unlocked(ctx, disk, req.Volume.ID, req.ReadOnly)
	if err != nil {
		return Device{}, false, err
	}
	if open {
		interrupted, err := marked(disk, req.Volume.ID)
		if err != nil || !interrupted {
			return mapping, false, err
		}
		// The driver died as it opened what it had just encrypted, and nothing was written inside. Whether the disk's head is the one
		// that it was opened by nobody knows: the cryptsetup that opened it may have outlived the driver, and the next driver begun
		// anew under it. What is written inside would be lost then.
		if err := n.closeVolume(ctx, req.Volume.ID); err != nil {
			return Device{}, false, err
		}
	}
	if fresh, err = n.encryptBlank(ctx, disk, req); err != nil {
		return Device{}, false, err
	}
	if mapping, err = n.luksOpen(ctx, disk, req); err != nil {
		return Device{}, false, err
	}
	if fresh {
		return mapping, true, n.eraseEnds(ctx, mapping, req.Volume.ID, nil)
	}
	return mapping, false, nil
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
	switch {
	case interrupted:
		if err := n.beginAnew(ctx, disk, found, req); err != nil {
			return false, err
		}
	case found == encrypted:
		return false, nil
	case !found.blank():
		return false, fail(ErrRefused, "volume %s (%s) is to be encrypted, and holds %s in the clear: it is not overwritten. "+
			"Use it with a StorageClass that does not encrypt, or copy its data to a new volume", req.Volume.ID, disk.Path, found)
	default:
		if err := mayFormat(disk, req); err != nil {
			return false, err
		}
		if err := n.markBlank(ctx, disk, req.Volume.ID); err != nil {
			return false, err
		}
	}
	return true, n.luksFormat(ctx, disk, req.Volume, req.Encryption)
}

// beginAnew erases what an interrupted format left of a marked disk, and was found there.
func (n *Node) beginAnew(ctx context.Context, disk Device, found content, req StageRequest) error {
	if err := mayFormat(disk, req); err != nil {
		return err
	}
	if err := n.requireNotEncryptedSince(ctx, disk, found, req.Volume.ID); err != nil {
		return err
	}
	klog.FromContext(ctx).Info("An earlier encryption of the volume was interrupted; beginning anew", "device", disk.Path)
	return n.eraseEnds(ctx, disk, req.Volume.ID, func() error {
		if err := requireStillMarked(disk, req.Volume.ID); err != nil {
			return err
		}
		found, err := n.probe(ctx, disk.Path)
		if err != nil {
			return err
		}
		return n.requireNotEncryptedSince(ctx, disk, found, req.Volume.ID)
	})
}

// requireNotEncryptedSince is requireUnused for a disk whose encryption was interrupted.
func (n *Node) requireNotEncryptedSince(ctx context.Context, disk Device, found content, volumeID string) error {
	if found != encrypted {
		return n.requireUnused(ctx, disk, found, volumeID)
	}
	id, err := n.luksUUID(ctx, disk)
	if err != nil || id == "" || id == strings.ToLower(volumeID) {
		return err
	}
	return fail(ErrRefused, "the format of volume %s (%s) was interrupted, and the disk was encrypted since by other means "+
		"(LUKS UUID %s). Not formatting it. If it holds nothing, fill its first MiB with zeros", volumeID, disk.Path, id)
}

func (n *Node) luksOpen(ctx context.Context, disk Device, req StageRequest) (mapping Device, err error) {
	defer n.observe("luks_open", time.Now(), &err)
	name, err := n.freeMapperName(req.Volume.ID)
	if err != nil {
		return Device{}, err
	}
	// The key stays in the mapping, not in a keyring: it can be grown without the passphrase, and containers have no keyring
	// that outlives them. Whoever may read it there is root on the node, and reads the mounted filesystem as well.
	args := []string{"open", "--type", "luks", "--disable-keyring"}
	if req.ReadOnly && req.Origin == "" { // a copy's journal may have to be replayed
		args = append(args, "--readonly")
	}
	args = append(args, disk.Path, name)
	output, status, err := cryptsetup(req.Encryption, args...).run(ctx)
	switch {
	case err != nil:
		return Device{}, err
	case status == cryptsetupWrongPassphrase:
		return Device{}, fail(ErrInvalid, "the passphrase does not open volume %s (%s): the secret that its StorageClass names "+
			"(csi.storage.k8s.io/node-stage-secret-name) is not the one that it was encrypted with, or was changed since",
			req.Volume.ID, disk.Path)
	case status != 0 && strings.Contains(output, "Cannot initialize device-mapper"):
		return Device{}, fail(ErrRefused, "volume %s (%s) is encrypted, and the kernel of this node has no device mapper: load it with "+
			"modprobe dm_crypt. %s", req.Volume.ID, disk.Path, output)
	case status != 0:
		return Device{}, commandError("cryptsetup", args, status, output)
	}
	mappings, err := n.mappings(req.Volume.ID)
	if err != nil {
		return Device{}, err
	}
	for _, mapping := range mappings {
		if mapping.mapping == name {
			return mapping.Device, nil
		}
	}
	return Device{}, fmt.Errorf("cryptsetup opened %s, and the kernel has no mapping %s", disk.Path, name)
}
