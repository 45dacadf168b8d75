package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Five hundred kubelets register at once, and the provider ID is theirs or is not. What it costs is one call a node.
func TestFiveHundredNodesAtOnce(t *testing.T) {
	c := newCluster(t)
	const count = 500
	nodes := make([]*v1.Node, count)
	for i := range nodes {
		nodes[i] = c.newNode(fmt.Sprintf("crowd-%d", i))
		if server := c.CreateServer(t, nodes[i].Name, zone); i%2 == 0 {
			nodes[i].Spec.ProviderID = "upcloud:////" + server
		}
	}
	c.ccm = c.start()
	c.eventually("the ccm is up", func() string {
		if status := c.get("/readyz"); status != http.StatusOK {
			return fmt.Sprint("readiness is ", status)
		}
		return ""
	})
	c.ResetRequests()
	began := time.Now()
	failed := make(chan error, count)
	for _, node := range nodes {
		go func() { failed <- c.tryRegister(node) }()
	}
	for range nodes {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	registered := time.Since(began)
	c.eventually("all are initialized", func() string {
		left := 0
		for _, node := range c.nodes() {
			if lacksInitialization(&node) != "" {
				left++
			}
		}
		if left > 0 {
			return fmt.Sprintf("%d are not", left)
		}
		return ""
	})
	t.Logf("registering took %s, and the last was initialized after %s", registered, time.Since(began))
	requests := c.Requests()
	// Lists are read for nodes that are known by name alone, every two seconds at most.
	lists := int(time.Since(began).Seconds())/2 + 10
	if asked, all := requests.Of("GET /server/{uuid}"), requests.Total(); asked != count || all > count+lists {
		t.Errorf("%d calls, %d servers asked: %v", all, asked, requests)
	}
}

// D-30: there are metrics. Health is the controllers' and the election's; metrics are for those who may read them.
func TestHealthAndMetrics(t *testing.T) {
	t.Parallel()
	c := started(t)
	c.member("health")
	c.eventually("the ccm is healthy", func() string {
		if status, text := c.serve("/healthz", ""); status != http.StatusOK {
			return fmt.Sprint(status, " ", text)
		}
		return ""
	})
	metrics := c.metrics()
	for _, want := range []string{`upcloud_api_requests_total{operation="GET /server/{uuid}",status="200"}`, "upcloud_api_request_duration_seconds",
		"upcloud_node_servers_missing 0", "workqueue_depth"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %q", want)
		}
	}
	for _, token := range []string{"", "nobody's"} {
		if status, _ := c.serve("/metrics", token); status != http.StatusForbidden && status != http.StatusUnauthorized {
			t.Errorf("metrics for token %q: %d", token, status)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c.eventually("a ccm whose account is out of reach stays healthy", func() string {
		if !strings.Contains(c.metrics(), "upcloud_api_requests_total") {
			return "it has no metrics"
		}
		return ""
	})
	if status, text := c.serve("/healthz", ""); status != http.StatusOK {
		t.Errorf("health is %d %s: restarting it would help nobody", status, text)
	}
}

// The configuration file and the flags of UpCloud's own CCM, every key of it, and one that nobody knows.
func TestConfigurationOfUpCloudsOwnCCM(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.env = []string{"UPCLOUD_DEBUG_API_BASE_URL=" + c.URL}
	c.args = append(c.args, "--cloud-provider=upcloud", "--allow-untagged-cloud=true", "--cluster-name=own", "--configure-cloud-routes=false")
	c.config = fmt.Sprintf(`  clusterDeploymentMode: ""
  apiCredentials: {user: %s, password: %s}
  clusterName: production
  clusterID: 0d4f1e3b-8a5e-4a84-9b67-6a4d7a2f4c11
  loadBalancerPlan: ""
  loadBalancerMaxBackendMembers: 50
  somethingOfTheirs: true
`, c.Username, c.Password)
	c.ccm = c.start()
	c.member("upstream")
	if !strings.Contains(c.log(c.ccm), `unknown field "data.somethingOfTheirs"`) && !strings.Contains(c.log(c.ccm), `unknown field "somethingOfTheirs"`) {
		t.Error("it is not told that a key is unknown")
	}
}
