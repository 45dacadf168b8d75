package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// ports are those that a load balancer listens on, with the number of certificates, and a mark where all is redirected.
func ports(lb cloud.LoadBalancer) string {
	var all []string
	for _, f := range lb.Frontends {
		text := fmt.Sprintf("%d/%d", f.Port, len(f.TLSConfigs))
		if slices.ContainsFunc(f.Rules, func(r cloud.Rule) bool { return strings.Contains(example.Lines(actions(r)...), "http_redirect") }) {
			text += "→"
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func actions(r cloud.Rule) []string {
	var all []string
	for _, one := range r.Actions {
		all = append(all, string(one))
	}
	return all
}

// followSecrets does so until the test ends.
func (a *account) followSecrets(l *LoadBalancers) {
	a.t.Helper()
	shared := informers.NewSharedInformerFactory(a.client, 0)
	lister := shared.Core().V1().Services().Lister()
	ctx, cancel := context.WithCancel(context.Background())
	shared.Start(ctx.Done())
	shared.WaitForCacheSync(ctx.Done())
	_, nodes := a.listers()
	var following sync.WaitGroup
	following.Go(func() { l.FollowSecrets(ctx, a.client.CoreV1(), lister, nodes) })
	a.t.Cleanup(func() {
		cancel()
		following.Wait()
		shared.Shutdown()
	})
}

// A certificate of cert-manager is issued to who answers on port 80 of this very load balancer. So that is made, and published, before the
// Secret is there, and the rest when it comes.
func TestServiceIsServedBeforeItsSecretIsThere(t *testing.T) {
	for name, test := range map[string]struct {
		annotations   []string
		before, after string
	}{
		"of its own": {[]string{"mode", "http", "redirect-to-https", "http=true", "http2", "https=true"}, "80/0", "443/1 80/0→"},
		"shared":     {[]string{"mode", "http", "shared", "create/saas", "redirect-to-https", "http=true", "http2", "https=true"}, "80/0", "443/1 80/0→"},
		"shared by routes": {[]string{"shared", "create/saas", "routes", `[{host: www.example.com, path: /}]`, "redirect-to-https", "http=true"},
			"80/0", "443/1 80/0→"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			l := a.balancers()
			l.secretPause = 20 * time.Millisecond
			s := a.addService(example.Annotated(example.Service("http 80 30080", "https 443 30443"), append(test.annotations, "tls-secret", "https=www")...))
			status := a.ensure(l, s)
			if got := ports(a.only()); len(status.Ingress) == 0 || got != test.before {
				t.Fatalf("status %+v, ports %s, want %s", status, got, test.before)
			}
			said := strings.Join(a.said(), "\n")
			if strings.Count(said, "Secret default/www does not exist yet") != 1 {
				t.Errorf("events: %s", said)
			}
			a.wantCondition(s, metav1.ConditionFalse, ReasonCertificatePending, "Secret default/www does not exist yet")
			a.ResetRequests()
			_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
			var retry *api.RetryError
			if !errors.As(err, &retry) || retry.RetryAfter() != secretRetry || len(a.writes()) > 0 || len(a.said()) > 0 {
				t.Errorf("once more: error %v, writes %v", err, a.writes())
			}
			a.followSecrets(l)
			a.setSecret("www", "www.example.com")
			a.eventually("the Secret's certificate", func() string {
				if got := ports(a.only()); got != test.after {
					return got
				}
				if c := a.ready(s); c.Status != metav1.ConditionTrue {
					return fmt.Sprint(c)
				}
				return ""
			})
			a.unchanged(l, s)
			a.delete(l, s)
			if left := a.bundles(); len(left) > 0 {
				t.Errorf("left in the account: %+v", left)
			}
		})
	}
}

// The certificate that is in effect stays while its Secret is away, and nothing else waits for it.
func TestCertificateStaysWhileItsSecretIsAway(t *testing.T) {
	for _, reference := range []string{"", "create/saas"} {
		a := newAccount(t, simulator.Config{}, "n1")
		l := a.balancers()
		a.setSecret("www", "www.example.com")
		s := example.Annotated(example.Service("http 80 30080", "https 443 30443"), "mode", "http", "tls-secret", "https=www", "redirect-to-https", "http=true")
		if reference != "" {
			example.Annotated(s, "shared", reference)
		}
		s = a.addService(s)
		a.ensure(l, s)
		before := a.only()
		presented := before.Frontends[slices.IndexFunc(before.Frontends, func(f cloud.Frontend) bool { return f.Port == 443 })].TLSConfigs
		if err := a.client.CoreV1().Secrets("default").Delete(t.Context(), "www", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		a.setSecret("shop", "shop.example.com")
		a.change(s, func(s *v1.Service) {
			s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Name: "ssh", Protocol: v1.ProtocolTCP, Port: 22, NodePort: 30022})
			example.Annotated(s, "mode", "http=http; https=http", "tls-secret", "https=www,shop")
		})
		for range 2 {
			if _, text := a.fails(l, s); !strings.Contains(text, "Secret default/www does not exist yet") {
				t.Error(text)
			}
		}
		lb := a.only()
		now := lb.Frontends[slices.IndexFunc(lb.Frontends, func(f cloud.Frontend) bool { return f.Port == 443 })].TLSConfigs
		if got := ports(lb); got != "22/0 443/2 80/0→" || !slices.ContainsFunc(now, func(c cloud.TLSConfig) bool { return c.Name == presented[0].Name }) {
			t.Errorf("%q: ports %s, certificates %v, want those and %v", reference, got, now, presented)
		}
		a.ResetRequests()
		_, _ = a.fails(l, s)
		if got := a.writes(); len(got) > 0 {
			t.Errorf("%q: writes with nothing to do: %v", reference, got)
		}
		renewed := a.setSecret("www", "www.example.com")
		a.ensure(l, s)
		if got := ports(a.only()); got != "22/0 443/2 80/0→" || !a.bundleHas(renewed) || len(a.bundles()) != 2 {
			t.Errorf("%q: ports %s, bundles %d", reference, got, len(a.bundles()))
		}
		a.unchanged(l, s)
	}
}

// A port with one certificate of two is opened with that; one without a certificate is not opened in plain text.
func TestPortIsOpenedWithTheCertificatesThatThereAre(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("www", "www.example.com")
	bad := &v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bad"}, Type: v1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": []byte("x"), "tls.key": []byte("y")}}
	if _, err := a.client.CoreV1().Secrets("default").Create(t.Context(), bad, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s := a.addService(example.Annotated(example.Service("https 443 30443", "other 8443 30444"), "mode", "http", "tls-secret", "https=www,shop; other=bad"))
	a.ensure(l, s)
	if got := ports(a.only()); got != "443/1" {
		t.Errorf("ports %s", got)
	}
	said := strings.Join(a.said(), "\n")
	for _, want := range []string{"Secret default/shop does not exist yet", "InvalidSecret annotation " + settings.AnnotationPrefix + "tls-secret: Secret default/bad"} {
		if strings.Count(said, want) != 1 {
			t.Errorf("events do not have %q once: %s", want, said)
		}
	}
}
