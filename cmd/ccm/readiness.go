package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

const (
	// readyAge is for how long it holds that the API answered, and unreadyAge that it did not.
	readyAge, unreadyAge = time.Minute, 5 * time.Second
	// readyTimeout bounds one question.
	readyTimeout = 10 * time.Second
)

// readiness answers whether the UpCloud API takes our credentials now. It is not health: restarting changes nothing about an
// API that is down, but an update of the program or of its credentials should not go on while it is not ready.
type readiness struct {
	check func(context.Context) error

	mu      sync.Mutex
	asked   time.Time
	outcome error
}

func (r *readiness) ready(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	age := readyAge
	if r.outcome != nil {
		age = unreadyAge
	}
	if !r.asked.IsZero() && time.Since(r.asked) < age {
		return r.outcome
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer cancel()
	r.outcome = r.check(ctx)
	r.asked = time.Now()
	return r.outcome
}

func (r *readiness) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if err := r.ready(request.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

// serve serves /readyz on the port until the answer is called; port 0 serves nothing.
func (r *readiness) serve(address net.IP, port int) (stop func(), err error) {
	if port == 0 {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address.String(), strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("--readiness-port=%d on --bind-address=%s cannot be served: %w: set it to a free port, or to 0", port, address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /readyz", r)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: readyTimeout}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			klog.ErrorS(err, "Readiness is not served any more")
		}
	}()
	return func() { _ = server.Close(); <-ended }, nil
}
