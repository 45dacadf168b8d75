package main

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	restclient "k8s.io/client-go/rest"
	nodecontroller "k8s.io/cloud-provider/controllers/node"
	lifecyclecontroller "k8s.io/cloud-provider/controllers/nodelifecycle"
	controllersmetrics "k8s.io/component-base/metrics/prometheus/controllers"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const zone = "fi-hel1"

var managerMetrics = sync.OnceValue(func() *controllersmetrics.ControllerManagerMetrics {
	return controllersmetrics.NewControllerManagerMetrics("ccm-test")
})

// cluster is an API server's objects, the real controllers, and a simulated account.
type cluster struct {
	*simulatortest.Server
	t        *testing.T
	client   *fake.Clientset
	provider *provider
}

// clientBuilder gives the fake client to whoever asks.
type clientBuilder struct{ kubernetes.Interface }

func (b clientBuilder) Config(string) (*restclient.Config, error)   { return &restclient.Config{}, nil }
func (b clientBuilder) ConfigOrDie(string) *restclient.Config       { return &restclient.Config{} }
func (b clientBuilder) Client(string) (kubernetes.Interface, error) { return b, nil }
func (b clientBuilder) ClientOrDie(string) kubernetes.Interface     { return b }

// newCluster starts the controllers that start names, until the test ends.
func newCluster(
	t *testing.T, start func(ctx context.Context, c *cluster, shared informers.SharedInformerFactory) (run []func()),
) *cluster {
	t.Helper()
	return newClusterWith(t, flags{}, simulator.Config{}, start)
}

func newClusterWith(
	t *testing.T, given flags, account simulator.Config,
	start func(ctx context.Context, c *cluster, shared informers.SharedInformerFactory) (run []func()), changes ...func(*config),
) *cluster {
	t.Helper()
	sim := simulatortest.Start(t, account)
	clearEnvironment(t)
	t.Setenv("UPCLOUD_TOKEN", sim.Token)
	config, err := loadConfig(given, "")
	if err != nil {
		t.Fatal(err)
	}
	config.cloud.BaseURL = sim.URL
	for _, change := range changes {
		change(&config)
	}
	client, err := cloud.New(config.cloud)
	if err != nil {
		t.Fatal(err)
	}
	provider, err := newProvider(client, config)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Server: sim, t: t, client: fake.NewClientset(), provider: provider}
	ctx, cancel := context.WithCancel(context.Background())
	c.provider.Initialize(clientBuilder{c.client}, ctx.Done())
	shared := informers.NewSharedInformerFactory(c.client, 0)
	c.provider.SetInformers(shared)
	var running sync.WaitGroup
	for _, run := range start(ctx, c, shared) {
		running.Go(run)
	}
	shared.Start(ctx.Done())
	shared.WaitForCacheSync(ctx.Done())
	t.Cleanup(func() {
		cancel()
		running.Wait()
		shared.Shutdown()
		c.provider.Close()
	})
	return c
}

// eventually waits for a condition, which says what it still lacks.
func (c *cluster) eventually(what string, lacks func() string) {
	c.t.Helper()
	var last string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if last = lacks(); last == "" {
			return
		}
	}
	c.t.Fatalf("%s: %s", what, last)
}

func (c *cluster) addNode(node *v1.Node) {
	c.t.Helper()
	if _, err := c.client.CoreV1().Nodes().Create(c.t.Context(), node, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) node(name string) *v1.Node {
	c.t.Helper()
	node, err := c.client.CoreV1().Nodes().Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return node
}

// newNode is a Node as a kubelet with --cloud-provider=external registers it.
func newNode(name string) *v1.Node {
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1.NodeSpec{Taints: []v1.Taint{
			{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: v1.TaintEffectNoSchedule}}},
		Status: v1.NodeStatus{
			Addresses:  []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}},
			Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}},
		},
	}
}

func nodeControllers(ctx context.Context, c *cluster, shared informers.SharedInformerFactory) []func() {
	nodes, err := nodecontroller.NewCloudNodeController(shared.Core().V1().Nodes(), c.client, c.provider, 50*time.Millisecond, 1, 1)
	if err != nil {
		c.t.Fatal(err)
	}
	lifecycle, err := lifecyclecontroller.NewCloudNodeLifecycleController(shared.Core().V1().Nodes(), c.client, c.provider, 50*time.Millisecond)
	if err != nil {
		c.t.Fatal(err)
	}
	return []func(){
		func() { nodes.RunWithContext(ctx, managerMetrics()) },
		func() { lifecycle.Run(ctx, managerMetrics()) },
	}
}

func TestNodeIsInitialized(t *testing.T) {
	c := newCluster(t, nodeControllers)
	id := c.CreateServer(t, "worker-1", zone)
	c.addNode(newNode("worker-1"))
	c.eventually("the node is initialized", func() string {
		node := c.node("worker-1")
		switch {
		case len(node.Spec.Taints) > 0:
			return "it is tainted"
		case len(node.Status.Addresses) != 3:
			return "it lacks addresses"
		}
		return ""
	})
	node := c.node("worker-1")
	if node.Spec.ProviderID != "upcloud:////"+id {
		t.Errorf("provider ID %s", node.Spec.ProviderID)
	}
	for key, want := range map[string]string{
		v1.LabelTopologyZone: zone, v1.LabelTopologyRegion: zone, v1.LabelInstanceTypeStable: "2xCPU-4GB",
	} {
		if got := node.Labels[key]; got != want {
			t.Errorf("label %s=%s, want %s", key, got, want)
		}
	}
}

func TestNodeFollowsItsServer(t *testing.T) {
	c := newCluster(t, nodeControllers)
	stays, goes := c.CreateServer(t, "stays", zone), c.CreateServer(t, "goes", zone)
	for name, id := range map[string]string{"stays": stays, "goes": goes, "elsewhere": ""} {
		node := newNode(name)
		node.Spec.Taints = nil
		node.Status.Conditions[0].Status = v1.ConditionUnknown // NotReady nodes are asked about
		node.Spec.ProviderID = "upcloud:////" + id
		if id == "" {
			node.Spec.ProviderID = "hcloud://1"
		}
		c.addNode(node)
	}
	for _, id := range []string{stays, goes} {
		c.Do(t, http.MethodPost, "/server/"+id+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
	}
	c.eventually("nodes of stopped servers are tainted", func() string {
		for _, name := range []string{"stays", "goes"} {
			shutdown := func(taint v1.Taint) bool { return taint.Key == "node.cloudprovider.kubernetes.io/shutdown" }
			if !slices.ContainsFunc(c.node(name).Spec.Taints, shutdown) {
				return name + " is not"
			}
		}
		return ""
	})
	c.Do(t, http.MethodDelete, "/server/"+goes+"?storages=1", "", nil)
	c.eventually("the node of a deleted server goes", func() string {
		if _, err := c.client.CoreV1().Nodes().Get(t.Context(), "goes", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return "it is there"
		}
		return ""
	})
	for _, name := range []string{"stays", "elsewhere"} {
		c.node(name)
	}
	if taints := c.node("elsewhere").Spec.Taints; len(taints) > 0 {
		t.Errorf("a node of another cloud got %v", taints)
	}
}
