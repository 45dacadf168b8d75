package instances

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

const (
	// outagePatience is for how long one attempt to initialize a node waits for an API that does not serve.
	outagePatience = time.Minute
	// outagePause is between two looks whether it serves again.
	outagePause = 2 * time.Second
)

// outage lets those wait who need the API for a new node while it does not serve. The node controller waits twice as long after
// each failure, a quarter of an hour in the end: an attempt that waits instead of failing has the node initialized as soon as
// the API is back. One of those who wait looks for all of them.
type outage struct {
	patience, pause time.Duration
	looking         chan struct{} // holds one

	mu    sync.Mutex
	ended time.Time
}

func newOutage() *outage {
	return &outage{patience: outagePatience, pause: outagePause, looking: make(chan struct{}, 1)}
}

// isOutage says whether the API may answer otherwise in a while, without anybody doing something about the node.
func isOutage(err error) bool {
	return errors.Is(err, cloud.ErrUnavailable) || errors.Is(err, cloud.ErrUnauthorized)
}

// wait returns true when the API serves again after that moment, and false when patience or the caller ends.
func (o *outage) wait(ctx context.Context, failed time.Time, check func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, o.patience)
	defer cancel()
	select {
	case o.looking <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-o.looking }()
	for !o.endedSince(failed) {
		if sleep(ctx, o.pause) != nil {
			return false
		}
		if began := time.Now(); check(ctx) == nil {
			o.end(began)
		}
	}
	return true
}

func (o *outage) endedSince(failed time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ended.After(failed)
}

func (o *outage) end(moment time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = moment
}
