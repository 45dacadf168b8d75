package local

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
)

// node is one machine with a kubelet, and the server that the simulated account has for it.
type node struct {
	index   int
	name    string
	server  string     // UUID
	public  netip.Addr // of the server
	dir     string     // its disk, on the host
	config  string     // folder of its configuration files
	machine *machine.Process
}

// mounted is where the node sees a folder of the host.
func (n *node) mounted(name string) string { return filepath.Join(n.dir, "host", name) }

func (c *Cluster) startNodes(ctx context.Context) error {
	network, err := c.makePrivateNetwork(ctx)
	if err != nil {
		return err
	}
	c.nodes = make([]*node, c.config.Nodes)
	starting, startContext := errgroup.WithContext(ctx)
	for i := range c.nodes {
		starting.Go(func() error {
			n, err := c.makeNode(startContext, i, network)
			if err != nil {
				return err
			}
			c.nodes[i] = n
			return c.powerOn(n)
		})
	}
	if err := starting.Wait(); err != nil {
		return err
	}
	return c.waitForNodes(ctx)
}

// makeNode makes the node's server and its files.
func (c *Cluster) makeNode(ctx context.Context, i int, network string) (*node, error) {
	n := &node{index: i, name: c.nodeNames()[i]}
	n.dir = filepath.Join(stateDir, "nodes", n.name)
	n.config = filepath.Join(n.dir, "config")
	var err error
	if n.server, n.public, err = c.makeServer(ctx, i, network); err != nil {
		return nil, err
	}
	return n, c.writeNodeFiles(n)
}

// powerOn starts the node's machine and plugs in its cables.
func (c *Cluster) powerOn(n *node) error {
	if err := machine.MakeCgroups(cgroupPrefix + n.name); err != nil {
		return err
	}
	ready, signal, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	defer signal.Close()
	n.machine, err = c.startProcess(machine.Program{
		Name: n.name, Args: []string{c.self, "machine", filepath.Join(n.config, "init.json")}, Clone: machine.InitClone, Stdin: ready,
		Env: []string{"PATH=" + n.mounted("containerd") + ":" + n.mounted("kubernetes") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	})
	if err != nil {
		return err
	}
	namespace, err := machine.NamespaceOf(n.machine.PID())
	if err != nil {
		return err
	}
	defer namespace.Close()
	if err := namespace.UpLoopback(); err != nil {
		return err
	}
	if err := plugIn(c.fabric, namespace, n.index, n.public); err != nil {
		return err
	}
	_, err = signal.WriteString("\n")
	return err
}

// writeNodeFiles writes the node's configuration files.
func (c *Cluster) writeNodeFiles(n *node) error {
	logDir := filepath.Join(c.logDir, n.name)
	for _, dir := range []string{filepath.Join(n.config, "cni"), logDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := c.kubeconfig(filepath.Join(n.config, "kubelet.kubeconfig"), "system:node:"+n.name, apiServerURL()); err != nil {
		return err
	}
	if err := c.kubeconfig(filepath.Join(n.config, "kube-proxy.kubeconfig"), "system:kube-proxy", apiServerURL()); err != nil {
		return err
	}
	init, err := json.MarshalIndent(c.nodeInit(n, logDir), "", "  ")
	if err != nil {
		return err
	}
	files := map[string]string{
		"containerd.toml":        c.containerdConfig(n),
		"kubelet.yaml":           kubeletConfig(n) + c.nameServers(),
		"pods.conflist.template": podNetworkTemplate,
		"init.json":              string(init),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(n.config, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// podNetworkTemplate is what containerd makes its CNI configuration of, as soon as the kubelet has read the Pod CIDR off its
// Node: nobody chooses Pod CIDRs but the kube-controller-manager. Pods are not masqueraded (see machine.Namespace.Masquerade).
const podNetworkTemplate = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "{{.PodCIDR}}"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

// nodeInit is what the node's first process does. The paths are those that the shipped manifests and Kubernetes' own
// programs expect; behind them lie folders of this node alone.
func (c *Cluster) nodeInit(n *node, logDir string) machine.InitConfig {
	const containerdSocket = "/run/containerd/containerd.sock"
	config := func(name string) string { return filepath.Join(n.config, name) }
	init := machine.InitConfig{
		Hostname: n.name,
		LogDir:   n.mounted("log"),
		Mounts: []machine.Mount{
			// What the node takes from the host gets a place of its own first: the host's may lie under what is hidden next.
			{Source: c.config.Kubernetes, Target: n.mounted("kubernetes")},
			{Source: c.config.Containerd, Target: n.mounted("containerd")},
			{Source: logDir, Target: n.mounted("log")},
			{Source: filepath.Join(disksDir, "servers", n.server, "by-id"), Target: byIDDir},
			{Target: "/run"},
			{Target: "/var/lib"},
			{Target: "/var/log"},
			{Source: filepath.Join(n.dir, "kubelet"), Target: "/var/lib/kubelet"},
			{Source: filepath.Join(n.dir, "containerd"), Target: "/var/lib/containerd"},
			{Source: filepath.Join(n.mounted("log"), "pods"), Target: "/var/log/pods"},
		},
		Services: []machine.Service{
			{Name: "containerd", Args: []string{"containerd", "--config", config("containerd.toml")}, Wait: containerdSocket},
		},
	}
	for i, archive := range c.config.Images {
		images := n.mounted(fmt.Sprintf("images-%d", i+1))
		init.Mounts = append([]machine.Mount{{Source: filepath.Dir(archive), Target: images}}, init.Mounts...)
		archive = filepath.Join(images, filepath.Base(archive))
		init.Services = append(init.Services, machine.Service{Name: fmt.Sprintf("import-images-%d", i+1), Once: true,
			Args: []string{"ctr", "--address", containerdSocket, "--namespace", "k8s.io", "images", "import", "--local", archive}})
	}
	init.Services = append(init.Services,
		machine.Service{Name: "kubelet", Restart: true, Args: kubeletArgs(n)},
		machine.Service{Name: "kube-proxy", Args: []string{"kube-proxy", "--kubeconfig", config("kube-proxy.kubeconfig"),
			"--proxy-mode", "nftables", "--hostname-override", n.name, "--cluster-cidr", podNetwork.String(),
			"--conntrack-max-per-core", "0", "--conntrack-tcp-timeout-established", "0", "--conntrack-tcp-timeout-close-wait", "0"}})
	return init
}

// kubeletArgs are as docs/kubeadm.md has them. The first node's kubelet knows its provider ID, the others leave it to the cloud
// controller manager. None has --node-ip: the addresses are that one's to find.
func kubeletArgs(n *node) []string {
	args := []string{"kubelet", "--config", filepath.Join(n.config, "kubelet.yaml"),
		"--kubeconfig", filepath.Join(n.config, "kubelet.kubeconfig"), "--hostname-override", n.name, "--cloud-provider", "external", "--v", "2"}
	if n.index == 0 {
		args = append(args, "--provider-id", "upcloud:////"+n.server)
	}
	return args
}

func (c *Cluster) containerdConfig(n *node) string {
	return fmt.Sprintf(`version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %q
[plugins.'io.containerd.cri.v1.runtime']
  # A supervisor without CAP_SYS_RESOURCE cannot lower a process's OOM score, and runc fails where it may not.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
  conf_dir = %q
  conf_template = %q
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
`, c.config.PauseImage, filepath.Join(n.config, "cni"), filepath.Join(n.config, "pods.conflist.template"))
}

func kubeletConfig(n *node) string {
	return strings.TrimLeft(fmt.Sprintf(`
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /%s
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
# The only way to this port leads through the cluster's own namespaces.
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
failSwapOn: false
evictionHard: {nodefs.available: "1%%", imagefs.available: "1%%"}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
serializeImagePulls: false
syncFrequency: 2s
# As docs/install.md has it: no Pod lands here before the CSI driver is at work.
registerWithTaints: [{key: storage.csi.upcloud.com/agent-not-ready, effect: NoExecute}]
# How often the use of volumes is measured; a minute if it is not said.
volumeStatsAggPeriod: 5s
# Kubelets say when a volume is abnormal; Kubernetes 1.36 does not have it on by default.
featureGates: {CSIVolumeHealth: true}
`, cgroupPrefix+n.name), "\n")
}
