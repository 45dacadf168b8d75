package settings

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
)

const tenantsConfig = `
default: {maxFrontends: 2}
namespaces:
  - names: [team-a]
    plans: [production-small]
    floatingIPs: [94.237.0.1]
    certificateBundles: [0aded5c1-c7a3-498a-b9c8-a871611c47a2]
    networks: [03a5b0c2-1d3e-4f56-8a9b-0c1d2e3f4a5b]
    hosts: [a.example, "*.a.example"]
    sharedLoadBalancers: ["create/a-*"]
    retain: true
  - selector: {matchLabels: {tier: gold}, matchExpressions: [{key: env, operator: In, values: [prod, test]}, {key: old, operator: DoesNotExist}]}
    plans: ["*"]
    zones: [fi-hel2]
    deletionProtection: true
    adopt: true
`

// The policy for tenants says at apply what the controller says, in one sentence: the namespace, what it asked for, what is allowed, and who
// can change that.
func TestAdmissionPolicyOfTenants(t *testing.T) {
	var config tenants.Config
	if err := yaml.UnmarshalStrict([]byte(tenantsConfig), &config); err != nil {
		t.Fatal(err)
	}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	policy, _ := tenants.AdmissionPolicy(&config, "development", AnnotationPrefix, []tenants.Grant{
		{LoadBalancer: "edge", Namespaces: []string{"team-c"}}, {LoadBalancer: "create/all"}, {LoadBalancer: "create/c", Namespaces: []string{"team-d"}},
	})
	gold := map[string]string{"tier": "gold", "env": "prod"}
	const end = "; the cluster's operator can change data.tenants in the CCM's configuration"
	for _, test := range []struct {
		namespace string
		labels    map[string]string
		pairs     []string
		want      string // empty: admitted
	}{
		{"x", nil, nil, ""},
		{"x", nil, []string{"plan", "development"}, ""},
		{"x", nil, []string{"plan", " production-small"}, "namespace x asks for plan production-small, allowed is development" + end},
		{"team-a", nil, []string{"plan", "production-small"}, ""},
		{"team-a", nil, []string{"adopt", "0aded5c1-c7a3-498a-b9c8-a871611c47a2"}, "asks for load balancer 0aded5c1-c7a3-498a-b9c8-a871611c47a2 as its own " +
			"(annotation adopt), allowed is none" + end},
		{"x", gold, []string{"adopt", "0aded5c1-c7a3-498a-b9c8-a871611c47a2"}, ""},
		{"team-a", nil, []string{"plan", "production-large"}, "asks for plan production-large, allowed is development, production-small;"},
		{"x", gold, []string{"plan", "production-large", "deletion-protection", "true"}, ""},
		{"x", map[string]string{"tier": "gold", "env": "dev"}, []string{"plan", "production-large"}, "asks for plan"},
		{"x", map[string]string{"tier": "gold", "env": "prod", "old": ""}, []string{"plan", "production-large"}, "asks for plan"},
		{"x", map[string]string{"env": "prod"}, []string{"plan", "production-large"}, "asks for plan"},
		{"x", gold, []string{"zone", "fi-hel2"}, ""},
		{"x", gold, []string{"zone", "fi-hel1"}, "asks for zone fi-hel1, allowed is fi-hel2;"},
		{"team-a", nil, []string{"floating-ips", "94.237.0.1"}, ""},
		{"team-a", nil, []string{"floating-ips", "94.237.0.1, 94.237.0.2"}, "floating IP address 94.237.0.2, allowed is 94.237.0.1;"},
		{"team-a", nil, []string{"tls-bundle", "http=0ADED5C1-C7A3-498A-B9C8-A871611C47A2"}, ""},
		{"x", nil, []string{"tls-bundle", "http=0ADED5C1-C7A3-498A-B9C8-A871611C47A2"}, "certificate bundle 0aded5c1-c7a3-498a-b9c8-a871611c47a2, allowed is none;"},
		{"x", nil, []string{"backend-tls-bundle", "0aded5c1-c7a3-498a-b9c8-a871611c47a2"}, "certificate bundle"},
		{"team-a", nil, []string{"private-networks", "03A5B0C2-1d3e-4f56-8a9b-0c1d2e3f4a5b"}, ""},
		{"x", nil, []string{"private-networks", "03a5b0c2-1d3e-4f56-8a9b-0c1d2e3f4a5b"}, "private network"},
		{"team-a", nil, []string{"tls-hostnames", "http=a.example, www.a.example; *=x.a.example"}, ""},
		{"team-a", nil, []string{"tls-hostnames", "http=a.example; *=b.example"}, "asks for certificates for hosts http=a.example; *=b.example, allowed is a.example, *.a.example;"},
		{"x", nil, []string{"tls-hostnames", "a.example"}, "allowed is none;"},
		{"team-a", nil, []string{"shared", "create/a-1"}, ""},
		{"team-a", nil, []string{"shared", "create/b"}, "shared load balancer create/b, allowed is create/a-*;"},
		{"team-a", nil, []string{"shared", "edge"}, "shared load balancer edge"},
		{"team-c", nil, []string{"shared", "edge"}, ""},
		{"team-c", nil, []string{"shared", "create/all"}, "shared load balancer create/all"},
		{"team-d", nil, []string{"shared", "create/c"}, ""},
		{"team-a", nil, []string{"retain", "true"}, ""},
		{"x", nil, []string{"retain", "true"}, "asks for annotation retain true, allowed is false;"},
		{"x", nil, []string{"retain", "false"}, ""},
		{"team-a", nil, []string{"deletion-protection", "true"}, "asks for annotation deletion-protection true"},
	} {
		admit := admitBy(t, policy, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: test.namespace, Labels: test.labels}})
		s := example.Annotated(example.Service("http 80 30080"), test.pairs...)
		s.Namespace = test.namespace
		refused := admit(nil, s)
		if text := strings.Join(refused, "\n"); (text == "") != (test.want == "") || !strings.Contains(text, test.want) || len(refused) > 1 {
			t.Errorf("%s %v %q: %q, want %q", test.namespace, test.labels, test.pairs, text, test.want)
		}
	}
	admit := admitBy(t, policy, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}})
	if refused := admit(nil, example.Service("a 1 30001", "b 2 30002", "c 3 30003")); len(refused) != 1 ||
		!strings.Contains(refused[0], "namespace x asks for 3 ports, allowed is 2 for each Service;") {
		t.Errorf("ports: %q", refused)
	}
	ip := example.Service("http 80 30080")
	ip.Spec.LoadBalancerIP = "94.237.0.9"
	if refused := admit(nil, ip); len(refused) != 1 || !strings.Contains(refused[0], "floating IP address 94.237.0.9") {
		t.Errorf("loadBalancerIP: %q", refused)
	}
}
