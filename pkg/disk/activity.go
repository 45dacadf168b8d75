package disk

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// activity is what a job is doing, for the errors of those who wait for it and for it to be seen whether it goes on.
type activity struct {
	mu    sync.Mutex
	begun time.Time
	steps []*step // the last one is being done
}

// step is one thing that takes its time: a program, or a wait.
type step struct {
	what    func() string
	since   time.Time
	process int // ID of the process that does it, 0 if it is this one
}

type activityKey struct{}

func newActivity() *activity { return &activity{begun: time.Now()} }

// activityOf returns the activity of the job that ctx is of, or a new one outside of jobs.
func activityOf(ctx context.Context) *activity {
	if found, ok := ctx.Value(activityKey{}).(*activity); ok {
		return found
	}
	return newActivity()
}

// doing notes what the job does until end is called.
func doing(ctx context.Context, what string) (end func()) {
	return activityOf(ctx).begin(&step{what: func() string { return what }})
}

func (a *activity) begin(s *step) (end func()) {
	s.since = time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.steps = append(a.steps, s)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		for i, other := range a.steps {
			if other == s {
				a.steps = append(a.steps[:i], a.steps[i+1:]...)
				return
			}
		}
	}
}

func (a *activity) current() *step {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.steps) == 0 {
		return nil
	}
	return a.steps[len(a.steps)-1]
}

// String says what is being done, by which process, and since when.
func (a *activity) String() string {
	s := a.current()
	if s == nil {
		return "working " + since(a.begun)
	}
	text := s.what()
	if s.process != 0 {
		text += fmt.Sprintf(" (process %d%s)", s.process, processState(s.process))
	}
	return text + ", " + since(s.since)
}

func since(t time.Time) string {
	return fmt.Sprintf("since %s (%s)", t.UTC().Format(time.RFC3339), time.Since(t).Round(time.Second))
}

// processState says what keeps a process from running, "" if nothing that is worth a word does.
func processState(process int) string {
	if state, _ := processTimes(process); state == "D" {
		return ", waits for a disk that does not answer"
	}
	return ""
}

// processTimes reads the state of a process and the processor time that it has used, from /proc/PID/stat (proc(5)). Both are
// "" when it has ended.
func processTimes(process int) (state, used string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process))
	if err != nil {
		return "", ""
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may hold anything but is followed by this
	fields := strings.Fields(rest)
	const userTime, systemTime = 14 - 3, 15 - 3 // the fields count from 1, and rest begins with the third
	if len(fields) <= systemTime {
		return "", ""
	}
	return fields[0], fields[userTime] + "+" + fields[systemTime]
}
