package disk

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// onPrivateDescriptors runs fn on a thread with a table of descriptors of its own, which programs that are started meanwhile
// get no copy of: between fork and exec they would keep a disk open that is closed here. Holding syscall.ForkLock instead
// would let one disk that hangs keep all programs from being started. fn closes what it opens, and must not start programs or wait
// for the network.
func onPrivateDescriptors(ctx context.Context, fn func(context.Context) error) error {
	if err := startPoller(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, and its table with it
		if unix.Gettid() == unix.Getpid() {
			// What /proc/self shows is the main thread's, which stays as it is. Another goroutine gets another thread.
			done <- onPrivateDescriptors(ctx, fn)
			runtime.UnlockOSThread()
			return
		}
		if err := unshareDescriptors(); err != nil {
			done <- err
			return
		}
		done <- guarded(ctx, fn)
	}()
	return <-done
}

// startPoller makes Go's runtime open the descriptors by which it waits for others: in the table of all threads, and not in one of
// a thread that ends.
var startPoller = sync.OnceValue(func() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	return w.Close()
})

// unshareDescriptors gives the calling thread a table of its own, with the first three descriptors and those that Go's runtime
// may use on any thread. The others would stay open here when they are closed elsewhere.
func unshareDescriptors() error {
	if err := unix.Unshare(unix.CLONE_FILES); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	const own = "/proc/thread-self/fd"
	entries, err := os.ReadDir(own)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= 2 {
			continue
		}
		switch what, _ := os.Readlink(filepath.Join(own, entry.Name())); what {
		case "anon_inode:[eventpoll]", "anon_inode:[eventfd]":
		default:
			_ = unix.Close(fd) // the one of the folder is closed already
		}
	}
	return nil
}
