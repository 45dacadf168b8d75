// Package boundedtest holds what reads others' input against a limit on what that may cost.
package boundedtest

import (
	"runtime"
	"testing"
	"time"
)

// Cost is what reading an input may cost: so much in any case, and so much for each byte of the input. Both parts are many times what
// is measured, so that only another order of growth exceeds them.
type Cost struct {
	Bytes, BytesPerByte int           // allocated in all, also if freed since
	CPU, CPUPerByte     time.Duration // of this thread: what other threads and processes do is not in it
}

// Within fails the test if f, which reads an input of size bytes in this goroutine, costs more than allowed.
func (c Cost) Within(t testing.TB, size int, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := threadTime()
	f()
	spent := threadTime() - start
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(c.Bytes+size*c.BytesPerByte); got > most {
		t.Errorf("an input of %d bytes made the program allocate %d bytes, at most %d are allowed", size, got, most)
	}
	if most := c.CPU + time.Duration(size)*c.CPUPerByte; spent > most {
		t.Errorf("an input of %d bytes took %s of CPU time, at most %s are allowed", size, spent, most)
	}
}
