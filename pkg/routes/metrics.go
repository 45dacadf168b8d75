package routes

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// metrics are what the package tells of itself. They exist without a registry too: then nobody reads them.
type metrics struct {
	routes      *prometheus.GaugeVec
	writes      *prometheus.CounterVec
	overwritten prometheus.Counter
	retries     prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		routes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "upcloud_ccm_static_routes",
			Help: "Static routes of users on the cluster's router when it was last read, by whether they are this cluster's.",
		}, []string{"owner"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "upcloud_ccm_static_routes_writes_total",
			Help: "Times that the router's static routes were replaced: ok, refused for good (full or invalid), or failed.",
		}, []string{"result"}),
		overwritten: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcloud_ccm_static_routes_overwritten_total",
			Help: "Times that a change was written and not there when it was read back: another program wrote, too.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "upcloud_ccm_static_routes_retries_total",
			Help: "Times that a batch of changes was begun again after a pause.",
		}),
	}
	if registerer != nil {
		// Another CCM in the same process, as tests have it, counts into nothing.
		for _, collector := range []prometheus.Collector{m.routes, m.writes, m.overwritten, m.retries} {
			_ = registerer.Register(collector)
		}
	}
	return m
}

func (m *metrics) written(err error) {
	result := "ok"
	switch {
	case errors.Is(err, cloud.ErrExhausted), errors.Is(err, cloud.ErrInvalid), errors.Is(err, cloud.ErrAlreadyExists):
		result = "refused"
	case err != nil:
		result = "failed"
	}
	m.writes.WithLabelValues(result).Inc()
}

// observe counts the routes that a router was seen to have.
func (m *metrics) observe(owner Owner, routes []cloud.StaticRoute) {
	ours := 0
	for _, route := range routes {
		if owner.owns(route.Name) {
			ours++
		}
	}
	m.routes.WithLabelValues("cluster").Set(float64(ours))
	m.routes.WithLabelValues("other").Set(float64(len(routes) - ours))
}
