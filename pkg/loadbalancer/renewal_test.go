package loadbalancer

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// bundleHas says whether the account has a certificate bundle with a certificate.
func (a *account) bundleHas(certificate []byte) bool {
	a.t.Helper()
	for _, bundle := range a.bundles() {
		if string(bundle.Certificate) == string(certificate) {
			return true
		}
	}
	return false
}

// A certificate is renewed in its Secret while something else of the Service waits to be corrected.
func TestCertificatesAreRenewedWhileAServiceHasAMistake(t *testing.T) {
	for _, test := range []struct {
		name, reference string // of what is shared
		mistake         func(a *account, s *v1.Service)
	}{
		{"another Secret is gone", "", func(a *account, _ *v1.Service) {
			if err := a.client.CoreV1().Secrets("default").Delete(a.t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
				a.t.Fatal(err)
			}
		}},
		{"an annotation is wrong", "", func(a *account, s *v1.Service) {
			a.change(s, func(s *v1.Service) { example.Annotated(s, "timeout-client", "soon") })
		}},
		{"a UDP port", "", func(a *account, s *v1.Service) {
			a.change(s, func(s *v1.Service) {
				s.Spec.Ports = append(s.Spec.Ports, v1.ServicePort{Name: "dns", Protocol: v1.ProtocolUDP, Port: 53, NodePort: 30053})
			})
		}},
		{"another Secret is gone, on a shared load balancer", "create/saas", func(a *account, _ *v1.Service) {
			if err := a.client.CoreV1().Secrets("default").Delete(a.t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
				a.t.Fatal(err)
			}
		}},
		{"an annotation is wrong, on a shared load balancer", "create/saas", func(a *account, s *v1.Service) {
			a.change(s, func(s *v1.Service) { example.Annotated(s, "timeout-client", "soon") })
		}},
	} {
		for _, watched := range []bool{false, true} {
			a := newAccount(t, simulator.Config{}, "n1")
			l := a.balancers()
			a.setSecret("www", "www.example.com")
			a.setSecret("shop", "shop.example.com")
			s := example.Annotated(example.Service("https 443 30443"), "mode", "http", "tls-secret", "www,shop")
			if test.reference != "" {
				example.Annotated(s, "shared", test.reference)
			}
			s = a.addService(s)
			a.ensure(l, s)
			test.mistake(a, s)
			renewed := a.setSecret("www", "www.example.com")
			_, nodes := a.listers()
			refuse := func() {
				if _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err == nil {
					t.Errorf("%s: not refused", test.name)
				}
			}
			if watched {
				if err := l.renew(t.Context(), a.current(s), nodes); err != nil && !strings.Contains(err.Error(), "shop") {
					t.Error(err)
				}
			} else {
				refuse()
			}
			if !a.bundleHas(renewed) {
				t.Errorf("%s, watched %v: the certificate is not the Secret's", test.name, watched)
			}
			a.ResetRequests()
			refuse()
			if got := a.writes(); len(got) > 0 {
				t.Errorf("%s, watched %v: writes with nothing to do: %v", test.name, watched, got)
			}
		}
	}
}
