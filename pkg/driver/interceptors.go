package driver

import (
	"context"
	"fmt"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/kubernetes-csi/csi-lib-utils/protosanitizer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"
)

// Log levels: what every operation leaves behind, and what helps to follow one.
const (
	levelCalls   = 2 // each call that changes something
	levelQueries = 5 // each call that only asks, and the contents of requests
)

// observe gives each call a logger with a request ID and the volume, writes one line at its end, and counts it. It
// stands outermost: what it sees is what the caller gets.
func (d *Driver) observe(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	method := path.Base(info.FullMethod)
	log := d.log.WithValues("requestID", uuid.NewString()[:8], "method", method)
	log = log.WithValues(subject(req)...)
	ctx = klog.NewContext(ctx, log)
	log.V(levelQueries).Info("Called", "request", protosanitizer.StripSecrets(req))

	start := time.Now()
	finished := d.metrics.began(method)
	resp, err := next(ctx, req)
	code := status.Code(err)
	finished(code)

	duration := time.Since(start).Round(time.Microsecond)
	switch {
	case err != nil:
		log.Error(nil, "Failed", "code", code, "reason", status.Convert(err).Message(), "duration", duration)
	case isQuery(method):
		log.V(levelQueries).Info("Done", "duration", duration)
	default:
		log.V(levelCalls).Info("Done", "duration", duration)
	}
	return resp, err
}

func isQuery(method string) bool {
	return method == "Probe" || strings.Contains(method, "Get") || strings.HasPrefix(method, "List") ||
		strings.HasPrefix(method, "Validate")
}

// subject names what a request is about, for the log.
func subject(req any) []any {
	var values []any
	add := func(key, value string) { values = append(values, key, value[:min(len(value), maxText)]) }
	if r, ok := req.(interface{ GetName() string }); ok {
		add("name", r.GetName())
	}
	if r, ok := req.(interface{ GetVolumeId() string }); ok {
		add("volume", r.GetVolumeId())
	}
	if r, ok := req.(interface{ GetSnapshotId() string }); ok {
		add("snapshot", r.GetSnapshotId())
	}
	if r, ok := req.(interface{ GetNodeId() string }); ok {
		add("node", r.GetNodeId())
	}
	return values
}

// once makes calls of the controller that change something join their twin in flight.
func (d *Driver) once(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	key := changes(req)
	message, ok := req.(proto.Message)
	if key == "" || !ok || !strings.Contains(info.FullMethod, ".Controller/") {
		return next(ctx, req)
	}
	resp, err := d.calls.do(ctx, key, message, func(ctx context.Context) (any, error) { return next(ctx, req) })
	return resp, StatusError(path.Base(info.FullMethod), err)
}

// answer calls the service, and turns panics and all errors into statuses. It stands innermost, in the goroutine that
// does the work.
func (d *Driver) answer(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	rpc := path.Base(info.FullMethod)
	defer func() {
		if r := recover(); r != nil {
			d.metrics.panics.Inc()
			klog.FromContext(ctx).Error(fmt.Errorf("panic: %v", r), "The call panicked", "stack", string(debug.Stack()))
			resp, err = nil, status.Error(unknownCode(rpc), "internal error of the driver; its log has the details")
		}
	}()
	resp, err = next(ctx, req)
	return resp, StatusError(rpc, err)
}
