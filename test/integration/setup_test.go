package integration

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/controlplane"
)

const (
	zone = "fi-hel1"
	// testLabel says whose test a Node is.
	testLabel = "integration-test"
	// patience bounds every wait for a condition: many times what it takes, for machines that are slow or busy.
	patience = 5 * time.Minute
	// leaseDuration is so long that a leader that runs does not lose its lease because the machine is busy.
	leaseDuration = 15 * time.Second
)

// What all tests share; program is empty where there is no Kubernetes.
var (
	plane   *controlplane.ControlPlane
	client  kubernetes.Interface
	program string
)

var rightsFlag = flag.Bool("rights", true, "fail when a right that rbac.yaml grants is used by none of the tests that ran")

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(controlplane.Variable) == "" {
		os.Exit(m.Run()) // every test says why it does not run
	}
	status, err := runAll(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func runAll(m *testing.M) (status int, err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "integration")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "ccm")
	if output, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../../cmd/ccm").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build ccm: %w\n%s", err, output)
	}
	if plane, err = controlplane.Start(ctx, os.Getenv(controlplane.Variable), dir); err != nil {
		return 1, err
	}
	defer plane.Stop()
	if client, err = kubernetes.NewForConfig(plane.Admin); err != nil {
		return 1, err
	}
	if err := plane.Apply(ctx, "../../deploy/kubernetes/base/ccm/rbac.yaml"); err != nil {
		return 1, err
	}
	if status = m.Run(); status != 0 || !*rightsFlag {
		return status, nil
	}
	return 0, checkRights(client, plane.Audit)
}

// cluster is a test's nodes, its ccm and its simulated account.
type cluster struct {
	*simulatortest.Server
	t    *testing.T
	name string // of the test, as a label
	dir  string
	ccm  *controlplane.Process
	// What a ccm that is started next gets, beside what all get.
	config string // lines below data: of the configuration file
	env    []string
	args   []string
	secure int // port of health and metrics of the last one
	ready  int // port of readiness
}

// newCluster makes an account. Its ccm is started with start.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	if program == "" {
		t.Skipf("%s does not name a folder with etcd and kube-apiserver: make integration builds them and runs this", controlplane.Variable)
	}
	c := &cluster{Server: simulatortest.Start(t, simulator.Config{}), t: t, dir: t.TempDir(),
		name: strings.ToLower(strings.NewReplacer("Test", "", "/", "-").Replace(t.Name()))}
	c.env = []string{"UPCLOUD_DEBUG_API_BASE_URL=" + c.URL, "UPCLOUD_TOKEN=" + c.Token}
	c.args = []string{"--leader-elect=false", "--controllers=*,-service-lb-controller"}
	t.Cleanup(c.removeNodes)
	return c
}

// started makes an account, and a ccm that runs until the test ends.
func started(t *testing.T, args ...string) *cluster {
	t.Helper()
	c := newCluster(t)
	c.args = append(c.args, args...)
	c.ccm = c.start()
	return c
}

// start starts a ccm that runs until the test ends.
func (c *cluster) start() *controlplane.Process {
	c.t.Helper()
	token, err := plane.CCMToken(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	kubeconfig := filepath.Join(c.dir, "kubeconfig")
	if err := plane.Kubeconfig(kubeconfig, token); err != nil {
		c.t.Fatal(err)
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		c.t.Fatal(err)
	}
	c.secure, c.ready = ports[0], ports[1]
	args := append([]string{"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--cloud-config=" + c.file("config.yaml", c.configText()), "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.secure),
		fmt.Sprintf("--readiness-port=%d", c.ready), "--cert-dir=" + c.dir, "--v=2"}, c.args...)
	ccm, err := controlplane.StartProcess("ccm", filepath.Join(c.dir, fmt.Sprintf("ccm-%d.log", c.secure)), append(os.Environ(), c.env...), program, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		ccm.Stop()
		if c.t.Failed() {
			c.t.Logf("the end of what ccm said:\n%s", tail(c.log(ccm), 6000))
		}
	})
	return ccm
}

// elect are the flags of ccms that elect a leader.
func (c *cluster) elect(args ...string) []string {
	return append([]string{"--leader-elect=true", "--leader-elect-lease-duration=" + leaseDuration.String(), "--leader-elect-renew-deadline=10s",
		"--leader-elect-retry-period=1s", "--leader-elect-resource-name=" + c.name}, args...)
}

func (c *cluster) configText() string {
	return "kind: CCMConfig\ndata:\n  nodeScopeSelector: {matchLabels: {" + testLabel + ": " + c.name + "}}\n" + c.config
}

func (c *cluster) file(name, content string) (path string) {
	c.t.Helper()
	path = filepath.Join(c.dir, name)
	if err := os.WriteFile(path+".next", []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func (c *cluster) log(ccm *controlplane.Process) string {
	text, err := os.ReadFile(ccm.Log)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

func tail(text string, length int) string { return text[max(0, len(text)-length):] }

// eventually waits for a condition, which says what it still lacks.
func (c *cluster) eventually(what string, lacks func() string) {
	c.t.Helper()
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if last = lacks(); last == "" {
			return
		}
		if c.ccm != nil {
			select {
			case <-c.ccm.Ended():
				c.t.Fatalf("%s: %s, and ccm has ended", what, last)
			default:
			}
		}
	}
	c.t.Fatalf("%s: %s", what, last)
}

// always looks again and again for so many passes of the node lifecycle controller that a wrong answer would have shown:
// it needs the ccm to have asked the account since.
func (c *cluster) always(what, operation string, passes int, lacks func() string) {
	c.t.Helper()
	from := c.Requests().Of(operation)
	c.eventually(what, func() string {
		if last := lacks(); last != "" {
			c.t.Fatalf("%s: %s", what, last)
		}
		if asked := c.Requests().Of(operation) - from; asked < passes {
			return fmt.Sprintf("the ccm asked %s %d times only", operation, asked)
		}
		return ""
	})
}

// newNode is a Node as a kubelet with --cloud-provider=external registers it.
func (c *cluster) newNode(name string) *v1.Node {
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{testLabel: c.name}},
		Spec: v1.NodeSpec{Taints: []v1.Taint{
			{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: v1.TaintEffectNoSchedule}}},
		Status: v1.NodeStatus{
			Addresses:  []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}},
			Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue}},
		},
	}
}

func (c *cluster) register(nodes ...*v1.Node) {
	c.t.Helper()
	for _, node := range nodes {
		if _, err := client.CoreV1().Nodes().Create(c.t.Context(), node, metav1.CreateOptions{}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// member makes a server and its initialized Node.
func (c *cluster) member(name string) (server string) {
	c.t.Helper()
	server = c.CreateServer(c.t, name, zone)
	node := c.newNode(name)
	node.Spec.ProviderID = "upcloud:////" + server
	c.register(node)
	c.initialized(name)
	return server
}

func (c *cluster) initialized(names ...string) {
	c.t.Helper()
	c.eventually("nodes are initialized", func() string {
		for _, name := range names {
			if missing := lacksInitialization(c.node(name)); missing != "" {
				return name + " " + missing
			}
		}
		return ""
	})
}

func lacksInitialization(node *v1.Node) string {
	switch {
	case slices.ContainsFunc(node.Spec.Taints, func(t v1.Taint) bool { return strings.HasSuffix(t.Key, "/uninitialized") }):
		return "is tainted"
	case len(node.Status.Addresses) < 2:
		return "lacks addresses"
	}
	return ""
}

func (c *cluster) node(name string) *v1.Node {
	c.t.Helper()
	node, err := client.CoreV1().Nodes().Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return node
}

func (c *cluster) exists(name string) bool {
	c.t.Helper()
	_, err := client.CoreV1().Nodes().Get(c.t.Context(), name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		c.t.Fatal(err)
	}
	return err == nil
}

// setReady makes a Node Ready or not, as Kubernetes' node lifecycle controller does when the kubelet reports or is silent.
func (c *cluster) setReady(name string, status v1.ConditionStatus) {
	c.t.Helper()
	c.eventually(name+" is changed", func() string {
		node := c.node(name)
		node.Status.Conditions = []v1.NodeCondition{{Type: v1.NodeReady, Status: status}}
		if _, err := client.CoreV1().Nodes().UpdateStatus(c.t.Context(), node, metav1.UpdateOptions{}); err != nil {
			return err.Error()
		}
		return ""
	})
}

func (c *cluster) gone(name string) {
	c.t.Helper()
	c.eventually(name+" is gone", func() string {
		if c.exists(name) {
			return "it is there"
		}
		return ""
	})
}

func (c *cluster) removeNodes() {
	err := client.CoreV1().Nodes().DeleteCollection(context.Background(), metav1.DeleteOptions{},
		metav1.ListOptions{LabelSelector: testLabel + "=" + c.name})
	if err != nil {
		c.t.Error(err)
	}
}

func addresses(node *v1.Node, kind v1.NodeAddressType) (all []string) {
	for _, address := range node.Status.Addresses {
		if address.Type == kind {
			all = append(all, address.Address)
		}
	}
	return all
}

func (c *cluster) tryRegister(node *v1.Node) error {
	_, err := client.CoreV1().Nodes().Create(c.t.Context(), node, metav1.CreateOptions{})
	return err
}

// nodes are the test's.
func (c *cluster) nodes() []v1.Node {
	c.t.Helper()
	list, err := client.CoreV1().Nodes().List(c.t.Context(), metav1.ListOptions{LabelSelector: testLabel + "=" + c.name})
	if err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}
