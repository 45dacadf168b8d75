package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
)

// statusServer serves /metrics, /healthz and /readyz. The zero value serves nothing.
type statusServer struct {
	server *http.Server
	done   chan struct{}
}

// startStatus serves at --metrics-address, if that is set.
func startStatus(opts options, program *driver.Driver, registry *prometheus.Registry) (*statusServer, error) {
	if opts.metricsAddress == "" {
		return &statusServer{}, nil
	}
	listener, err := net.Listen("tcp", opts.metricsAddress)
	if err != nil {
		return nil, fmt.Errorf("--metrics-address: %w; choose another address, such as :9808", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", answer(func(ctx context.Context) error { return driver.CheckLive(ctx, opts.endpoint) }))
	mux.Handle("GET /readyz", answer(program.CheckReady))
	s := &statusServer{server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		if err := s.server.Serve(listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			klog.Background().Error(err, "Serving metrics ended")
		}
	}()
	return s, nil
}

// answer serves the outcome of a check: 200 and ok, or 503 and why not.
func answer(check func(context.Context) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := check(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}

func (s *statusServer) stop() {
	if s.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		s.server.Close()
	}
	<-s.done
}
