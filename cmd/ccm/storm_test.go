//go:build !race

// See service_test.go.

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// sharing are the annotations of a Service with so many routes on the load balancer that all share.
func sharing(namespace, name string, count, version int) map[string]string {
	var routes []string
	for n := range count {
		routes = append(routes, fmt.Sprintf(`{host: %s.%s.example, path: /v%d/%d}`, name, namespace, version, n))
	}
	return map[string]string{
		settings.AnnotationPrefix + settings.SharedName: "create/saas",
		settings.AnnotationPrefix + settings.RoutesName: "[" + strings.Join(routes, ", ") + "]",
	}
}

// The routes of one tenant on a shared load balancer change all the time, all of them. Those of another are there after a bounded number of
// changes: the API takes 20 ms for each, and a turn on the load balancer is half a second while others wait.
func TestServiceOnASharedLoadBalancerIsServedWhileAnothersRoutesChangeAllTheTime(t *testing.T) {
	const storming, routes, most = 6, 50, 45
	var writes atomic.Int64
	slow := newHolding(func(method, path, _ string) bool {
		if method != http.MethodGet && strings.Contains(path, "/load-balancer/") {
			writes.Add(1)
			time.Sleep(20 * time.Millisecond)
		}
		return false
	})
	c := fairCluster(t, simulator.Config{}, slow, func(given *config) {
		given.loadBalancer.Shared = []settings.SharedAccess{{LoadBalancer: "create/saas"}}
	})
	c.addServiceIn(quiet, "web", sharing(quiet, "web", 1, 0))
	c.eventually("the quiet namespace's Service is served", c.isServed(quiet, "web"))

	ended := make(chan struct{})
	var storm sync.WaitGroup
	t.Cleanup(func() {
		close(ended)
		storm.Wait()
	})
	for n := range storming {
		name := fmt.Sprint("web-", n)
		c.addServiceIn(noisy, name, sharing(noisy, name, routes, 0))
		storm.Go(func() {
			for version := 1; ; version++ {
				select {
				case <-ended:
					return
				case <-time.After(100 * time.Millisecond):
				}
				changed := sharing(noisy, name, routes, version)
				_, _ = c.update(noisy, name, func(s *v1.Service) {
					s.Generation++
					for key, value := range changed {
						s.Annotations[key] = value
					}
				})
			}
		})
	}
	c.eventually("the noisy namespace is busy", func() string {
		if n := writes.Load(); n < 300 {
			return fmt.Sprint(n, " changes")
		}
		return ""
	})
	for version := 1; version <= 5; version++ {
		start := writes.Load()
		c.changeServiceIn(quiet, "web", func(s *v1.Service) {
			s.Generation++
			for key, value := range sharing(quiet, "web", 1, version) {
				s.Annotations[key] = value
			}
		})
		c.eventually("the quiet namespace's route is there", func() string {
			for _, lb := range c.loadBalancers() {
				for _, frontend := range lb.Frontends {
					for _, rule := range frontend.Rules {
						text, err := json.Marshal(rule)
						if err != nil {
							return err.Error()
						}
						if strings.Contains(string(text), "web.quiet.example") && strings.Contains(string(text), fmt.Sprintf("/v%d/0", version)) {
							return ""
						}
					}
				}
			}
			return "it is not"
		})
		spent := writes.Load() - start
		t.Logf("the quiet namespace's change took %d changes of the load balancer", spent)
		if spent > most {
			t.Errorf("the quiet namespace's change took %d changes of the load balancer, at most %d are allowed", spent, most)
		}
	}
}

// update changes a Service as its user does, unless the controller does at the same time.
func (c *cluster) update(namespace, name string, change func(*v1.Service)) (*v1.Service, error) {
	service, err := c.client.CoreV1().Services(namespace).Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	change(service)
	return c.client.CoreV1().Services(namespace).Update(c.t.Context(), service, metav1.UpdateOptions{})
}
