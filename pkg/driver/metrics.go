package driver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

type metrics struct {
	duration *prometheus.HistogramVec
	running  *prometheus.GaugeVec
	joined   prometheus.Counter
	panics   prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "upcloud_csi_rpc_duration_seconds",
			Help: "Time from a CSI call to its answer, by method and gRPC status code.",
			// From what the node does by itself to the timeouts of the sidecars.
			Buckets: []float64{.005, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600},
		}, []string{"method", "code"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "upcloud_csi_rpcs_in_flight",
			Help: "CSI calls that wait for their answer now, by method.",
		}, []string{"method"}),
		joined: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcloud_csi_rpcs_joined_total",
			Help: "CSI calls that waited for an equal one in flight instead of starting a second operation.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcloud_csi_panics_total",
			Help: "CSI calls that ended in a panic of the driver, answered with INTERNAL.",
		}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, collector := range []prometheus.Collector{m.duration, m.running, m.joined, m.panics} {
		if err := registerer.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// began counts a call, until the function returned is called with its outcome.
func (m *metrics) began(method string) func(codes.Code) {
	start := time.Now()
	m.running.WithLabelValues(method).Inc()
	return func(code codes.Code) {
		m.running.WithLabelValues(method).Dec()
		m.duration.WithLabelValues(method, code.String()).Observe(time.Since(start).Seconds())
	}
}
