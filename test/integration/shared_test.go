package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/haproxy"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/controlplane"
)

// kubernetesOf is one of two Kubernetes clusters in one UpCloud account: etcd, kube-apiserver and ccm. An HTTP server at its node's
// address stands for what runs on it.
type kubernetesOf struct {
	t      *testing.T
	name   string
	plane  *controlplane.ControlPlane
	client kubernetes.Interface
	nodeIP string
}

const sharedPrefix = "service.beta.kubernetes.io/upcloud-load-balancer-"

// The story that sharing is for: one address, which Terraform made; /foo is answered by one Kubernetes cluster, /bar by another; what
// both want belongs to the first, and the second is told.
func TestTwoClustersBehindOneLoadBalancer(t *testing.T) {
	if program == "" {
		t.Skipf("%s does not name a folder with etcd and kube-apiserver: make integration builds them and runs this", controlplane.Variable)
	}
	balancers, err := haproxy.New(haproxy.Config{Dir: t.TempDir()})
	if errors.Is(err, haproxy.ErrNoProgram) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	account := simulatortest.Start(t, simulator.Config{LoadBalancers: balancers})
	network := account.CreateNetwork(t, "nodes", zone, "127.78.0.0/24")
	var edge struct{ UUID string }
	account.Do(t, http.MethodPost, "/load-balancer", fmt.Sprintf(`{"name":"edge","plan":"development","zone":%q,"networks":[
		{"name":"public","type":"public","family":"IPv4"},{"name":"private","type":"private","family":"IPv4","uuid":%q}],
		"backends":[{"name":"nobody","members":[]}],
		"frontends":[{"name":"public-http","mode":"http","port":18491,"default_backend":"nobody","networks":[{"name":"public"}]}]}`,
		zone, network), &edge)

	x, y := newKubernetes(t, "x", account, network), newKubernetes(t, "y", account, network)
	x.publish("foo", "[{host: saas.example, path: /foo}]")
	y.publish("bar", "[{host: saas.example, path: /bar}]")
	address := net.JoinHostPort(x.address("foo"), "18491")
	if other := net.JoinHostPort(y.address("bar"), "18491"); other != address {
		t.Errorf("clusters x and y publish %s and %s", address, other)
	}
	for path, want := range map[string]string{"/foo": "cluster x: Service foo", "/bar/1": "cluster y: Service bar", "/": "503"} {
		y.answered(address, path, want)
	}

	y.publish("wants-foo-too", "[{host: saas.example, path: /foo}]")
	y.toldOf("wants-foo-too", "RouteConflict", "saas.example/foo (Prefix) on port 18491", "Service default/foo of cluster x")
	x.answered(address, "/foo", "cluster x: Service foo")

	x.remove("foo")
	y.remove("bar", "wants-foo-too")
	var left map[string]any
	account.Do(t, http.MethodGet, "/load-balancer/"+edge.UUID, "", &left)
	if text, _ := json.Marshal(left); strings.Contains(string(text), `"k-`) || !strings.Contains(string(text), `"public-http"`) {
		t.Errorf("the load balancer that Terraform made: %s", text)
	}
}

// newKubernetes brings a cluster up, with one node on the private network.
func newKubernetes(t *testing.T, name string, account *simulatortest.Server, network string) *kubernetesOf {
	t.Helper()
	k := &kubernetesOf{t: t, name: name}
	dir := t.TempDir()
	var err error
	if k.plane, err = controlplane.Start(t.Context(), os.Getenv(controlplane.Variable), dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.plane.Stop)
	if k.client, err = kubernetes.NewForConfig(k.plane.Admin); err != nil {
		t.Fatal(err)
	}
	if err := k.plane.Apply(t.Context(), "../../deploy/kubernetes/base/ccm/rbac.yaml"); err != nil {
		t.Fatal(err)
	}
	k.startCCM(dir, account)
	server := account.CreateServerOn(t, name+"-node", zone, network)
	node := (&cluster{name: name}).newNode(name + "-node")
	node.Spec.ProviderID = "upcloud:////" + server
	if _, err := k.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	k.eventually("its node is initialized", func() string {
		node, err := k.client.CoreV1().Nodes().Get(t.Context(), name+"-node", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if all := addresses(node, v1.NodeInternalIP); len(all) > 0 {
			k.nodeIP = all[0]
		}
		return lacksInitialization(node)
	})
	return k
}

func (k *kubernetesOf) startCCM(dir string, account *simulatortest.Server) {
	t := k.t
	t.Helper()
	token, err := k.plane.CCMToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, config, log := filepath.Join(dir, "ccm.kubeconfig"), filepath.Join(dir, "config.yaml"), filepath.Join(dir, "ccm.log")
	if err := k.plane.Kubeconfig(kubeconfig, token); err != nil {
		t.Fatal(err)
	}
	text := "kind: CCMConfig\ndata:\n  clusterName: " + strconv.Quote(k.name) + "\n  loadBalancerStatus: ip\n  sharedLoadBalancers:\n" +
		"  - {loadBalancer: edge, ports: [18491], hosts: [saas.example]}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ports, err := controlplane.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "UPCLOUD_DEBUG_API_BASE_URL="+account.URL, "UPCLOUD_TOKEN="+account.Token)
	ccm, err := controlplane.StartProcess("ccm", log, env, program, "--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig, "--cloud-config="+config, "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", ports[0]),
		"--cert-dir="+dir, "--leader-elect=false", "--v=2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ccm.Stop()
		if said, _ := os.ReadFile(log); t.Failed() {
			t.Logf("the end of what the ccm of %s said:\n%s", k.name, tail(string(said), 4000))
		}
	})
}

func (k *kubernetesOf) eventually(what string, lacks func() string) {
	k.t.Helper()
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if last = lacks(); last == "" {
			return
		}
	}
	k.t.Fatalf("cluster %s: %s: %s", k.name, what, last)
}

// publish makes a Service with routes on the load balancer, and what answers at its node port.
func (k *kubernetesOf) publish(name, routes string) {
	k.t.Helper()
	service, err := k.client.CoreV1().Services("default").Create(k.t.Context(), &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
			sharedPrefix + "shared": "edge", sharedPrefix + "frontend": "public-http", sharedPrefix + "routes": routes}},
		Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, Ports: []v1.ServicePort{{Name: "http", Port: 18491}}},
	}, metav1.CreateOptions{})
	if err != nil {
		k.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(k.nodeIP, fmt.Sprint(service.Spec.Ports[0].NodePort)))
	if err != nil {
		k.t.Fatal(err)
	}
	web := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "cluster %s: Service %s", k.name, name)
	})}}
	web.Start()
	k.t.Cleanup(web.Close)
}

// address is what the Service's status has.
func (k *kubernetesOf) address(name string) (ip string) {
	k.t.Helper()
	k.eventually("Service "+name+" is published", func() string {
		service, err := k.client.CoreV1().Services("default").Get(k.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if len(service.Status.LoadBalancer.Ingress) == 0 {
			return "it has no address"
		}
		ip = service.Status.LoadBalancer.Ingress[0].IP
		return ""
	})
	return ip
}

// answered asks as curl -H 'Host: saas.example' does, until the answer is the one wanted.
func (k *kubernetesOf) answered(address, path, want string) {
	k.t.Helper()
	k.eventually("http://saas.example"+path+" is answered with "+want, func() string {
		if curl, err := exec.LookPath("curl"); err == nil {
			out, err := exec.CommandContext(k.t.Context(), curl, "-s", "-w", "%{http_code}", "-H", "Host: saas.example", "http://"+address+path).Output()
			if got := strings.TrimSuffix(string(out), "200"); err != nil || got != want && !strings.HasSuffix(got, want) {
				return fmt.Sprintf("%q, %v", out, err)
			}
			k.t.Logf("curl -H 'Host: saas.example' http://%s%s  ->  %s", address, path, want)
			return ""
		}
		request, err := http.NewRequestWithContext(k.t.Context(), http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			return err.Error()
		}
		request.Host = "saas.example"
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = response.Body.Close() }()
		body, _ := io.ReadAll(response.Body)
		if got := string(body); got != want && fmt.Sprint(response.StatusCode) != want {
			return fmt.Sprintf("%d %q", response.StatusCode, got)
		}
		return ""
	})
}

// toldOf waits for an event on a Service that says all of this.
func (k *kubernetesOf) toldOf(name, reason string, words ...string) {
	k.t.Helper()
	k.eventually("an event on Service "+name, func() string {
		events, err := k.client.CoreV1().Events("default").List(k.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		var seen []string
		for _, event := range events.Items {
			if event.InvolvedObject.Name != name {
				continue
			}
			all := event.Reason == reason
			for _, word := range words {
				all = all && strings.Contains(event.Message, word)
			}
			if all {
				k.t.Logf("event on Service %s of cluster %s: %s: %s", name, k.name, event.Reason, event.Message)
				return ""
			}
			seen = append(seen, event.Reason+": "+event.Message)
		}
		return fmt.Sprintf("%d others: %s", len(seen), strings.Join(seen, "\n"))
	})
}

func (k *kubernetesOf) remove(names ...string) {
	k.t.Helper()
	for _, name := range names {
		if err := k.client.CoreV1().Services("default").Delete(k.t.Context(), name, metav1.DeleteOptions{}); err != nil {
			k.t.Fatal(err)
		}
	}
	k.eventually("its Services are gone", func() string {
		all, err := k.client.CoreV1().Services("default").List(k.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		for _, service := range all.Items {
			if service.Spec.Type == v1.ServiceTypeLoadBalancer {
				return service.Name + " is there"
			}
		}
		return ""
	})
}
