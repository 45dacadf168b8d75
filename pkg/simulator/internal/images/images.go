//go:build linux

// Package images keeps the bytes of a simulator's storages: a sparse file for each, named by the storage's UUID.
//
// It knows files. What a machine sees of them is the disk planes' matter.
package images

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const (
	gib       = 1 << 30
	extension = ".img"
)

// Folder is a folder of images. Its methods may be called from many goroutines at once.
type Folder struct {
	dir string

	mu   sync.Mutex
	made map[string]bool // storages whose images are the folder's, by UUID
}

// Open makes the folder if it is not there. Images that are in it already are left alone until Keep or RemoveAll is told
// about them.
func Open(dir string) (*Folder, error) {
	return &Folder{dir: dir, made: map[string]bool{}}, os.MkdirAll(dir, 0o755)
}

// Dir is where the images are.
func (f *Folder) Dir() string { return f.dir }

// Path is where the storage's image is.
func (f *Folder) Path(storage string) string { return filepath.Join(f.dir, storage+extension) }

// Storage is the UUID of the storage that an image of the path would be of.
func (f *Folder) Storage(path string) string {
	return strings.TrimSuffix(filepath.Base(path), extension)
}

func (f *Folder) note(storage string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made[storage] = true
}

// Create makes an image of so many GiB in which every byte is zero.
func (f *Folder) Create(storage string, size int) error {
	file, err := os.OpenFile(f.Path(storage), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	f.note(storage)
	return errors.Join(file.Truncate(int64(size)*gib), file.Close())
}

// Copy makes the image of to a copy of from's, size GiB large. The file is filled in place: whoever has it open sees the
// new bytes.
func (f *Folder) Copy(ctx context.Context, from, to string, size int) error {
	f.note(to)
	return copyImage(ctx, f.Path(from), f.Path(to), int64(size)*gib)
}

// Grow makes the image size GiB large.
func (f *Folder) Grow(storage string, size int) error {
	return os.Truncate(f.Path(storage), int64(size)*gib)
}

// Write puts bytes at the beginning of the image.
func (f *Folder) Write(ctx context.Context, storage string, from io.Reader) error {
	file, err := os.OpenFile(f.Path(storage), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, untilDone{ctx, from})
	return errors.Join(err, file.Close())
}

// Remove deletes the image. One that is not there is no error.
func (f *Folder) Remove(storage string) error {
	f.mu.Lock()
	delete(f.made, storage)
	f.mu.Unlock()
	return ignoreMissing(os.Remove(f.Path(storage)))
}

// RemoveAll deletes every image that is in the folder, whoever made it.
func (f *Folder) RemoveAll() error {
	found, err := f.all()
	errs := []error{err}
	for _, path := range found {
		errs = append(errs, ignoreMissing(os.Remove(path)))
	}
	return errors.Join(errs...)
}

// RemoveMade deletes the images that the folder has made or kept.
func (f *Folder) RemoveMade() error {
	f.mu.Lock()
	made := f.made
	f.made = map[string]bool{}
	f.mu.Unlock()
	var errs []error
	for storage := range made {
		errs = append(errs, ignoreMissing(os.Remove(f.Path(storage))))
	}
	return errors.Join(errs...)
}

// Keep compares the images with the disks that there are to be, as simulator.DiskKeeper asks.
func (f *Folder) Keep(disks map[string]simulator.KeptDisk, create bool) (missing, unknown []string, err error) {
	found, err := f.all()
	for _, path := range found {
		if _, known := disks[f.Storage(path)]; !known {
			unknown = append(unknown, path)
		}
	}
	for uuid, disk := range disks {
		_, absent := os.Stat(f.Path(uuid))
		switch {
		case absent == nil:
			f.note(uuid)
		case create:
			err = errors.Join(err, f.Create(uuid, disk.Size))
		default:
			missing = append(missing, uuid)
		}
	}
	return missing, unknown, err
}

func (f *Folder) all() ([]string, error) { return filepath.Glob(filepath.Join(f.dir, "*"+extension)) }

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// untilDone reads until its context ends.
type untilDone struct {
	ctx  context.Context
	from io.Reader
}

func (r untilDone) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.from.Read(b)
}
