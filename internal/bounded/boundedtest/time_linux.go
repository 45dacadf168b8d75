package boundedtest

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is the CPU time of this thread so far.
func threadTime() time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		panic(err) // only if the kernel does not know threads
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
