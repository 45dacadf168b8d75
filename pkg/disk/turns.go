package disk

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// DefaultFormatLimit is how many volumes are formatted at a time if nothing else is asked for. mkfs is bound by the disk, and the
// node has other work.
const DefaultFormatLimit = 2

// A turn to format that makes no progress for stallTime, or that lasts for longestTurn, does not keep others from theirs: a
// disk that does not answer takes no bandwidth, and its mkfs no more memory. So one more volume may be formatted for
// each disk that hangs, of which a server has few.
const (
	stallTime   = 30 * time.Second
	longestTurn = 15 * time.Minute
)

// turns lets few volumes be formatted at a time, in the order in which they came.
type turns struct {
	limit     int
	stallTime time.Duration

	mu      sync.Mutex
	waiting []*turn
	taken   []*turn
	changed chan struct{} // closed and replaced when a turn was taken or given back
}

type turn struct {
	volumeID string
	doing    *activity
	// progress is a text that changes as long as the work goes on.
	progress func() string

	since, moved time.Time // moved is when progress was last seen to change
	seen         string
}

func newTurns(limit int) *turns {
	return &turns{limit: limit, stallTime: stallTime, changed: make(chan struct{})}
}

// take waits for a turn, which ends when release is called.
func (t *turns) take(asked *turn) (release func()) {
	end := asked.doing.begin(&step{what: t.String})
	t.mu.Lock()
	t.waiting = append(t.waiting, asked)
	for !t.mayBegin(asked) {
		changed, lookAgain := t.changed, time.After(min(time.Second, t.stallTime/4)) // to see who makes no progress
		t.mu.Unlock()
		select {
		case <-changed:
		case <-lookAgain:
		}
		t.mu.Lock()
	}
	defer t.mu.Unlock()
	end() // before it is one of those that have a turn, of which String says what they do
	t.waiting = t.waiting[1:]
	asked.since, asked.moved, asked.seen = time.Now(), time.Now(), ""
	t.taken = append(t.taken, asked)
	t.announce()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.taken = slices.DeleteFunc(t.taken, func(other *turn) bool { return other == asked })
		t.announce()
	}
}

func (t *turns) announce() {
	close(t.changed)
	t.changed = make(chan struct{})
}

func (t *turns) mayBegin(asked *turn) bool {
	if t.waiting[0] != asked {
		return false
	}
	working := 0
	for _, other := range t.taken {
		if !t.stalled(other) {
			working++
		}
	}
	return working < t.limit
}

// stalled tells whether a turn made no progress for so long that it does not count.
func (t *turns) stalled(taken *turn) bool {
	if now := taken.progress(); now != taken.seen {
		taken.seen, taken.moved = now, time.Now()
	}
	return time.Since(taken.moved) >= t.stallTime || time.Since(taken.since) >= longestTurn
}

// String says who has the turns.
func (t *turns) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	holders := make([]string, 0, len(t.taken))
	for _, taken := range t.taken {
		holders = append(holders, fmt.Sprintf("volume %s: %s", taken.volumeID, taken.doing))
	}
	return fmt.Sprintf("waiting to be formatted, as %d volumes are formatted at a time (%s)", t.limit, strings.Join(holders, "; "))
}

// formatProgress changes as long as a disk answers, or the program that formats it works: what the kernel counts of the device's
// requests, and of the program's processor time.
func (n *Node) formatProgress(dev Device, doing *activity) func() string {
	counts := n.numberDir(dev.Major, dev.Minor) + "/stat"
	return func() string {
		requests, _ := os.ReadFile(counts)
		current := doing.current()
		if current == nil {
			return completed(string(requests))
		}
		_, used := processTimes(current.process)
		return fmt.Sprint(completed(string(requests)), " ", current.process, " ", used)
	}
}

// completed leaves out of a device's counts those that change by the passing of time alone, while a request is not answered
// (Documentation/block/stat.rst of Linux: in_flight, io_ticks, time_in_queue).
func completed(counts string) string {
	fields := strings.Fields(counts)
	for i := range fields {
		if i >= 8 && i <= 10 {
			fields[i] = "-"
		}
	}
	return strings.Join(fields, " ")
}
