// Package toolchain provides what the local cluster is made of: Kubernetes, containerd and the CSI sidecars built from
// Go modules, the project's own programs, and container images of them. What it builds once it keeps in the user's
// cache folder, by a key of everything the result depends on. It knows nothing of running them.
package toolchain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Cache is a folder of build results, each under a name that says what went into it.
type Cache struct {
	dir string
	// announce is told what is about to be built because it is not there: it may take minutes.
	announce func(name string)
	pause    time.Duration // before something that could not be made is tried again
}

// attempts are made at each thing: most of them are downloaded, and mirrors and proxies fail now and then.
const attempts = 3

// OpenCache opens the project's folder in the user's cache folder. announce is told of each thing that must be built
// because it is not there.
func OpenCache(announce func(name string)) (*Cache, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find the user's cache folder (set HOME or XDG_CACHE_HOME): %w", err)
	}
	dir := filepath.Join(base, "cloud-provider-upcloud")
	return &Cache{dir, announce, 10 * time.Second}, os.MkdirAll(dir, 0o755)
}

// key digests the Go version, the given words and the given files and folders.
func key(words []string, paths []string) (string, error) {
	digest := sha256.New()
	fmt.Fprintln(digest, runtime.Version(), runtime.GOARCH, words)
	for _, path := range paths {
		err := filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			defer file.Close()
			fmt.Fprintln(digest, filepath.Base(path))
			_, err = io.Copy(digest, file)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(digest.Sum(nil))[:16], nil
}

// get returns the cached folder or file for name and key; make fills it in when it is not there. A result appears whole
// or not at all, and the older results of the same name are removed when a new one has come.
func (c *Cache) get(ctx context.Context, name, key string, make func(path string) error) (path string, err error) {
	path = filepath.Join(c.dir, name+"-"+key)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	c.announce(name)
	unfinished := path + ".unfinished"
	for attempt := 1; ; attempt++ {
		if err := os.RemoveAll(unfinished); err != nil {
			return "", err
		}
		if err = make(unfinished); err == nil {
			break
		}
		if attempt == attempts || ctx.Err() != nil {
			return "", errors.Join(err, os.RemoveAll(unfinished))
		}
		c.announce(fmt.Sprintf("%s (attempt %d of %d; the last one failed: %v)", name, attempt+1, attempts, err))
		select {
		case <-time.After(c.pause):
		case <-ctx.Done():
		}
	}
	older, _ := filepath.Glob(filepath.Join(c.dir, name+"-????????????????"))
	if err := os.Rename(unfinished, path); err != nil {
		return "", err
	}
	for _, old := range older {
		_ = os.RemoveAll(old)
	}
	return path, nil
}
