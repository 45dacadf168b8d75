//go:build !race

// See service_test.go.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const (
	noisy = "noisy"
	quiet = "quiet"
	// workersOfTest is how many workers the controllers of these tests have; the noisy namespace has more Services.
	workersOfTest = 10
	noisyServices = 25
)

// controllersWithFewWorkers are all controllers, the one of Services with workersOfTest.
func controllersWithFewWorkers(ctx context.Context, c *cluster, shared informers.SharedInformerFactory) []func() {
	services, err := newServiceController(c.provider, c.client, shared.Core().V1().Services(), shared.Core().V1().Nodes(), "prod")
	if err != nil {
		c.t.Fatal(err)
	}
	return append(nodeControllers(ctx, c, shared), func() { services.Run(ctx, workersOfTest, managerMetrics()) })
}

// holding carries requests to the API, and holds those back for which held says so, until release is called.
type holding struct {
	held    func(method, path, body string) bool
	release func()
	gate    chan struct{}
	mu      sync.Mutex
	holds   int
}

func newHolding(held func(method, path, body string) bool) *holding {
	h := &holding{held: held, gate: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.gate) })
	return h
}

func (h *holding) RoundTrip(request *http.Request) (*http.Response, error) {
	var body []byte
	if request.Body != nil {
		var err error
		if body, err = io.ReadAll(request.Body); err != nil {
			return nil, err
		}
		request.Body = io.NopCloser(bytes.NewReader(body))
	}
	if h.held(request.Method, request.URL.Path, string(body)) {
		h.mu.Lock()
		h.holds++
		h.mu.Unlock()
		select {
		case <-h.gate:
		case <-request.Context().Done():
			return nil, request.Context().Err()
		}
	}
	return http.DefaultTransport.RoundTrip(request)
}

func (h *holding) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.holds
}

// fairCluster is a cluster with one node, the limits of the program, and a transport to the API.
func fairCluster(t *testing.T, account simulator.Config, transport *holding, changes ...func(*config)) *cluster {
	t.Helper()
	limits := func(given *config) {
		given.cloud.RequestsPerSecond, given.cloud.Burst, given.cloud.Concurrency = requestsPerSecond, requestBurst, requestsAtOnce
		given.cloud.GroupConcurrency, given.cloud.TenantConcurrency = requestsOfGroup, requestsOfTenant
		if transport != nil {
			given.cloud.Transport = transport
		}
	}
	c := newClusterWith(t, flags{}, account, controllersWithFewWorkers, append(changes, limits)...)
	if transport != nil {
		t.Cleanup(transport.release)
	}
	c.joinNode("worker-1")
	return c
}

func (c *cluster) joinNode(name string) {
	c.t.Helper()
	c.CreateServer(c.t, name, zone)
	c.addNode(newNode(name))
	c.eventually("node "+name+" is initialized", func() string {
		if node := c.node(name); len(node.Spec.Taints) > 0 || len(node.Status.Addresses) < 2 {
			return "it is not"
		}
		return ""
	})
}

func (c *cluster) addServiceIn(namespace, name string, annotations map[string]string) {
	c.t.Helper()
	service := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + namespace + "-" + name), Annotations: annotations},
		Spec: v1.ServiceSpec{
			Type: v1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: v1.ServiceExternalTrafficPolicyCluster,
			Ports: []v1.ServicePort{{Name: "http", Protocol: v1.ProtocolTCP, Port: 80, NodePort: 30080}},
		},
	}
	if _, err := c.client.CoreV1().Services(namespace).Create(c.t.Context(), service, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) serviceIn(namespace, name string) *v1.Service {
	c.t.Helper()
	service, err := c.client.CoreV1().Services(namespace).Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return service
}

func (c *cluster) changeServiceIn(namespace, name string, change func(*v1.Service)) {
	c.t.Helper()
	service := c.serviceIn(namespace, name)
	change(service)
	if _, err := c.client.CoreV1().Services(namespace).Update(c.t.Context(), service, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) isServed(namespace, name string) func() string {
	return func() string {
		service := c.serviceIn(namespace, name)
		if len(service.Status.LoadBalancer.Ingress) == 0 || !meta.IsStatusConditionTrue(service.Status.Conditions, loadbalancer.ConditionReady) {
			return fmt.Sprint("its status is ", service.Status)
		}
		return ""
	}
}

func (c *cluster) addNoisyServices() {
	for n := range noisyServices {
		c.addServiceIn(noisy, fmt.Sprint("web-", n), nil)
	}
}

func (c *cluster) noisyAreServed() {
	c.t.Helper()
	for n := range noisyServices {
		c.eventually("the noisy namespace's Service is served", c.isServed(noisy, fmt.Sprint("web-", n)))
	}
}

// isOf finds out of a request for a new load balancer whose it is.
func isOf(namespace string) func(method, path, body string) bool {
	return func(method, path, body string) bool {
		return method == http.MethodPost && strings.HasSuffix(path, "/load-balancer") && strings.Contains(body, namespace)
	}
}

func TestServiceIsServedWhileAnotherNamespacesAreMade(t *testing.T) {
	held := newHolding(isOf(noisy))
	c := fairCluster(t, simulator.Config{}, held)
	c.addNoisyServices()
	c.eventually("the noisy namespace has its share of workers", func() string {
		if held.count() < workersOfTest/2 {
			return fmt.Sprintf("%d requests are held", held.count())
		}
		return ""
	})
	for n := range 3 {
		c.addServiceIn(quiet, fmt.Sprint("web-", n), nil)
		c.eventually("the quiet namespace's Service is served", c.isServed(quiet, fmt.Sprint("web-", n)))
	}
	c.joinNode("worker-2")
	held.release()
	c.noisyAreServed()
}

func TestServiceIsServedWhileAnotherNamespacesAreDeleted(t *testing.T) {
	held := newHolding(func(method, path, _ string) bool {
		return method == http.MethodDelete && strings.Contains(path, "/load-balancer/")
	})
	c := fairCluster(t, simulator.Config{}, held)
	c.addNoisyServices()
	c.noisyAreServed()
	now := metav1.Now()
	for n := range noisyServices {
		c.changeServiceIn(noisy, fmt.Sprint("web-", n), func(s *v1.Service) { s.DeletionTimestamp = &now })
	}
	c.eventually("the noisy namespace has its share of workers", func() string {
		if held.count() < workersOfTest/2 {
			return fmt.Sprintf("%d requests are held", held.count())
		}
		return ""
	})
	c.addServiceIn(quiet, "web", nil)
	c.eventually("the quiet namespace's Service is served", c.isServed(quiet, "web"))
	held.release()
	c.eventually("the noisy namespace's Services may go", func() string {
		for n := range noisyServices {
			if name := fmt.Sprint("web-", n); len(c.serviceIn(noisy, name).Finalizers) > 0 {
				return name + " is held"
			}
		}
		return ""
	})
}

// Two changes of nodes reach a Service while the first one is held at the API for another namespace's.
func TestNodesJoinServiceWhileAnotherNamespacesTakeLong(t *testing.T) {
	var mu sync.Mutex
	held := map[string]bool{} // load balancers
	hold := newHolding(func(method, path, _ string) bool {
		mu.Lock()
		defer mu.Unlock()
		parts := strings.Split(path, "/")
		at := slices.Index(parts, "load-balancer")
		return method == http.MethodPatch && at >= 0 && at+1 < len(parts) && held[parts[at+1]]
	})
	c := fairCluster(t, simulator.Config{}, hold)
	c.addNoisyServices()
	c.addServiceIn(quiet, "web", nil)
	c.noisyAreServed()
	c.eventually("the quiet namespace's Service is served", c.isServed(quiet, "web"))
	mu.Lock()
	for n := range noisyServices {
		held[c.serviceIn(noisy, fmt.Sprint("web-", n)).Annotations[settings.AnnotationID]] = true
	}
	mu.Unlock()
	own := c.serviceIn(quiet, "web").Annotations[settings.AnnotationID]
	for _, node := range []string{"worker-2", "worker-3"} {
		c.joinNode(node)
		c.eventually(node+" is a member of the quiet namespace's", func() string {
			for _, lb := range c.loadBalancers() {
				if lb.ID == own && strings.Contains(members(lb), node) {
					return ""
				}
			}
			return "it is not"
		})
	}
	if hold.count() == 0 {
		t.Error("nothing is held")
	}
	hold.release()
	c.eventually("the nodes are members everywhere", func() string {
		for _, lb := range c.loadBalancers() {
			if got := members(lb); strings.Count(got, "worker-") != 3 {
				return lb.Name + ": " + got
			}
		}
		return ""
	})
}

// manyRules is a configuration with so many rules, whose names and targets are of that version.
func manyRules(count, version int) map[string]string {
	var rules []string
	for n := range count {
		rules = append(rules, fmt.Sprintf(`{"name":"rule-%d","priority":%d,"matchers":[{"type":"path","match_path":{"method":"exact","value":"/%d"}}],`+
			`"actions":[{"type":"http_return","action_http_return":{"status":200,"content_type":"text/plain","payload":"%04d"}}]}`, n, n, n, version))
	}
	return map[string]string{settings.AnnotationConfig: fmt.Sprintf(`{"frontends":[{"name":"http","mode":"http","rules":[%s]}]}`,
		strings.Join(rules, ","))}
}

// Work that is done in steps goes on to its end, and neither events nor the condition say that it failed.
func TestLargeChangeIsMadeInStepsWithoutSayingThatItFailed(t *testing.T) {
	c := fairCluster(t, simulator.Config{}, nil, func(given *config) { given.loadBalancer.StepTime = time.Nanosecond })
	c.addServiceIn(noisy, "web", manyRules(8, 0))
	c.eventually("the Service is served", c.isServed(noisy, "web"))
	c.changeServiceIn(noisy, "web", func(s *v1.Service) {
		s.Generation++
		s.Annotations[settings.AnnotationConfig] = manyRules(8, 1)[settings.AnnotationConfig]
	})
	var reasons []string
	c.eventually("all rules are of the new version", func() string {
		if ready := meta.FindStatusCondition(c.serviceIn(noisy, "web").Status.Conditions, loadbalancer.ConditionReady); ready != nil {
			reasons = append(reasons, ready.Reason)
		}
		for _, lb := range c.loadBalancers() {
			if got, err := json.Marshal(lb.Frontends[0].Rules); err != nil || strings.Count(string(got), `"0001"`) != 8 {
				return fmt.Sprint(string(got), err)
			}
		}
		return ""
	})
	c.eventually("the Service is served", c.isServed(noisy, "web"))
	if !slices.Contains(reasons, loadbalancer.ReasonUpdating) {
		t.Errorf("reasons of the condition meanwhile are %v, want one that is %s", slices.Compact(reasons), loadbalancer.ReasonUpdating)
	}
	c.eventually("the event about the end", func() string {
		if events := c.eventsOf(noisy); !strings.Contains(events, "EnsuredLoadBalancer") {
			return events
		}
		return ""
	})
	for _, line := range strings.Split(c.eventsOf(noisy), "\n") {
		if strings.Contains(line, "continues") {
			t.Error(line)
		}
	}
}

func (c *cluster) eventsOf(namespace string) string {
	c.t.Helper()
	events, err := c.client.CoreV1().Events(namespace).List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var lines []string
	for _, event := range events.Items {
		lines = append(lines, event.Type+" "+event.Reason+" "+event.Message)
	}
	return strings.Join(lines, "\n")
}

// The pauses of a Service that changes again and again lose no change.
func TestServiceThatChangesAllTheTimeEndsAsItsLastChangeSays(t *testing.T) {
	c := fairCluster(t, simulator.Config{}, nil)
	c.addServiceIn(noisy, "web", nil)
	c.eventually("the Service is served", c.isServed(noisy, "web"))
	const changes = 100
	for n := range changes {
		c.changeServiceIn(noisy, "web", func(s *v1.Service) { s.Spec.Ports[0].NodePort = int32(31000 + n) })
	}
	c.eventually("the last change is made", func() string {
		if got := members(c.loadBalancers()[0]); got != fmt.Sprintf("http/worker-1:%d", 31000+changes-1) {
			return got
		}
		return ""
	})
	c.eventually("the Service is served", c.isServed(noisy, "web"))
}
