package cloud

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// durationBuckets span from an answer of the next rack to the slowest hot-plug, in seconds.
var durationBuckets = []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40, 60, 120}

// metrics are what the package tells of itself. They exist without a registry too: then nobody reads them.
type metrics struct {
	requests   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	retries    *prometheus.CounterVec
	throttled  prometheus.Histogram
	queueDepth prometheus.Gauge
	queueWait  *prometheus.HistogramVec
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcloud_api_requests_total",
			Help: "Requests sent to the UpCloud API, each attempt counted, by operation and HTTP status, " +
				"or timeout, canceled or failed where there was no answer.",
		}, []string{"operation", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "upcloud_api_request_duration_seconds",
			Help:    "Time from sending a request to the end of the answer.",
			Buckets: durationBuckets,
		}, []string{"operation", "status"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcloud_api_retries_total",
			Help: "Requests repeated, by operation and the status that caused it.",
		}, []string{"operation", "status"}),
		throttled: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "upcloud_api_throttle_wait_seconds",
			Help:    "Time a request waited for this client's own rate limit, or as the API asked.",
			Buckets: durationBuckets,
		}),
		queueDepth: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "upcloud_server_queue_depth",
			Help: "Attachments and detachments waiting for their turn or being done, over all servers.",
		}),
		queueWait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "upcloud_server_queue_wait_seconds",
			Help:    "Time an attachment or detachment waited for its turn at its server.",
			Buckets: durationBuckets,
		}, []string{"operation"}),
	}
	if registerer == nil {
		return m, nil
	}
	var faults []error
	for _, collector := range []prometheus.Collector{
		m.requests, m.duration, m.retries, m.throttled, m.queueDepth, m.queueWait,
	} {
		faults = append(faults, registerer.Register(collector))
	}
	return m, errors.Join(faults...)
}

func (m *metrics) observe(operation, status string, took time.Duration) {
	m.requests.WithLabelValues(operation, status).Inc()
	m.duration.WithLabelValues(operation, status).Observe(took.Seconds())
}
