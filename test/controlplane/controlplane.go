// Package controlplane runs etcd and a kube-apiserver, without kubelets, for tests and benchmarks of the cloud controller
// manager: Nodes are made by whoever uses it. The programs are those of the local cluster (test/cluster), which builds them.
package controlplane

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
)

// Variable names the folder with etcd, kube-apiserver and kubectl.
const Variable = "KUBERNETES_DIR"

// startTimeout is how long the API server may take to be ready.
const startTimeout = 5 * time.Minute

// adminToken authenticates the administrator of a control plane that listens on the loopback interface alone.
const adminToken = "admin"

// auditPolicy notes who asked for what, without what is in it.
const auditPolicy = `{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": [
	{"level": "Metadata", "users": ["system:serviceaccount:kube-system:upcloud-ccm"]}, {"level": "None"}]}`

// ControlPlane is a Kubernetes API server, and the etcd behind it.
type ControlPlane struct {
	Admin *rest.Config
	Audit string // file with a line of JSON a request of the CCM's service account

	programs, dir string
	ca            []byte
	processes     []*Process
	apiserver     []string // arguments
}

// Find returns the folder with the programs: the one that the variable names, or the local cluster's in the user's cache
// folder. It is empty if there is none.
func Find() string {
	if dir := os.Getenv(Variable); dir != "" {
		return dir
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	found, _ := filepath.Glob(filepath.Join(base, "cloud-provider-upcloud", "kubernetes-????????????????", "kube-apiserver"))
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[len(found)-1])
}

// Start runs etcd and the API server out of the folder programs, with their files in dir, and waits until it is ready.
func Start(ctx context.Context, programs, dir string) (*ControlPlane, error) {
	c := &ControlPlane{programs: programs, dir: dir, Audit: filepath.Join(dir, "audit.log")}
	err := c.start(ctx)
	if err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *ControlPlane) start(ctx context.Context) error {
	if err := c.writeFiles(); err != nil {
		return err
	}
	ports, err := FreePorts(3)
	if err != nil {
		return err
	}
	etcd, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	if err := c.run("etcd", "--data-dir", c.path("etcd"), "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer,
		"--unsafe-no-fsync", "--log-level", "warn"); err != nil {
		return err
	}
	c.apiserver = []string{"--etcd-servers", etcd, "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(ports[2]),
		"--tls-cert-file", c.path("apiserver.crt"), "--tls-private-key-file", c.path("apiserver.key"), "--cert-dir", c.dir,
		"--client-ca-file", c.path("apiserver.crt"), "--token-auth-file", c.path("tokens.csv"), "--authorization-mode", "RBAC",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", c.path("sa.key"),
		"--service-account-signing-key-file", c.path("sa.key"), "--service-cluster-ip-range", "10.96.0.0/16", "--allow-privileged",
		"--advertise-address", "127.0.0.1", "--endpoint-reconciler-type", "none",
		"--requestheader-client-ca-file", c.path("apiserver.crt"), "--requestheader-username-headers", "X-Remote-User",
		"--requestheader-allowed-names", "front-proxy", "--requestheader-group-headers", "X-Remote-Group", "--requestheader-extra-headers-prefix", "X-Remote-Extra-",
		"--audit-policy-file", c.path("audit.yaml"), "--audit-log-path", c.Audit}
	if err := c.run("kube-apiserver", c.apiserver...); err != nil {
		return err
	}
	c.Admin = c.as(fmt.Sprintf("https://127.0.0.1:%d", ports[2]), adminToken)
	if err := c.Kubeconfig(c.path("admin.kubeconfig"), adminToken); err != nil {
		return err
	}
	return c.await(ctx)
}

func (c *ControlPlane) path(name string) string { return filepath.Join(c.dir, name) }

func (c *ControlPlane) run(program string, args ...string) error {
	process, err := StartProcess(program, c.path(program+".log"), os.Environ(), filepath.Join(c.programs, program), args...)
	if err != nil {
		return err
	}
	c.processes = append(c.processes, process)
	return nil
}

func (c *ControlPlane) writeFiles() error {
	certificate, key, err := cert.GenerateSelfSignedCertKey("kubernetes", []net.IP{{127, 0, 0, 1}}, nil)
	if err != nil {
		return fmt.Errorf("make the API server's certificate: %w", err)
	}
	c.ca = certificate
	signing, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"apiserver.crt": certificate,
		"apiserver.key": key,
		"sa.key":        pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(signing)}),
		"tokens.csv":    []byte(adminToken + ",admin,admin,system:masters\n"),
		"audit.yaml":    []byte(auditPolicy),
	} {
		if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *ControlPlane) as(server, token string) *rest.Config {
	return &rest.Config{Host: server, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: c.ca}, QPS: 1000, Burst: 2000}
}

func (c *ControlPlane) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client, err := kubernetes.NewForConfig(c.Admin)
	if err != nil {
		return err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err == nil {
			return nil
		}
		for _, process := range c.processes {
			select {
			case <-process.Ended():
				return process.Failure()
			default:
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the API server is not ready after %s: %w", startTimeout, err)
		}
	}
}

// Kubeconfig writes a kubeconfig of whoever has the token.
func (c *ControlPlane) Kubeconfig(path, token string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: c.Admin.Host, CertificateAuthorityData: c.ca}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "c"
	return clientcmd.WriteToFile(*config, path)
}

// Apply applies a manifest, or a folder with a kustomization, as the administrator.
func (c *ControlPlane) Apply(ctx context.Context, manifest string) error {
	option := "-f"
	if info, err := os.Stat(manifest); err == nil && info.IsDir() {
		option = "-k"
	}
	output, err := c.Kubectl(ctx, "apply", option, manifest)
	if err != nil {
		return fmt.Errorf("kubectl apply %s %s: %w\n%s", option, manifest, err, output)
	}
	return nil
}

// Kubectl runs kubectl as the administrator, and returns what it said.
func (c *ControlPlane) Kubectl(ctx context.Context, args ...string) (string, error) {
	all := append([]string{"--kubeconfig", c.path("admin.kubeconfig")}, args...)
	output, err := exec.CommandContext(ctx, filepath.Join(c.programs, "kubectl"), all...).CombinedOutput()
	return string(output), err
}

// RestartAPIServer ends the API server alone, and waits until another is ready in its place.
func (c *ControlPlane) RestartAPIServer(ctx context.Context) error {
	last := len(c.processes) - 1
	c.processes[last].Stop()
	c.processes = c.processes[:last]
	if err := c.run("kube-apiserver", c.apiserver...); err != nil {
		return err
	}
	return c.await(ctx)
}

// Stop ends the API server and etcd.
func (c *ControlPlane) Stop() {
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].Stop()
	}
}

// The ports that FreePorts hands out lie below those that the kernel chooses for whoever does not ask for one
// (net.ipv4.ip_local_port_range, unless that was changed): nobody is given one of them before it is listened on.
const firstPort, endOfPorts = 20000, 32768

// The ports tried are counted, from a random one on: other processes do so, too.
var (
	portsFrom  = mathrand.Int64N(endOfPorts - firstPort)
	portsTried atomic.Int64
)

// FreePorts returns ports of the loopback interface that nobody listens on now, and each of them once.
func FreePorts(count int) (ports []int, err error) {
	for range endOfPorts - firstPort {
		if len(ports) == count {
			return ports, nil
		}
		port := firstPort + (portsFrom+portsTried.Add(1))%(endOfPorts-firstPort)
		var listener net.Listener
		if listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
			continue // somebody has it
		}
		if err := listener.Close(); err != nil {
			return nil, err
		}
		ports = append(ports, int(port))
	}
	return nil, fmt.Errorf("find %d free ports: %w", count, err)
}
