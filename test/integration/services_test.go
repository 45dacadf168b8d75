package integration

import (
	"fmt"
	"net/http"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
)

// A Service with a certificate in a Secret: what the ccm may do with Services and Secrets suffices, also when the Secret
// changes. It runs alone: other tests' nodes would be members of the load balancer.
func TestCertificateOfASecret(t *testing.T) {
	c := newCluster(t)
	c.args = []string{"--leader-elect=false"}
	c.CreateServer(t, "secret-node", zone)
	c.ccm = c.start()
	c.register(c.newNode("secret-node"))
	c.initialized("secret-node")
	pair := func() map[string][]byte {
		certificate, key, err := cert.GenerateSelfSignedCertKey("example.test", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return map[string][]byte{v1.TLSCertKey: certificate, v1.TLSPrivateKeyKey: key}
	}
	secrets, services := client.CoreV1().Secrets("default"), client.CoreV1().Services("default")
	secret, err := secrets.Create(t.Context(), &v1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "web-tls"}, Type: v1.SecretTypeTLS, Data: pair()},
		metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	service := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: map[string]string{
			"service.beta.kubernetes.io/upcloud-load-balancer-mode":       "http",
			"service.beta.kubernetes.io/upcloud-load-balancer-tls-secret": "web-tls"}},
		Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, Ports: []v1.ServicePort{{Name: "https", Port: 443}}}}
	if _, err := services.Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bundle := func() string {
		var all []struct{ UUID, Certificate string }
		c.Do(t, http.MethodGet, "/load-balancer/certificate-bundles", "", &all)
		if len(all) != 1 {
			return ""
		}
		return all[0].Certificate
	}
	c.eventually("the certificate is uploaded", func() string {
		current, err := services.Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if bundle() == "" || len(current.Status.LoadBalancer.Ingress) == 0 ||
			!meta.IsStatusConditionTrue(current.Status.Conditions, "upcloud.com/LoadBalancerReady") {
			return fmt.Sprint("it is not: ", current.Status, current.Annotations)
		}
		return ""
	})
	first := bundle()
	secret.Data = pair()
	if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually("the new certificate is uploaded", func() string {
		if bundle() == first {
			return "it is not"
		}
		return ""
	})
	if err := services.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually("nothing is left in the account", func() string {
		var all []struct{ Name string }
		c.Do(t, http.MethodGet, "/load-balancer", "", &all)
		if len(all) > 0 || bundle() != "" {
			return fmt.Sprint(all, bundle() != "")
		}
		return ""
	})
	if err := secrets.Delete(t.Context(), "web-tls", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}
