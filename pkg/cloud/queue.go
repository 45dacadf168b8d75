package cloud

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// queues gives each server a queue, as the API lets one attach or detach at a time touch a server: the others answer
// SERVER_STATE_ILLEGAL. First come, first served within a server; servers do not wait for each other.
type queues struct {
	metrics *metrics

	mu      sync.Mutex
	servers map[string]*queue
}

// queue exists as long as somebody is in it.
type queue struct {
	turn  *semaphore.Weighted // of one; it serves in order of arrival
	users int
}

func newQueues(m *metrics) *queues {
	return &queues{metrics: m, servers: map[string]*queue{}}
}

// enter waits for this caller's turn at the server, and returns what ends it. A caller whose context ends leaves the
// queue, and those behind it move up.
func (q *queues) enter(ctx context.Context, server, operation string) (leave func(), err error) {
	began := time.Now()
	own := q.arrive(server)
	if err := own.turn.Acquire(ctx, 1); err != nil {
		q.depart(server, own)
		return nil, err
	}
	q.metrics.queueWait.WithLabelValues(operation).Observe(time.Since(began).Seconds())
	return sync.OnceFunc(func() {
		own.turn.Release(1)
		q.depart(server, own)
	}), nil
}

func (q *queues) arrive(server string) *queue {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.metrics.queueDepth.Inc()
	own, found := q.servers[server]
	if !found {
		own = &queue{turn: semaphore.NewWeighted(1)}
		q.servers[server] = own
	}
	own.users++
	return own
}

func (q *queues) depart(server string, own *queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.metrics.queueDepth.Dec()
	if own.users--; own.users == 0 {
		delete(q.servers, server)
	}
}
