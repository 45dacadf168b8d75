package integration

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/cert"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/controlplane"
)

// deploy/kubernetes/ccm-class as it is applied: the flags of its Deployment and the rights of its roles, on an API server of its
// own. Services of the class get their load balancer; those of others and those without a class stay as they are, and so do the
// Nodes, of which one would be initialized and one deleted by a CCM that looks after nodes. What the roles grant is used, and
// nothing is tried that they do not grant.
func TestAddOnServesItsClassOnly(t *testing.T) {
	k := newAddOnCluster(t, "class")
	account := simulatortest.Start(t, simulator.Config{})
	k.startAsDeployed(account, "upcloud-load-balancers")

	member := k.node("class-member", account.CreateServer(t, "class-member", zone))
	waiting := (&cluster{name: k.name}).newNode("class-waiting")
	account.CreateServer(t, "class-waiting", zone)
	gone := k.node("class-gone", "00ffffff-ffff-4fff-bfff-ffffffffffff")
	gone.Status.Conditions[0].Status = v1.ConditionUnknown
	for _, node := range []*v1.Node{member, waiting, gone} {
		if _, err := k.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	certificate, key, err := cert.GenerateSelfSignedCertKey("example.test", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.client.CoreV1().Secrets("default").Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web-tls"},
		Type: v1.SecretTypeTLS, Data: map[string][]byte{v1.TLSCertKey: certificate, v1.TLSPrivateKeyKey: key}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ours, other := "upcloud.com/load-balancer", "example.com/other"
	for name, class := range map[string]*string{"none": nil, "other": &other, "ours": &ours} {
		service := annotatedService(name, "mode", "https=http", "tls-secret", "https=web-tls")
		service.Spec.LoadBalancerClass = class
		if _, err := k.client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	before := k.versions()
	k.eventually("the Service of the class is published", func() string {
		service, err := k.client.CoreV1().Services("default").Get(t.Context(), "ours", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if len(service.Status.LoadBalancer.Ingress) == 0 {
			return "it has no address"
		}
		return ""
	})
	var all []struct {
		Name     string
		Backends []struct{ Members []struct{ Name string } }
	}
	account.Do(t, http.MethodGet, "/load-balancer", "", &all)
	if len(all) != 1 || !strings.Contains(fmt.Sprint(all), "class-member") {
		t.Errorf("load balancers: %+v", all)
	}
	// What follows has the ccm at work again after it has had every occasion to touch the others.
	if err := k.client.CoreV1().Services("default").Delete(t.Context(), "ours", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	k.eventually("the Service goes with its load balancer", func() string {
		_, err := k.client.CoreV1().Services("default").Get(t.Context(), "ours", metav1.GetOptions{})
		account.Do(t, http.MethodGet, "/load-balancer", "", &all)
		if !apierrors.IsNotFound(err) || len(all) > 0 {
			return fmt.Sprint(err, all)
		}
		return ""
	})
	for name, version := range k.versions() {
		if before[name] != version {
			t.Errorf("%s was changed", name)
		}
	}
	if err := checkRights(k.client, k.plane.Audit); err != nil {
		t.Error(err)
	}
}

// newAddOnCluster is an API server of the test's own, with the manifests of the add-on.
func newAddOnCluster(t *testing.T, name string) *kubernetesOf {
	t.Helper()
	needsPlane(t)
	k := &kubernetesOf{t: t, name: name}
	var err error
	if k.plane, err = controlplane.Start(t.Context(), os.Getenv(controlplane.Variable), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.plane.Stop)
	if k.client, err = kubernetes.NewForConfig(k.plane.Admin); err != nil {
		t.Fatal(err)
	}
	if err := k.plane.Apply(t.Context(), "../../deploy/kubernetes/ccm-class"); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *kubernetesOf) node(name, server string) *v1.Node {
	node := (&cluster{name: k.name}).newNode(name)
	node.Spec.ProviderID, node.Spec.Taints = "upcloud:////"+server, nil
	return node
}

// versions are those of the Nodes, and of the Services that are not of the class.
func (k *kubernetesOf) versions() map[string]string {
	k.t.Helper()
	all := map[string]string{"node class-member": "", "node class-waiting": "", "node class-gone": "", "service none": "", "service other": ""}
	for name := range all {
		kind, name, _ := strings.Cut(name, " ")
		var object metav1.Object
		var err error
		if kind == "node" {
			object, err = k.client.CoreV1().Nodes().Get(k.t.Context(), name, metav1.GetOptions{})
		} else {
			object, err = k.client.CoreV1().Services("default").Get(k.t.Context(), name, metav1.GetOptions{})
		}
		if err != nil {
			k.t.Fatal(err)
		}
		all[kind+" "+name] = object.GetResourceVersion()
	}
	return all
}

// startAsDeployed starts the ccm with the arguments of the Deployment, and waits until somebody holds the lease; only where it finds
// the API server, its secret and its ports differ from a Pod's.
func (k *kubernetesOf) startAsDeployed(account *simulatortest.Server, lease string, more ...string) *controlplane.Process {
	t := k.t
	t.Helper()
	deployment, err := k.client.AppsV1().Deployments("kube-system").Get(t.Context(), "upcloud-ccm", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	token, err := k.plane.CCMToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, secret := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "secret")
	if err := k.plane.Kubeconfig(kubeconfig, token); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secret, "token"), []byte(account.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	ports, err := controlplane.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	args := slices.Clone(deployment.Spec.Template.Spec.Containers[0].Args)
	for i, arg := range args { // as the kubelet does it
		args[i] = strings.ReplaceAll(arg, "$(NAMESPACE)", deployment.Namespace)
	}
	args = append(args, "--kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig, "--bind-address=127.0.0.1", "--cert-dir="+dir, "--credentials-dir="+secret,
		fmt.Sprintf("--secure-port=%d", ports[0]), fmt.Sprintf("--readiness-port=%d", ports[1]))
	args = append(args, more...)
	log := filepath.Join(dir, "ccm.log")
	ccm, err := controlplane.StartProcess("ccm", log, append(os.Environ(), "UPCLOUD_DEBUG_API_BASE_URL="+account.URL), program, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ccm.Stop()
		if said, _ := os.ReadFile(log); t.Failed() {
			t.Logf("the end of what ccm %s said:\n%s", strings.Join(args, " "), tail(string(said), 4000))
		}
	})
	k.leads(lease)
	return ccm
}

// leads waits until somebody holds the lease.
func (k *kubernetesOf) leads(lease string) {
	k.t.Helper()
	k.eventually("the ccm leads", func() string {
		held, err := k.client.CoordinationV1().Leases("kube-system").Get(k.t.Context(), lease, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		if held.Spec.HolderIdentity == nil {
			return "nobody does"
		}
		return ""
	})
}
