package disk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// content is what a device holds, as far as blkid can tell.
type content struct {
	filesystem     string // also LVM2_member, crypto_LUKS, swap …
	partitionTable string // gpt, dos …
	ambiguous      bool   // signatures of several kinds
}

func (c content) blank() bool { return c == content{} }

func (c content) String() string {
	switch {
	case c.ambiguous:
		return "signatures of several kinds"
	case c.filesystem != "" && c.partitionTable != "":
		return fmt.Sprintf("%s and a %s partition table", c.filesystem, c.partitionTable)
	case c.filesystem != "":
		return c.filesystem
	case c.partitionTable != "":
		return fmt.Sprintf("a %s partition table", c.partitionTable)
	}
	return "nothing that is known"
}

// Exit statuses of blkid(8).
const (
	blkidFound     = 0
	blkidNothing   = 2 // nothing found, and also: the device could not be read
	blkidAmbiguous = 8
)

// probe asks blkid, which reads the device itself and no cache. A blank answer alone proves nothing: see requireBlank.
func (n *Node) probe(ctx context.Context, device string) (found content, err error) {
	defer n.observe("probe", time.Now(), &err)
	args := []string{"--probe", "--output", "export", "--match-tag", "TYPE", "--match-tag", "PTTYPE", device}
	output, status, err := command(ctx, "blkid", args...)
	if err != nil {
		return content{}, err
	}
	switch status {
	case blkidFound:
		return parseProbe(output), nil
	case blkidNothing:
		return content{}, nil
	case blkidAmbiguous:
		return content{ambiguous: true}, nil
	}
	return content{}, commandError("blkid", args, status, output)
}

// probeUUID asks blkid for the UUID of the filesystem on a device, "" if it knows none.
func (n *Node) probeUUID(ctx context.Context, device string) (string, error) {
	args := []string{"--probe", "--output", "export", "--match-tag", "UUID", device}
	output, status, err := command(ctx, "blkid", args...)
	if err != nil || status == blkidNothing || status == blkidAmbiguous {
		return "", err
	}
	if status != blkidFound {
		return "", commandError("blkid", args, status, output)
	}
	for line := range strings.Lines(output) {
		if id, found := strings.CutPrefix(strings.TrimSpace(line), "UUID="); found {
			return strings.ToLower(id), nil
		}
	}
	return "", nil
}

func parseProbe(output string) content {
	var found content
	for line := range strings.Lines(output) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "TYPE":
			found.filesystem = value
		case "PTTYPE":
			found.partitionTable = value
		}
	}
	return found
}

// proofBytes is how much must be zero at each end of a device that may be formatted: all signatures that programs
// look for are in there, those that no program of ours knows too.
const proofBytes = 1 << 20

// requireBlank proves that the device holds nothing, or says why it cannot: both ends can be read and are zero, and blkid finds
// nothing. marker, if not nil, is the marker that must be there. The device is open exclusively for as long as that takes.
//
// It is asked twice: when the device is marked (see markBlank), and right before it is formatted, which may be minutes later, as many
// wait for their turn. The device cannot stay open exclusively in between and while it is formatted: mke2fs, mkfs.xfs, mkfs.btrfs
// and cryptsetup luksFormat open it exclusively themselves, and all of them fail with "busy" when it is, forced or not. So
// the proof ends with closing the device, and what formats it is started next: it is open exclusively again some milliseconds later.
// mkfs.xfs and mkfs.btrfs look for filesystems once more then; mke2fs does so on a terminal only, and cryptsetup never in
// batch mode.
func (n *Node) requireBlank(ctx context.Context, dev Device, marker []byte) error {
	return n.whileBlank(ctx, dev, marker, os.O_RDONLY, func(*os.File) error { return nil })
}

// whileBlank is requireBlank, and calls do while the device is still open exclusively, with the flag. do must not start programs.
func (n *Node) whileBlank(ctx context.Context, dev Device, marker []byte, flag int, do func(*os.File) error) error {
	if dev.SizeBytes < 2*proofBytes {
		return fail(ErrRefused, "%s has only %d bytes: not formatting it", dev.Path, dev.SizeBytes)
	}
	defer doing(ctx, "reading "+dev.Path+" to see whether it is blank")()
	return n.exclusively(ctx, dev, flag, func(file *os.File) error {
		var found content
		err := onAnotherThread(func() (err error) {
			found, err = n.probe(ctx, dev.Path)
			return err
		})
		if err != nil {
			return err
		}
		if !found.blank() {
			return fail(ErrRefused, "%s was blank a moment ago and now holds %s: not formatting it", dev.Path, found)
		}
		if err := requireZeros(file, dev, marker); err != nil {
			return err
		}
		return do(file)
	})
}

// onAnotherThread calls fn, which may start programs, for a thread that must not (see onPrivateDescriptors).
func onAnotherThread(fn func() error) error {
	done := make(chan error)
	go func() { done <- fn() }()
	return <-done
}

func requireZeros(file io.ReaderAt, dev Device, marker []byte) error {
	for _, offset := range []int64{0, dev.SizeBytes - proofBytes} {
		buffer := make([]byte, proofBytes)
		if _, err := io.ReadFull(io.NewSectionReader(file, offset, proofBytes), buffer); err != nil {
			return fmt.Errorf("reading %s at byte %d to see whether it is blank: %w", dev.Path, offset, err)
		}
		if offset > 0 && marker != nil {
			at := buffer[proofBytes-markerFromEnd:][:markerBytes]
			if !bytes.Equal(at, marker) {
				return fail(ErrRefused, "%s was marked to be formatted, and the mark was overwritten at byte %d: not formatting it", dev.Path,
					dev.SizeBytes-markerFromEnd)
			}
			clear(at)
		}
		if at := slices.IndexFunc(buffer, func(b byte) bool { return b != 0 }); at >= 0 {
			return fail(ErrRefused, "%s has no filesystem that is known, but is not blank: there is data at byte %d. "+
				"Not formatting it. If the data is of no use, fill the first and the last MiB of the disk with zeros",
				dev.Path, offset+int64(at))
		}
	}
	return nil
}
