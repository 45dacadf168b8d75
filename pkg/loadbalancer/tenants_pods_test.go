package loadbalancer

import (
	"testing"

	discovery "k8s.io/api/discovery/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Whoever may write Endpoints, which Kubernetes copies into EndpointSlices, leads a load balancer to Pods and to what the policy allows.
func TestEndpointsOfATenantsOwnAreNoMembersBeyondThePolicy(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy *tenants.Config
		want   string
	}{
		{"no policy", nil, "http tcp copied-1:8080,copied-2:8080,hand-1:8080,web-1:8080"},
		{"the safe defaults", &tenants.Config{}, "http tcp web-1:8080"},
		{"a network", &tenants.Config{Default: tenants.Limits{MemberNetworks: []string{"10.99.0.0/16"}}}, "http tcp copied-2:8080,web-1:8080"},
		{"any network", &tenants.Config{Default: tenants.Limits{MemberNetworks: []string{"*"}}}, "http tcp copied-1:8080,copied-2:8080,hand-1:8080,web-1:8080"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			l := a.balancers(podMembers, func(c *Config) {
				if test.policy != nil {
					withTenants(*test.policy)(c)
				}
			})
			a.followPods(l)
			s := a.addService(serviceIn("evil", "web", "http 80 0"))
			ports := map[string]int32{"http": 8080}
			for by, endpoints := range map[string][]string{
				"endpointslice-controller.k8s.io":          {"web-1 10.244.1.5 ready"},
				"endpointslicemirroring-controller.k8s.io": {"copied-1 172.16.0.2 ready", "copied-2 10.99.0.2 ready"},
				"": {"hand-1 169.254.169.254 ready"},
			} {
				made := slice(s, "web-"+by, ports, endpoints...)
				if by != "" {
					made.Labels[discovery.LabelManagedBy] = by
				}
				a.setSlice(made)
			}
			a.ensure(l, s)
			a.wantBackend(test.want)
		})
	}
}
