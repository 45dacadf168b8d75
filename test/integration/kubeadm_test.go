package integration

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// guide is docs/kubeadm.md.
type guide string

// block returns the block of code that contains a text.
func (g guide) block(t *testing.T, language, contains string) string {
	t.Helper()
	for part := range strings.SplitSeq(string(g), "\n```"+language+"\n") {
		if text, _, found := strings.Cut(part, "\n```"); found && strings.Contains(text, contains) {
			return text
		}
	}
	t.Fatalf("docs/kubeadm.md has no %s with %q", language, contains)
	return ""
}

// kubeadmConfig is what the guide's files for kubeadm say of a kubelet and of the cluster.
type kubeadmConfig struct {
	Kind             string
	NodeRegistration struct {
		Taints           []v1.Taint
		KubeletExtraArgs []struct{ Name, Value string }
	}
	Networking struct{ PodSubnet string }
}

func (c kubeadmConfig) arg(name string) string {
	for _, arg := range c.NodeRegistration.KubeletExtraArgs {
		if arg.Name == name {
			return arg.Value
		}
	}
	return ""
}

func (g guide) configs(t *testing.T, contains string) (all map[string]kubeadmConfig) {
	t.Helper()
	all = map[string]kubeadmConfig{}
	for text := range strings.SplitSeq(g.block(t, "yaml", contains), "\n---\n") {
		var config kubeadmConfig
		if err := yaml.Unmarshal([]byte(text), &config); err != nil {
			t.Fatal(err)
		}
		all[config.Kind] = config
	}
	return all
}

// docs/kubeadm.md, taken at its word: its script makes router, network and servers in the simulated account, its manifests are
// applied to the API server and the ccm runs with the flags that they give it, and Nodes register as kubelets do with its
// configuration. All of them are initialized and routed, those whose kubelet names the server and those whose does not, and a
// Service gets a host name. It runs alone: this ccm looks after all Nodes.
func TestTheKubeadmGuide(t *testing.T) {
	needsPlane(t)
	for _, needed := range []string{"bash", "curl", "jq"} {
		if _, err := exec.LookPath(needed); err != nil {
			t.Skipf("the guide's script needs %s: %v", needed, err)
		}
	}
	text, err := os.ReadFile("../../docs/kubeadm.md")
	if err != nil {
		t.Fatal(err)
	}
	g, account := guide(text), simulatortest.Start(t, simulator.Config{})
	servers := g.makeServers(t, account)
	router := g.routerOf(t, account)

	k := &kubernetesOf{t: t, name: "kubeadm", plane: plane, client: client}
	g.applyManifests(t, account.Token)
	control, worker := g.configs(t, "kind: InitConfiguration"), g.configs(t, "kind: JoinConfiguration")["JoinConfiguration"]
	subnet, ok := strings.CutSuffix(control["ClusterConfiguration"].Networking.PodSubnet, ".0.0/16")
	if !ok {
		t.Fatalf("podSubnet is %s", control["ClusterConfiguration"].Networking.PodSubnet)
	}
	c := &cluster{t: t, name: "kubeadm"}
	t.Cleanup(c.removeNodes)
	addressOf := map[string]string{"control-1": "172.16.0.11", "worker-1": "172.16.0.12", "worker-2": "172.16.0.13"}
	for i, name := range []string{"control-1", "worker-1", "worker-2"} {
		config := worker
		if name == "control-1" {
			config = control["InitConfiguration"]
		}
		if config.arg("cloud-provider") != "external" || config.arg("node-ip") != addressOf[name] && name != "worker-2" {
			t.Fatalf("%s: kubeletExtraArgs %v", name, config.NodeRegistration.KubeletExtraArgs)
		}
		node := c.newNode(name)
		node.Spec.Taints = append(node.Spec.Taints, config.NodeRegistration.Taints...)
		node.Annotations = map[string]string{"alpha.kubernetes.io/provided-node-ip": addressOf[name]}
		node.Spec.PodCIDR = fmt.Sprintf("%s.%d.0/24", subnet, i) // as the kube-controller-manager gives them out
		node.Spec.PodCIDRs = []string{node.Spec.PodCIDR}
		if name == "worker-2" {
			node.Spec.ProviderID = "upcloud:////" + servers[name]
		}
		c.register(node)
	}
	k.startAsDeployed(account, "cloud-controller-manager")

	for name, server := range servers {
		k.eventually(name+" is initialized and routed", func() string {
			node := c.node(name)
			switch {
			case lacksInitialization(node) != "":
				return lacksInitialization(node)
			case !networkAvailable(node):
				return "its network is not available"
			}
			return ""
		})
		node := c.node(name)
		if node.Spec.ProviderID != "upcloud:////"+server || !slices.Equal(addresses(node, v1.NodeInternalIP), []string{addressOf[name]}) ||
			len(addresses(node, v1.NodeExternalIP)) != 1 {
			t.Errorf("%s: provider ID %s, addresses %v", name, node.Spec.ProviderID, node.Status.Addresses)
		}
		isStartup := func(taint v1.Taint) bool { return taint.Key == "storage.csi.upcloud.com/agent-not-ready" }
		if slices.ContainsFunc(node.Spec.Taints, isStartup) != (name != "control-1") {
			t.Errorf("%s: taints %v", name, node.Spec.Taints)
		}
		of := &cluster{t: t, Server: account}
		if hop := of.routes(router)[node.Spec.PodCIDR]; hop != addressOf[name] {
			t.Errorf("%s: the route to %s leads to %q", name, node.Spec.PodCIDR, hop)
		}
	}
	events, err := client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "reason=SourceIPFiltering"})
	if err != nil || len(events.Items) > 0 {
		t.Errorf("source IP filtering: %v, %v", events.Items, err)
	}
	g.exposeService(t, k)
}

// makeServers runs the script of the guide's first step, and returns the servers' UUIDs by name.
func (g guide) makeServers(t *testing.T, account *simulatortest.Server) map[string]string {
	t.Helper()
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKdI7Ak+WcOAtA0vqxYWwpeF2S7jRMqA4yhsI0QyRgVn operator"
	if err := os.WriteFile(filepath.Join(home, ".ssh", "id_ed25519.pub"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	script := strings.Replace(g.block(t, "sh", "server worker-2"), "ucat_…", account.Token, 1)
	command := exec.CommandContext(t.Context(), "bash", "-eu", "-o", "pipefail", "-c", script)
	command.Env = append(os.Environ(), "HOME="+home, "UPCLOUD_API="+account.URL)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("the guide's script: %v\n%s", err, output)
	}
	servers := map[string]string{}
	for line := range strings.Lines(string(output)) {
		if fields := strings.Fields(line); len(fields) == 2 {
			servers[fields[0]] = fields[1]
		}
	}
	if len(servers) != 3 {
		t.Fatalf("the guide's script made %v:\n%s", servers, output)
	}
	return servers
}

func (g guide) routerOf(t *testing.T, account *simulatortest.Server) string {
	t.Helper()
	var list struct {
		Networks struct {
			Network []struct{ Name, Router string }
		}
	}
	account.Do(t, http.MethodGet, "/network/?zone="+zone, "", &list)
	for _, network := range list.Networks.Network {
		if network.Name == "kubernetes" && network.Router != "" {
			return network.Router
		}
	}
	t.Fatalf("the guide's network is on no router: %+v", list)
	return ""
}

// applyManifests makes the secret and applies the guide's kustomization, with the CSI driver that its seventh step adds.
func (g guide) applyManifests(t *testing.T, token string) {
	t.Helper()
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	clone, err := filepath.Rel(dir, repository)
	if err != nil {
		t.Fatal(err)
	}
	kustomization := g.block(t, "yaml", "kind: Kustomization")
	kustomization = strings.Replace(kustomization, "resources:\n", "resources:\n  - CLONE/deploy/kubernetes/base/csi-driver\n", 1)
	kustomization = strings.NewReplacer("CLONE/", clone+"/", "REGISTRY", "registry.example", "TAG", "v1").Replace(kustomization)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := plane.Kubectl(t.Context(), "-n", "kube-system", "create", "secret", "generic", "upcloud", "--from-literal=token="+token); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for _, folder := range []string{"../../deploy/kubernetes/snapshot-controller", dir} {
		until(t, "the manifests are applied", func() string {
			if err := plane.Apply(t.Context(), folder); err != nil {
				return err.Error() // the API server takes a moment to serve new kinds
			}
			return ""
		})
	}
}

// exposeService does what the guide's eighth step does.
func (g guide) exposeService(t *testing.T, k *kubernetesOf) {
	t.Helper()
	service := annotatedService("kubeadm-web")
	service.Spec.Ports = service.Spec.Ports[:1]
	services := client.CoreV1().Services("default")
	if _, err := services.Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	k.eventually("the Service has a host name", func() string {
		service, err := services.Get(t.Context(), "kubeadm-web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(service.Status.LoadBalancer.Ingress) == 0 || service.Status.LoadBalancer.Ingress[0].Hostname == "" {
			return fmt.Sprint(service.Status)
		}
		return ""
	})
	k.remove("kubeadm-web")
}
