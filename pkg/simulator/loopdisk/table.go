//go:build linux

package loopdisk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kernels read partition tables by themselves when they are built with readers for them; not all are. What this one has
// not found, the plane adds, as the program partx does.

const sector = 512

// extent is a partition in a table, in bytes.
type extent struct {
	number        int
	start, length int64
}

// readTable returns the partitions that the disk's table has, GPT or primary ones of an MBR; none when there is no table.
func readTable(disk io.ReaderAt) ([]extent, error) {
	head := make([]byte, 2*sector)
	if _, err := disk.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if head[510] != 0x55 || head[511] != 0xaa {
		return nil, nil
	}
	if gpt := head[sector:]; bytes.HasPrefix(gpt, []byte("EFI PART")) {
		return readGPT(disk, gpt)
	}
	var out []extent
	for i := range 4 {
		entry := head[446+16*i:]
		start, sectors := binary.LittleEndian.Uint32(entry[8:]), binary.LittleEndian.Uint32(entry[12:])
		if entry[4] != 0 && entry[4] != 0xee && sectors > 0 {
			out = append(out, extent{i + 1, int64(start) * sector, int64(sectors) * sector})
		}
	}
	return out, nil
}

const maxEntries, maxEntrySize = 256, 4096

func readGPT(disk io.ReaderAt, header []byte) ([]extent, error) {
	at := int64(binary.LittleEndian.Uint64(header[72:])) * sector
	count, size := int(binary.LittleEndian.Uint32(header[80:])), int(binary.LittleEndian.Uint32(header[84:]))
	if at <= 0 || count > maxEntries || size < 128 || size > maxEntrySize {
		return nil, nil // not a table that the kernel would take
	}
	entries := make([]byte, count*size)
	if _, err := disk.ReadAt(entries, at); err != nil {
		return nil, err
	}
	var out []extent
	for i := range count {
		entry := entries[i*size:]
		if bytes.Equal(entry[:16], make([]byte, 16)) {
			continue // unused
		}
		first, last := binary.LittleEndian.Uint64(entry[32:]), binary.LittleEndian.Uint64(entry[40:])
		if first == 0 || last < first || last > 1<<50 {
			continue
		}
		out = append(out, extent{i + 1, int64(first) * sector, int64(last-first+1) * sector})
	}
	return out, nil
}

// addPartitions makes the kernel know the partitions that the disk's table has.
func (l *loop) addPartitions() error {
	table, err := readTable(l.file)
	if err != nil || len(table) == 0 {
		return err
	}
	now, err := l.partitions()
	if err != nil {
		return err
	}
	known := map[int]bool{}
	for _, p := range now {
		known[p.number] = true
	}
	var errs []error
	for _, e := range table {
		if known[e.number] {
			continue
		}
		if err := l.addPartition(e); err != nil && !errors.Is(err, unix.EBUSY) { // busy: the kernel was faster
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (l *loop) addPartition(e extent) error {
	p := &unix.BlkpgPartition{Start: e.start, Length: e.length, Pno: int32(e.number)}
	request := &unix.BlkpgIoctlArg{Op: unix.BLKPG_ADD_PARTITION, Datalen: int32(unsafe.Sizeof(*p)),
		Data: (*byte)(unsafe.Pointer(p))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, l.file.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(request)))
	runtime.KeepAlive(request)
	if errno != 0 {
		return fmt.Errorf("add partition %d to %s: %w", e.number, l.path, errno)
	}
	return nil
}
