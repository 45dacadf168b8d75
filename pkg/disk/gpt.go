package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in the header of a GUID partition table: UEFI specification 2.10, table 5.5, and of its entries, table 5.6.
const (
	gptSignature    = "EFI PART"
	gptHeaderSize   = 92
	gptAtSize       = 12
	gptAtCRC        = 16
	gptAtSelf       = 24
	gptAtOther      = 32
	gptAtLastUsable = 48
	gptAtEntries    = 72
	gptAtCount      = 80
	gptAtEntrySize  = 84
	gptAtEntriesCRC = 88

	gptEntryFirst = 32
	gptEntryLast  = 40

	gptMostEntryBytes = 1 << 20
	gptAlignment      = 1 << 20 // bytes; partitions end where another could begin
)

// gpt is a GUID partition table as the front of the disk has it.
type gpt struct {
	file    *os.File
	sector  uint64 // bytes in a logical block
	sectors uint64 // of the disk, as it is now
	header  []byte
	entries []byte
}

// readGPT reads and proves the table at the front of a disk.
func readGPT(file *os.File, sizeBytes int64) (*gpt, error) {
	sector, err := unix.IoctlGetInt(int(file.Fd()), unix.BLKSSZGET)
	if err != nil {
		return nil, fmt.Errorf("asking %s for the size of its sectors: %w", file.Name(), err)
	}
	if sector < 512 || sector > 1<<16 {
		return nil, fmt.Errorf("%s has sectors of %d bytes", file.Name(), sector)
	}
	t := &gpt{file: file, sector: uint64(sector), sectors: uint64(sizeBytes) / uint64(sector)}
	t.header = make([]byte, sector)
	if _, err := file.ReadAt(t.header, int64(sector)); err != nil {
		return nil, err
	}
	broken := func(what string) error {
		return fail(ErrRefused, "the partition table of %s is not a whole GUID partition table (%s): it is not changed. "+
			"Grow the partition by hand", file.Name(), what)
	}
	size := t.u32(gptAtSize)
	switch {
	case string(t.header[:len(gptSignature)]) != gptSignature:
		return nil, broken("no signature")
	case size < gptHeaderSize || uint64(size) > t.sector:
		return nil, broken(fmt.Sprintf("a header of %d bytes", size))
	case t.headerCRC() != t.u32(gptAtCRC):
		return nil, broken("wrong checksum of the header")
	}
	count, entrySize := uint64(t.u32(gptAtCount)), uint64(t.u32(gptAtEntrySize))
	if entrySize < 128 || count == 0 || count*entrySize > gptMostEntryBytes {
		return nil, broken(fmt.Sprintf("%d entries of %d bytes", count, entrySize))
	}
	at := t.u64(gptAtEntries)
	if at < 2 || at >= t.sectors {
		return nil, broken("its entries are not on the disk")
	}
	t.entries = make([]byte, count*entrySize)
	if _, err := file.ReadAt(t.entries, int64(at*t.sector)); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(t.entries) != t.u32(gptAtEntriesCRC) {
		return nil, broken("wrong checksum of the entries")
	}
	return t, nil
}

func (t *gpt) u32(at int) uint32 { return binary.LittleEndian.Uint32(t.header[at:]) }
func (t *gpt) u64(at int) uint64 { return binary.LittleEndian.Uint64(t.header[at:]) }

func (t *gpt) headerCRC() uint32 {
	header := bytes.Clone(t.header[:t.u32(gptAtSize)])
	binary.LittleEndian.PutUint32(header[gptAtCRC:], 0)
	return crc32.ChecksumIEEE(header)
}

// entry is the entry of a partition, by its number from 1; nil where the table has none such.
func (t *gpt) entry(number int) []byte {
	size := int(t.u32(gptAtEntrySize))
	if number < 1 || number*size > len(t.entries) {
		return nil
	}
	entry := t.entries[(number-1)*size : number*size]
	if bytes.Equal(entry[:16], make([]byte, 16)) { // type: unused
		return nil
	}
	return entry
}

// grow makes the last partition of a disk end at the disk's end, on disk, and returns its start and length in bytes. The
// copy of the table at the disk's new end is written first: whatever interrupts the writing, one of the two is whole.
func (t *gpt) grow(number int) (start, length int64, err error) {
	entry := t.entry(number)
	if entry == nil {
		return 0, 0, fail(ErrRefused, "the partition table of %s has no partition %d", t.file.Name(), number)
	}
	entrySectors := (uint64(len(t.entries)) + t.sector - 1) / t.sector
	if t.sectors < 2*entrySectors+4 {
		return 0, 0, fail(ErrRefused, "%s is too small for a GUID partition table", t.file.Name())
	}
	lastUsable := t.sectors - 1 - entrySectors - 1
	aligned := (lastUsable+1)/(gptAlignment/t.sector)*(gptAlignment/t.sector) - 1
	first, last := binary.LittleEndian.Uint64(entry[gptEntryFirst:]), binary.LittleEndian.Uint64(entry[gptEntryLast:])
	if first > last || last >= t.sectors {
		return 0, 0, fail(ErrRefused, "partition %d of %s is not on the disk", number, t.file.Name())
	}
	if aligned > last {
		last = aligned
		binary.LittleEndian.PutUint64(entry[gptEntryLast:], last)
		if err := t.write(lastUsable, entrySectors); err != nil {
			return 0, 0, err
		}
	}
	return int64(first * t.sector), int64((last - first + 1) * t.sector), nil
}

func (t *gpt) write(lastUsable, entrySectors uint64) error {
	end, ours := t.sectors-1, t.u64(gptAtEntries)
	binary.LittleEndian.PutUint64(t.header[gptAtLastUsable:], lastUsable)
	binary.LittleEndian.PutUint32(t.header[gptAtEntriesCRC:], crc32.ChecksumIEEE(t.entries))
	if err := t.writeCopy(end, 1, end-entrySectors); err != nil {
		return err
	}
	return t.writeCopy(1, end, ours)
}

// writeCopy writes one of the two copies and waits until it is on the disk. Where the entries follow their header, as those
// of the first copy do, both go out in one write: Linux looks at the second copy only when told to at boot, so that
// whatever stops us should find the first one either old or new.
func (t *gpt) writeCopy(self, other, entriesAt uint64) error {
	binary.LittleEndian.PutUint64(t.header[gptAtSelf:], self)
	binary.LittleEndian.PutUint64(t.header[gptAtOther:], other)
	binary.LittleEndian.PutUint64(t.header[gptAtEntries:], entriesAt)
	binary.LittleEndian.PutUint32(t.header[gptAtCRC:], t.headerCRC())
	headerAt := int64(self * t.sector)
	if entriesAt == self+1 {
		if _, err := t.file.WriteAt(append(bytes.Clone(t.header), t.entries...), headerAt); err != nil {
			return err
		}
		return t.file.Sync()
	}
	if _, err := t.file.WriteAt(t.entries, int64(entriesAt*t.sector)); err != nil {
		return err
	}
	if _, err := t.file.WriteAt(t.header, headerAt); err != nil {
		return err
	}
	return t.file.Sync()
}

// growPartition makes the only partition of a disk end at the disk's end: in the table, and for the kernel, which goes on
// using the old size otherwise. The partition may be mounted.
func growPartition(disk Device, number int) error {
	file, err := os.OpenFile(disk.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	table, err := readGPT(file, disk.SizeBytes)
	if err != nil {
		return err
	}
	start, length, err := table.grow(number)
	if err != nil {
		return err
	}
	return resizeInKernel(file, number, start, length)
}

// resizeInKernel tells the kernel the size of a partition: BLKPG_RESIZE_PARTITION of linux/blkpg.h.
func resizeInKernel(disk *os.File, number int, start, length int64) error {
	partition := unix.BlkpgPartition{Start: start, Length: length, Pno: int32(number)}
	request := unix.BlkpgIoctlArg{
		Op: unix.BLKPG_RESIZE_PARTITION, Datalen: int32(unsafe.Sizeof(partition)), Data: (*byte)(unsafe.Pointer(&partition)),
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, disk.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return fmt.Errorf("telling the kernel the new size of partition %d of %s: %w", number, disk.Name(), errno)
	}
	return nil
}
