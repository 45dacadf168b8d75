package disk

import (
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

// requireBlank proves that the device holds nothing, or tells why it cannot: nobody else has it open, both ends can be
// read and are zero, and blkid finds nothing, before (the caller's probe) and after.
func (n *Node) requireBlank(ctx context.Context, dev Device) error {
	if err := requireZeros(ctx, dev); err != nil {
		return err
	}
	found, err := n.probe(ctx, dev.Path)
	if err != nil {
		return err
	}
	if !found.blank() {
		return fail(ErrRefused, "%s was blank a moment ago and now holds %s: not formatting it", dev.Path, found)
	}
	return nil
}

func requireZeros(ctx context.Context, dev Device) error {
	file, err := openExclusively(ctx, dev, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	if dev.SizeBytes < 2*proofBytes {
		return fail(ErrRefused, "%s has only %d bytes: not formatting it", dev.Path, dev.SizeBytes)
	}
	for _, offset := range []int64{0, dev.SizeBytes - proofBytes} {
		buffer := make([]byte, proofBytes)
		if _, err := io.ReadFull(io.NewSectionReader(file, offset, proofBytes), buffer); err != nil {
			return fmt.Errorf("reading %s at byte %d to see whether it is blank: %w", dev.Path, offset, err)
		}
		if at := slices.IndexFunc(buffer, func(b byte) bool { return b != 0 }); at >= 0 {
			return fail(ErrRefused, "%s has no filesystem that is known, but is not blank: there is data at byte %d. "+
				"Not formatting it. If the data is of no use, fill the first and the last MiB of the disk with zeros",
				dev.Path, offset+int64(at))
		}
	}
	return nil
}
