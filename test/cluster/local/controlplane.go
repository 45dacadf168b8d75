package local

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
)

// identities are the API server's users and their groups, as kubeadm would make them; each gets a random token.
func identities(nodes []string) map[string]string {
	users := map[string]string{
		"admin":                          "system:masters",
		"system:kube-controller-manager": "",
		"system:kube-scheduler":          "",
		"system:kube-proxy":              "",
	}
	for _, node := range nodes {
		users["system:node:"+node] = "system:nodes"
	}
	return users
}

// writePKI makes the API server's certificate, the key of service accounts and the tokens of the users.
func (c *Cluster) writePKI() error {
	c.pki = filepath.Join(stateDir, "pki")
	if err := os.MkdirAll(c.pki, 0o700); err != nil {
		return err
	}
	service := serviceNetwork.Addr().Next()
	certificate, key, err := cert.GenerateSelfSignedCertKey("kubernetes",
		[]net.IP{{127, 0, 0, 1}, privateGateway.Addr().AsSlice(), service.AsSlice()},
		[]string{"kubernetes.default", "kubernetes.default.svc", "localhost"})
	if err != nil {
		return fmt.Errorf("make the API server's certificate: %w", err)
	}
	c.caBundle = certificate
	serviceAccountKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	tokens, err := c.makeTokens()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"apiserver.crt": certificate,
		"apiserver.key": key,
		"sa.key":        pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(serviceAccountKey)}),
		"tokens.csv":    tokens,
	} {
		if err := os.WriteFile(filepath.Join(c.pki, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) makeTokens() ([]byte, error) {
	c.tokens = map[string]string{}
	var lines strings.Builder
	for user, group := range identities(c.nodeNames()) {
		random := make([]byte, 16)
		if _, err := rand.Read(random); err != nil {
			return nil, err
		}
		c.tokens[user] = hex.EncodeToString(random)
		fmt.Fprintf(&lines, "%s,%s,%s,%q\n", c.tokens[user], user, user, group)
	}
	return []byte(lines.String()), nil
}

// kubeconfig writes a kubeconfig of the user for the API server at the URL.
func (c *Cluster) kubeconfig(path, user, server string) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["local"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: c.caBundle}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: c.tokens[user]}
	config.Contexts["local"] = &clientcmdapi.Context{Cluster: "local", AuthInfo: user}
	config.CurrentContext = "local"
	return clientcmd.WriteToFile(*config, path)
}

// startControlPlane starts etcd, the API server, the controller manager and the scheduler, and waits until the API
// server is ready.
func (c *Cluster) startControlPlane(ctx context.Context) error {
	if err := c.writePKI(); err != nil {
		return err
	}
	for _, user := range []string{"system:kube-controller-manager", "system:kube-scheduler"} {
		if err := c.kubeconfig(c.kubeconfigOf(user), user, apiServerURL()); err != nil {
			return err
		}
	}
	const etcd = "http://127.0.0.1:2379"
	if err := c.startKubernetes("etcd", "--data-dir", filepath.Join(stateDir, "etcd"), "--listen-client-urls", etcd,
		"--advertise-client-urls", etcd, "--unsafe-no-fsync"); err != nil {
		return err
	}
	pki := func(name string) string { return filepath.Join(c.pki, name) }
	if err := c.startKubernetes("kube-apiserver", "--etcd-servers", etcd, "--secure-port", fmt.Sprint(apiServerPort),
		"--tls-cert-file", pki("apiserver.crt"), "--tls-private-key-file", pki("apiserver.key"),
		"--advertise-address", privateGateway.Addr().String(), "--service-cluster-ip-range", serviceNetwork.String(),
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", pki("sa.key"),
		"--service-account-signing-key-file", pki("sa.key"), "--token-auth-file", pki("tokens.csv"),
		// Components that let the API server decide who may ask them (the CCM's metrics) read the client CA from it.
		"--client-ca-file", pki("apiserver.crt"), "--authorization-mode", "Node,RBAC", "--allow-privileged", "--cert-dir", c.pki,
		"--kubelet-preferred-address-types", "InternalIP"); err != nil {
		return err
	}
	if err := c.connect(ctx); err != nil {
		return err
	}
	if err := c.startKubernetes("kube-controller-manager", "--kubeconfig", c.kubeconfigOf("system:kube-controller-manager"),
		"--service-account-private-key-file", pki("sa.key"), "--use-service-account-credentials", "--root-ca-file", pki("apiserver.crt"),
		"--allocate-node-cidrs", "--cluster-cidr", podNetwork.String(), "--service-cluster-ip-range", serviceNetwork.String(),
		"--cloud-provider", "external", "--leader-elect=false",
		"--cert-dir", c.pki); err != nil {
		return err
	}
	if err := c.startKubernetes("kube-scheduler", "--kubeconfig", c.kubeconfigOf("system:kube-scheduler"), "--leader-elect=false",
		"--cert-dir", c.pki); err != nil {
		return err
	}
	return c.startDNS()
}

func (c *Cluster) kubeconfigOf(user string) string {
	return filepath.Join(c.pki, strings.ReplaceAll(user, ":", "-")+".kubeconfig")
}

func (c *Cluster) startKubernetes(component string, args ...string) error {
	return c.start(machine.Program{
		Name:      component,
		Args:      append([]string{filepath.Join(c.config.Kubernetes, component)}, args...),
		Namespace: c.fabric,
	})
}

// connect opens the way from the host to the API server, writes the administrator's kubeconfig, and waits until the
// server is ready.
func (c *Cluster) connect(ctx context.Context) error {
	forward, err := newForwarder(c.fabric, fmt.Sprintf("127.0.0.1:%d", apiServerPort))
	if err != nil {
		return err
	}
	c.forwarders = append(c.forwarders, forward)
	path := filepath.Join(c.config.OutputDir, "kubeconfig")
	if err := c.kubeconfig(path, "admin", "https://"+forward.Address()); err != nil {
		return err
	}
	c.status.Kubeconfig = path
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	return c.until(ctx, "the API server is ready", func(ctx context.Context) error {
		_, err := c.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

// waitForNodes waits until every node has registered.
func (c *Cluster) waitForNodes(ctx context.Context) error {
	return c.until(ctx, "every node has registered", func(ctx context.Context) error {
		nodes, err := c.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(nodes.Items) < c.config.Nodes {
			return fmt.Errorf("%d of %d nodes have registered", len(nodes.Items), c.config.Nodes)
		}
		return nil
	})
}
