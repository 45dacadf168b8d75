package doctor_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/propertytest"
)

// A Service is lost while clients use its load balancer, whose owner deletes it later. Then etcd is set back, so that the Service is there
// again and asks for another certificate: the first one is a leftover, and no client of the lost Service wants it any more. The model must
// know that, as the doctor does.
func TestModelOfBalancersServiceBackFromEtcdDecidesAgain(t *testing.T) {
	w := newBalancerWorld(t, propertytest.New(1, 0))
	m := w.clusters[1]
	w.serveNamed(m, "web0", "tls-hostnames", "a.example")
	m.fixForLong(t)
	w.update(m, m.services["web0"], func(s *corev1.Service) { s.Annotations[hostnames] = "c.example" })
	w.saveEtcd(m)
	for m.services["web0"] != nil {
		w.lose(m, m.services["web0"])
	}
	for _, one := range w.all {
		if !one.bundle {
			w.throwAway(one)
		}
	}
	for m.services["web0"] == nil {
		w.setBack(m)
	}
	for range 3 {
		w.clock.Advance(quarantine + time.Hour)
		m.fix(t)
		w.check()
	}
	if len(w.all) > 0 {
		t.Errorf("still there: %v", w.all)
	}
}
