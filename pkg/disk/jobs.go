package disk

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// errClosed is the answer to work that arrives after Close.
var errClosed = errors.New("the driver is stopping")

// jobs runs work that must not be interrupted: one job at a time for a key, equal jobs once. A caller may stop
// waiting; the job goes on, and whoever asks for the same again joins it.
type jobs struct {
	mu      sync.Mutex
	running map[string]*job // by key
	closed  bool
	// early has callers that wait get their answer shortly before their deadline.
	early bool
	wg    sync.WaitGroup
}

type job struct {
	what  any // comparable description of the work: equal descriptions, equal work
	doing *activity
	done  chan struct{}
	err   error // valid once done is closed
}

func newJobs() *jobs { return &jobs{running: make(map[string]*job)} }

// run does fn under key and returns its error. If a job with the same key and what is running, run waits for that one
// instead; if one with another what is running, run waits for its end first. It returns early when ctx is done, or is about to be
// (see answerBefore), with an error that says what is being done. fn gets a context with ctx's values that is never cancelled.
func (j *jobs) run(ctx context.Context, key string, what any, fn func(context.Context) error) error {
	waiting := ctx
	if j.early {
		var cancel context.CancelFunc
		waiting, cancel = answerBefore(ctx)
		defer cancel()
	}
	for {
		current, err := j.join(ctx, key, what, fn)
		if err != nil {
			return err
		}
		select {
		case <-current.done:
		case <-waiting.Done():
			return fmt.Errorf("%s is busy: %s: %w", jobName(key), current.doing, waiting.Err())
		}
		if current.what == what {
			return current.err
		}
	}
}

// answerBefore returns a context that ends shortly before ctx: whoever asked gets no answer any more at the deadline, and so would
// not learn what was waited for. A flush that takes too long is given up before that, see withPatience.
func answerBefore(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/20, time.Second)))
}

func jobName(key string) string {
	if isVolumeID(key) {
		return "volume " + key
	}
	return key
}

// join returns the job that runs under key, starting ours if there is none.
func (j *jobs) join(ctx context.Context, key string, what any, fn func(context.Context) error) (*job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if current, ok := j.running[key]; ok {
		return current, nil
	}
	if j.closed {
		return nil, errClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	started := &job{what: what, doing: newActivity(), done: make(chan struct{})}
	j.running[key] = started
	j.wg.Add(1)
	go func() {
		defer j.wg.Done()
		started.err = guarded(context.WithValue(context.WithoutCancel(ctx), activityKey{}, started.doing), fn)
		j.mu.Lock()
		delete(j.running, key)
		j.mu.Unlock()
		close(started.done)
	}()
	return started, nil
}

// guarded turns a panic in fn into an error: the job's goroutine has no other frame that could.
func guarded(ctx context.Context, fn func(context.Context) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			klog.FromContext(ctx).Error(fmt.Errorf("panic: %v", r), "Disk job panicked", "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v", r)
		}
	}()
	return fn(ctx)
}

// close refuses new work and waits for the running jobs, or for ctx.
func (j *jobs) close(ctx context.Context) error {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		j.wg.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
