package driver

import (
	"context"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"
)

// inflight runs one operation on a volume at a time. An equal request waits for the first one's outcome, another one on
// the same volume is ABORTED, as the CSI specification has it. The operation is cancelled when the last of its callers
// has left: what it began in the account goes on in pkg/cloud, and the retry finds it further on.
type inflight struct {
	metrics *metrics
	wg      sync.WaitGroup

	mu     sync.Mutex
	closed bool
	calls  map[string]*call
}

type call struct {
	req     proto.Message
	cancel  context.CancelFunc
	waiters int // guarded by inflight.mu
	done    chan struct{}
	resp    any // valid, like err, once done is closed
	err     error
}

func newInflight(metrics *metrics) *inflight {
	return &inflight{metrics: metrics, calls: make(map[string]*call)}
}

// changes returns what a request changes: the key under which only one operation runs. "" for requests that only ask.
func changes(req any) string {
	switch r := req.(type) {
	case *csi.CreateVolumeRequest:
		return "name/" + r.GetName()
	case *csi.DeleteVolumeRequest:
		return "volume/" + r.GetVolumeId()
	case *csi.ControllerPublishVolumeRequest:
		return "volume/" + r.GetVolumeId()
	case *csi.ControllerUnpublishVolumeRequest:
		return "volume/" + r.GetVolumeId()
	case *csi.ControllerExpandVolumeRequest:
		return "volume/" + r.GetVolumeId()
	case *csi.ControllerModifyVolumeRequest:
		return "volume/" + r.GetVolumeId()
	case *csi.CreateSnapshotRequest:
		return "snapshot name/" + r.GetName()
	case *csi.DeleteSnapshotRequest:
		return "snapshot/" + r.GetSnapshotId()
	}
	return ""
}

func (f *inflight) do(ctx context.Context, key string, req proto.Message, run func(context.Context) (any, error)) (any, error) {
	current, err := f.join(ctx, key, req, run)
	if err != nil {
		return nil, err
	}
	defer f.leave(current)
	select {
	case <-current.done:
		return current.resp, current.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join returns the operation to wait for: the twin in flight, or a new one.
func (f *inflight) join(ctx context.Context, key string, req proto.Message, run func(context.Context) (any, error)) (*call, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if current, ok := f.calls[key]; ok {
		// One that its callers have left is on its way out with their cancellation: not an outcome to share.
		if !proto.Equal(current.req, req) || current.waiters == 0 {
			return nil, status.Errorf(codes.Aborted, "another operation on the same volume (%s) is in flight: try again", key)
		}
		f.metrics.joined.Inc()
		current.waiters++
		return current, nil
	}
	if f.closed {
		return nil, status.Error(codes.Unavailable, "the driver is stopping")
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	current := &call{req: req, cancel: cancel, waiters: 1, done: make(chan struct{})}
	f.calls[key] = current
	f.wg.Add(1)
	go f.finish(work, key, current, run)
	return current, nil
}

func (f *inflight) leave(current *call) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if current.waiters--; current.waiters == 0 {
		current.cancel()
	}
}

func (f *inflight) finish(ctx context.Context, key string, current *call, run func(context.Context) (any, error)) {
	defer f.wg.Done()
	current.resp, current.err = run(ctx)
	f.mu.Lock()
	delete(f.calls, key)
	left := current.waiters == 0
	f.mu.Unlock()
	if left && current.err != nil {
		// The callers were told that their time was over; what took it is known only now.
		klog.FromContext(ctx).Info("Left by its caller", "reason", statusMessage(current.err))
	}
	close(current.done)
}

// answers returns when operations can begin and end: what holds them up for ever holds it up, too.
func (f *inflight) answers() {
	f.mu.Lock()
	defer f.mu.Unlock()
}

// close refuses new operations, cancels those that are left, and waits for them.
func (f *inflight) close() {
	f.mu.Lock()
	f.closed = true
	for _, current := range f.calls {
		current.cancel()
	}
	f.mu.Unlock()
	f.wg.Wait()
}
