package loadbalancer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// newCertificate is a certificate for a host, and its key, in PEM.
func newCertificate(t testing.TB, host string) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// setSecret writes a new certificate for a host into a Secret.
func (a *account) setSecret(name, host string) (certificate []byte) {
	a.t.Helper()
	certificate, key := newCertificate(a.t, host)
	authority, _ := newCertificate(a.t, "authority")
	secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, ResourceVersion: time.Now().String()},
		Type: v1.SecretTypeTLS, Data: map[string][]byte{v1.TLSCertKey: append(certificate, authority...), v1.TLSPrivateKeyKey: key}}
	secrets := a.client.CoreV1().Secrets("default")
	if _, err := secrets.Update(a.t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		if _, err := secrets.Create(a.t.Context(), secret, metav1.CreateOptions{}); err != nil {
			a.t.Fatal(err)
		}
	}
	return certificate
}

// bundles returns the account's certificate bundles.
func (a *account) bundles() []cloud.CertificateBundle {
	a.t.Helper()
	all, err := a.cloud.CertificateBundles(a.t.Context(), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return all
}

func (a *account) bundle() cloud.CertificateBundle {
	a.t.Helper()
	all := a.bundles()
	if len(all) != 1 {
		a.t.Fatalf("%d certificate bundles, want 1: %+v", len(all), all)
	}
	return all[0]
}

// change changes a Service as its user does.
func (a *account) change(s *v1.Service, change func(*v1.Service)) *v1.Service {
	a.t.Helper()
	current := a.current(s)
	if current.Annotations == nil {
		current.Annotations = map[string]string{}
	}
	change(current)
	updated, err := a.client.CoreV1().Services(s.Namespace).Update(a.t.Context(), current, metav1.UpdateOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	return updated
}

// unchanged ensures that a reconcile finds nothing to do, in one call and without a word.
func (a *account) unchanged(l *LoadBalancers, s *v1.Service) {
	a.t.Helper()
	a.said()
	a.ResetRequests()
	a.ensure(l, s)
	if requests := a.Requests(); requests.Total() != 1 {
		a.t.Errorf("requests of an unchanged Service: %v", requests)
	}
	if said := a.said(); len(said) > 0 {
		a.t.Errorf("events of an unchanged Service: %q", said)
	}
}

func tlsNames(lb cloud.LoadBalancer, frontend string) string {
	var names []string
	for _, f := range lb.Frontends {
		for _, config := range f.TLSConfigs {
			if f.Name == frontend {
				names = append(names, config.Name)
			}
		}
	}
	return strings.Join(names, ",")
}

func TestCertificateFromASecret(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("www", "www.example.com")
	s := a.addService(example.Annotated(example.Service("http 80 30080", "https 443 30443"), "tls-secret", "https=www", "mode", "http"))
	a.ensure(l, s)
	first, names := a.bundle(), tlsNames(a.only(), "https")
	if first.Type != cloud.BundleManual || first.Labels[settings.LabelServiceUID] != "uid-1" || first.Hostnames[0] != "www.example.com" {
		t.Errorf("bundle: %+v", first)
	}
	if len(first.Intermediates) == 0 || strings.Count(string(first.Certificate), "BEGIN") != 1 {
		t.Errorf("the chain was not taken apart: %s%s", first.Certificate, first.Intermediates)
	}
	if !strings.HasPrefix(names, "www-") || tlsNames(a.only(), "http") != "" {
		t.Errorf("certificates of https: %s, of http: %s", names, tlsNames(a.only(), "http"))
	}
	a.unchanged(l, s)

	rotated := a.setSecret("www", "www.example.com")
	a.ensure(l, s)
	second := a.bundle()
	if second.ID != first.ID || string(second.Certificate) != string(rotated) {
		t.Errorf("after the rotation: bundle %s, before %s", second.ID, first.ID)
	}
	if now := tlsNames(a.only(), "https"); now == names || strings.Contains(now, ",") {
		t.Errorf("certificates of https: %s, before %s", now, names)
	}
	a.unchanged(l, s)

	a.setSecret("api", "api.example.com")
	a.change(s, func(s *v1.Service) { s.Annotations[settings.AnnotationPrefix+"tls-secret"] = "https=api" })
	a.ensure(l, s)
	if got := a.bundle(); got.Hostnames[0] != "api.example.com" {
		t.Errorf("bundle: %+v", got)
	}
	a.change(s, func(s *v1.Service) {
		delete(s.Annotations, settings.AnnotationPrefix+"tls-secret")
		s.Annotations[settings.AnnotationPrefix+"mode"] = "http=http"
	})
	a.ensure(l, s)
	if left := a.bundles(); len(left) > 0 || tlsNames(a.only(), "https") != "" {
		t.Errorf("bundles nobody uses: %+v, certificates %s", left, tlsNames(a.only(), "https"))
	}
	a.unchanged(l, s)
}

func TestCertificatesGoWithTheService(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("www", "www.example.com")
	s := a.addService(example.Annotated(example.Service("https 443 30443"), "tls-secret", "www", "tls-hostnames", "a.example.com"))
	a.ensure(l, s)
	if n := len(a.bundles()); n != 2 {
		t.Fatalf("%d bundles", n)
	}
	// Somebody deletes the load balancer by hand: the Service must not go before its certificates.
	a.Do(t, http.MethodDelete, "/load-balancer/"+a.only().ID, "", nil)
	for deadline := time.Now().Add(time.Minute); len(a.list()) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the load balancer does not go")
		}
	}
	if _, exists, err := l.GetLoadBalancer(t.Context(), "prod", a.current(s)); !exists || err != nil {
		t.Errorf("GetLoadBalancer = %v, %v while certificates are left", exists, err)
	}
	a.delete(l, s)
	if left := a.bundles(); len(left) > 0 {
		t.Errorf("left in the account: %+v", left)
	}
	if _, exists, err := l.GetLoadBalancer(t.Context(), "prod", a.current(s)); exists || err != nil {
		t.Errorf("GetLoadBalancer = %v, %v", exists, err)
	}
}

func TestSecretThatIsMissingOrWrong(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("https 443 30443"))
	a.ensure(l, s)
	before := example.JSON(t, a.only())
	a.change(s, func(s *v1.Service) { example.Annotated(s, "tls-secret", "www") })
	certificate, _ := newCertificate(t, "www.example.com")
	_, key := newCertificate(t, "www.example.com")
	for _, test := range []struct {
		data map[string][]byte
		want string
	}{
		{nil, "Secret default/www does not exist"},
		{map[string][]byte{"tls.crt": certificate}, "lacks tls.crt or tls.key"},
		{map[string][]byte{"tls.crt": certificate, "tls.key": key}, "no pair"},
		{map[string][]byte{"tls.crt": []byte("x"), "tls.key": []byte("y")}, "no pair"},
	} {
		if test.data != nil {
			secret := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "www"}, Type: v1.SecretTypeTLS, Data: test.data}
			_ = a.client.CoreV1().Secrets("default").Delete(t.Context(), "www", metav1.DeleteOptions{})
			if _, err := a.client.CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		a.said()
		for range 2 {
			a.ResetRequests()
			if _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
		}
		if calls := a.Requests(); calls.Total() > 1 { // as with every reconcile that has nothing to do
			t.Errorf("a retry takes %v", calls)
		}
		if said := a.said(); len(said) != 1 || !strings.Contains(said[0], test.want) || strings.Contains(said[0], "PRIVATE") {
			t.Errorf("events: %q", said)
		}
	}
	if after := example.JSON(t, a.only()); after != before {
		t.Errorf("the load balancer was changed: %s", after)
	}
}

// A Secret that changes reaches the load balancer though nothing changes of the Service.
func TestFollowSecrets(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	l.secretPause = 20 * time.Millisecond
	shared := informers.NewSharedInformerFactory(a.client, 0)
	lister := shared.Core().V1().Services().Lister()
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	shared.Start(ctx.Done())
	_, nodes := a.listers()
	following.Go(func() { l.FollowSecrets(ctx, a.client.CoreV1(), lister, nodes) })
	t.Cleanup(func() {
		cancel()
		following.Wait()
		shared.Shutdown()
	})
	a.setSecret("www", "www.example.com")
	a.setSecret("other", "other.example.com")
	s := a.addService(example.Annotated(example.Service("https 443 30443"), "tls-secret", "www"))
	a.ensure(l, s)
	// The controller learns of Services from the same lister, so that this one is in it by now.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if known, err := lister.Services(s.Namespace).Get(s.Name); err == nil && len(known.Status.LoadBalancer.Ingress) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lister does not show the Service")
		}
	}
	for range 2 {
		rotated := a.setSecret("www", "www.example.com")
		for deadline := time.Now().Add(time.Minute); string(a.bundle().Certificate) != string(rotated); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the certificate is not the Secret's")
			}
		}
	}
	if got := summary(a.only()); !strings.Contains(got, "backend https tcp n1:30443") {
		t.Errorf("members: %s", got)
	}
}

func TestManagedCertificate(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Annotated(example.Service("https 443 30443"), "tls-hostnames", "www.example.com,*.example.com"))
	a.ensure(l, s)
	bundle, said := a.bundle(), strings.Join(a.said(), "\n")
	if bundle.Type != cloud.BundleDynamic || strings.Join(bundle.Hostnames, ",") != "*.example.com,www.example.com" || bundle.KeyType != "ecdsa" {
		t.Errorf("bundle: %+v", bundle)
	}
	for _, want := range []string{"CertificateRequested", "www.example.com", "CNAME", "_acme-challenge", ".upcloudlb.com"} {
		if !strings.Contains(said, want) {
			t.Errorf("events lack %s: %s", want, said)
		}
	}
	a.unchanged(l, s)
	a.change(s, func(s *v1.Service) { example.Annotated(s, "tls-hostnames", "shop.example.com", "tls-key-type", "rsa") })
	a.ensure(l, s)
	if bundle := a.bundle(); bundle.Hostnames[0] != "shop.example.com" || bundle.KeyType != "rsa" {
		t.Errorf("bundle: %+v", bundle)
	}
	a.delete(l, s)
	if left := a.bundles(); len(left) > 0 {
		t.Errorf("left in the account: %+v", left)
	}
}

// As with UpCloud's own CCM: a certificate for the load balancer's own name, which is known only once it is there.
func TestCertificateForTheOwnName(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Annotated(example.Service("http 80 30080", "https 443 30443"), "config",
		`{"frontends":[{"name":"http"},{"name":"https","mode":"http","tls_configs":[{"name":"needs-certificate"}]}]}`))
	a.ensure(l, s)
	a.ensure(l, s)
	bundle, lb := a.bundle(), a.only()
	if bundle.Name != "prod-default-web-tls" || len(bundle.Hostnames) != 1 || bundle.Hostnames[0] != lb.Networks[0].DNSName {
		t.Errorf("bundle %s for %s, the load balancer is %s", bundle.Name, bundle.Hostnames, lb.Networks[0].DNSName)
	}
	if got := tlsNames(lb, "https"); got != bundle.Name {
		t.Errorf("certificates of https: %s", got)
	}
	a.unchanged(l, s)
	a.delete(l, s)
	if left := a.bundles(); len(left) > 0 {
		t.Errorf("left in the account: %+v", left)
	}
}

// A certificate that is still to be issued takes nobody's away.
func TestAManagedCertificateTakesOverWhenItIsIssued(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("www", "www.example.com")
	s := a.addService(example.Annotated(example.Service("https 443 30443"), "tls-secret", "www"))
	a.ensure(l, s)
	former := tlsNames(a.only(), "https")
	a.change(s, func(s *v1.Service) {
		delete(s.Annotations, settings.AnnotationPrefix+"tls-secret")
		example.Annotated(s, "tls-hostnames", "www.example.com")
	})
	for range 2 {
		_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
		var retry *api.RetryError
		if !errors.As(err, &retry) || retry.RetryAfter() != certificateRetry || !strings.Contains(err.Error(), "https") {
			t.Fatalf("error %v while the certificate is not issued", err)
		}
		if got := tlsNames(a.only(), "https"); !strings.HasPrefix(got, former+",") || len(a.bundles()) != 2 {
			t.Errorf("certificates: %s, bundles: %d", got, len(a.bundles()))
		}
	}
	a.SetDNS("www.example.com", dnsName(new(a.only())))
	for deadline := time.Now().Add(time.Minute); ; {
		_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if got := tlsNames(a.only(), "https"); strings.Contains(got, former) || strings.Contains(got, ",") || a.bundle().Type != cloud.BundleDynamic {
		t.Errorf("certificates: %s", got)
	}
	a.unchanged(l, s)
}
