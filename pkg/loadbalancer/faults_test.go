package loadbalancer

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Law: whatever call fails, whether or not it had its effect, the retry converges, and nothing is made twice or left: certificates,
// rules, addresses and labels, too.
func TestEveryCallMayFailWithEveryKindOfComponent(t *testing.T) {
	for _, fault := range []simulator.Fault{{Status: 500}, {Drop: true, AfterEffect: true}} {
		for skip := range 30 {
			fault.Skip, fault.Count = skip, 1
			t.Run(fmt.Sprintf("drop %v, call %d", fault.Drop, skip), func(t *testing.T) {
				t.Parallel()
				a := newAccount(t, simulator.Config{}, "n1")
				address := a.floatingAddress()
				a.setSecret("www", "www.example.com")
				a.setSecret("api", "api.example.com")
				s := a.addService(example.Annotated(example.Service("http 80 30080", "https 443 30443"), "mode", "http", "tls-secret", "https=www",
					"redirect-to-https", "http=true", "labels", "env=prod", "floating-ips", address))
				a.Inject(fault)
				l := a.balancers()
				eventually := func(do func() error) {
					t.Helper()
					var err error
					for range 200 {
						if err = do(); err == nil {
							return
						}
					}
					t.Fatal(err)
				}
				ensure := func() error {
					_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
					return err
				}
				eventually(ensure)
				a.SetDNS("a.example.com", dnsName(new(a.only())))
				a.change(s, func(s *v1.Service) {
					s.Spec.LoadBalancerSourceRanges = []string{"10.0.0.0/8"}
					example.Annotated(s, "tls-secret", "https=api", "tls-hostnames", "https=a.example.com", "labels", "team=web", "forwarded-headers", "true",
						"plan", "production-small", "http2", "https=true")
					delete(s.Annotations, settings.AnnotationPrefix+"floating-ips")
				})
				eventually(ensure)
				eventually(ensure)
				lb := a.only()
				if n := len(a.bundles()); n != 2 || lb.Plan != "production-small" || lb.Labels["team"] != "web" || lb.Labels["env"] != "" || len(lb.Addresses) > 0 {
					t.Errorf("%d bundles, plan %s, labels %v, addresses %v", n, lb.Plan, lb.Labels, lb.Addresses)
				}
				var rules []string
				for _, f := range lb.Frontends {
					for _, rule := range f.Rules {
						rules = append(rules, f.Name+" "+rule.Name)
					}
				}
				want := []string{"http 0-ccm-source-ranges", "http ccm-forwarded-headers", "http ccm-redirect-https", "https 0-ccm-source-ranges",
					"https ccm-forwarded-headers"}
				less := cmp.Transformer("set", func(all []string) map[string]bool {
					set := map[string]bool{}
					for _, one := range all {
						set[one] = true
					}
					return set
				})
				if diff := cmp.Diff(want, rules, less); diff != "" || len(rules) != len(want) {
					t.Errorf("rules: %s", diff)
				}
				a.unchanged(l, s)
				eventually(func() error { return l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s)) })
				if left := len(a.list()) + len(a.bundles()); left > 0 {
					t.Errorf("%d things are left in the account", left)
				}
				a.Do(t, http.MethodGet, "/ip_address/"+address, "", nil)
			})
		}
	}
}
