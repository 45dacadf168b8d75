package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

func TestStatusError(t *testing.T) {
	cases := []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{&cloud.Error{Kind: cloud.ErrNotFound}, codes.NotFound},
		{fmt.Errorf("wrapped: %w", &cloud.Error{Kind: cloud.ErrAttachedElsewhere}), codes.FailedPrecondition},
		{&cloud.Error{Kind: cloud.ErrInUse}, codes.FailedPrecondition},
		{&cloud.Error{Kind: cloud.ErrExhausted}, codes.ResourceExhausted},
		{&cloud.Error{Kind: cloud.ErrBusy}, codes.Aborted},
		{&cloud.Error{Kind: cloud.ErrUnavailable}, codes.Unavailable},
		{&cloud.Error{Kind: cloud.ErrUnavailable, Err: context.DeadlineExceeded}, codes.Unavailable},
		{&cloud.Error{Kind: context.DeadlineExceeded}, codes.DeadlineExceeded},
		{&cloud.Error{Kind: cloud.ErrUnauthorized}, codes.Unauthenticated},
		{&cloud.Error{Kind: cloud.ErrForbidden}, codes.PermissionDenied},
		{&disk.Error{Kind: disk.ErrRefused}, codes.FailedPrecondition},
		{&disk.Error{Kind: disk.ErrConflict}, codes.AlreadyExists},
		{&disk.Error{Kind: disk.ErrNoDevice}, codes.NotFound},
		{fmt.Errorf("waiting: %w", context.Canceled), codes.Canceled},
		{errors.New("anything"), codes.Internal},
		{status.Error(codes.OutOfRange, "as it is"), codes.OutOfRange},
	}
	for _, c := range cases {
		if got := status.Code(StatusError("", c.err)); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
}

func newTestMetrics(t *testing.T) *metrics {
	t.Helper()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPanicIsInternal(t *testing.T) {
	d := &Driver{metrics: newTestMetrics(t)}
	_, err := d.answer(context.Background(), nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) {
		var none []string
		return none[len(none)], nil
	})
	if status.Code(err) != codes.Internal {
		t.Errorf("got %v, want INTERNAL", err)
	}
	if got := testutil.ToFloat64(d.metrics.panics); got != 1 {
		t.Errorf("%v panics were counted, want 1", got)
	}
}

func TestInflightJoinsTwinsAndAbortsOthers(t *testing.T) {
	f := newInflight(newTestMetrics(t))
	defer f.close()
	req := func(node string) *csi.ControllerPublishVolumeRequest {
		return &csi.ControllerPublishVolumeRequest{VolumeId: "v", NodeId: node}
	}
	started, release := make(chan struct{}), make(chan struct{})
	runs := 0 // one operation at a time: no lock
	work := func(context.Context) (any, error) {
		runs++
		close(started)
		<-release
		return "done", nil
	}
	var wg sync.WaitGroup
	call := func() {
		if got, err := f.do(context.Background(), "volume/v", req("a"), work); got != "done" || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	}
	wg.Go(call)
	<-started
	if _, err := f.do(context.Background(), "volume/v", req("b"), work); status.Code(err) != codes.Aborted {
		t.Errorf("another operation on the volume: got %v, want ABORTED", err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.do(cancelled, "volume/v", req("a"), work); !errors.Is(err, context.Canceled) {
		t.Errorf("a twin whose caller leaves: %v", err)
	}
	wg.Go(call)
	for testutil.ToFloat64(f.metrics.joined) < 2 { // the one that left, and the one that stays
	}
	close(release)
	wg.Wait()
	if runs != 1 {
		t.Errorf("the work was done %d times", runs)
	}
	if _, err := f.do(context.Background(), "volume/v", req("b"), func(context.Context) (any, error) { return nil, nil }); err != nil {
		t.Errorf("after the end of the first: %v", err)
	}
}

func TestInflightEndsWithItsLastCaller(t *testing.T) {
	f := newInflight(newTestMetrics(t))
	ctx, cancel := context.WithCancel(context.Background())
	started := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		<-started
		cancel()
	}()
	_, err := f.do(ctx, "volume/v", &csi.DeleteVolumeRequest{VolumeId: "v"}, func(ctx context.Context) (any, error) {
		close(started)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the caller got %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the operation got %v", err)
	}
	f.close()
	if _, err := f.do(context.Background(), "volume/v", &csi.DeleteVolumeRequest{}, nil); status.Code(err) != codes.Unavailable {
		t.Errorf("after close: %v, want UNAVAILABLE", err)
	}
}

func TestRoomForVolumes(t *testing.T) {
	for _, c := range []struct{ interfaces, others, want int }{
		{0, 0, 16}, {3, 1, 15}, {8, 1, 15}, {9, 1, 14}, {12, 2, 10}, {30, 1, 1}, {3, 16, 1}, {3, 20, 1},
	} {
		if got := roomFor(c.interfaces, c.others); got != int64(c.want) {
			t.Errorf("%d interfaces, %d other disks: %d, want %d", c.interfaces, c.others, got, c.want)
		}
	}
}

// A driver whose calls are stuck must not look alive.
func TestStuckCallsAreNotLive(t *testing.T) {
	dir, err := os.MkdirTemp("", "csi")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	machine, err := disk.New(disk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{
		Endpoint: filepath.Join(dir, "csi.sock"), Mode: ModeNode, Disk: machine,
		NodeID: "00aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee", Zone: "fi-hel1",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	listener, err := d.Listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx, listener) }()
	live := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		return CheckLive(ctx, d.socket.endpoint)
	}
	d.calls.mu.Lock()
	if err := live(); err == nil {
		t.Error("it looks alive while no call can begin")
	}
	d.calls.mu.Unlock()
	if err := CheckLive(t.Context(), d.socket.endpoint); err != nil {
		t.Errorf("after that: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestMetadataRefusesNonsense(t *testing.T) {
	for _, body := range []string{"", "<html>", `{}`, `{"instance_id":"worker-1","region":"fi-hel1"}`,
		`{"instance_id":"00aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"}`} {
		if got, err := parseMetadata(strings.NewReader(body)); err == nil {
			t.Errorf("%q gave %+v", body, got)
		}
	}
}
