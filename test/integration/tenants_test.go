package integration

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
)

// The admission policy of a policy for tenants, on a real API server: namespaces by name and by label get what their entries allow, all
// others the safe defaults, and the refusal is the one sentence that the controller says too.
func TestPolicyForTenantsAtApply(t *testing.T) {
	needsPlane(t)
	t.Parallel()
	const gold, silver, named = "tenants-gold", "tenants-silver", "tenants-named"
	for name, tier := range map[string]string{gold: "gold", silver: "silver", named: ""} {
		namespace := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tenants-tier": tier}}}
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	config := tenants.Config{
		Default: tenants.Limits{},
		Namespaces: []tenants.Entry{
			{Names: []string{named}, Limits: tenants.Limits{FloatingIPs: []string{"94.237.0.1"}}},
			{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"tenants-tier": "gold"}}, Limits: tenants.Limits{Plans: []string{tenants.Any}}},
		},
	}
	policy, binding := tenants.AdmissionPolicy(&config, "development", settings.AnnotationPrefix, nil)
	// The tests share the API server: this policy is for the namespaces of this one.
	policy.Spec.MatchConstraints.NamespaceSelector = &metav1.LabelSelector{
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tenants-tier", Operator: metav1.LabelSelectorOpExists}},
	}
	policies := client.AdmissionregistrationV1()
	if _, err := policies.ValidatingAdmissionPolicies().Create(t.Context(), &policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := policies.ValidatingAdmissionPolicyBindings().Create(t.Context(), &binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	apply := func(namespace string, annotations ...string) string {
		s := annotatedService("web", annotations...)
		s.Namespace = namespace
		if _, err := client.CoreV1().Services(namespace).Create(t.Context(), s, dryRun); err != nil {
			return err.Error()
		}
		return ""
	}
	until(t, "the policy is in force", func() string {
		if apply(silver, "plan", "production-small") == "" {
			return "a plan that is not allowed is admitted"
		}
		return ""
	})
	for _, test := range []struct {
		namespace   string
		annotations []string
		want        string
	}{
		{silver, nil, ""},
		{silver, []string{"plan", "production-small"}, "namespace tenants-silver asks for plan production-small, allowed is development; " +
			"the cluster's operator can change data.tenants in the CCM's configuration"},
		{gold, []string{"plan", "production-small"}, ""},
		{gold, []string{"floating-ips", "94.237.0.1"}, "asks for floating IP address 94.237.0.1, allowed is none;"},
		{named, []string{"floating-ips", "94.237.0.1"}, ""},
		{named, []string{"tls-hostnames", "https=www.example.com"}, "asks for certificates for hosts https=www.example.com, allowed is none;"},
		{named, []string{"tls-bundle", "https=0aded5c1-c7a3-498a-b9c8-a871611c47a2"}, "asks for certificate bundle 0aded5c1-c7a3-498a-b9c8-a871611c47a2"},
		{named, []string{"shared", "create/web"}, "asks for shared load balancer create/web, allowed is none;"},
		{named, []string{"retain", "true"}, "asks for annotation retain true, allowed is false;"},
		{"default", []string{"retain", "true"}, ""},
	} {
		if got := apply(test.namespace, test.annotations...); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s %q: %q, want %q", test.namespace, test.annotations, got, test.want)
		}
	}
}
