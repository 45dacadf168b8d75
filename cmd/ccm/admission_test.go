package main

import (
	"bytes"
	"strings"
	"testing"

	admission "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"
)

func TestAdmissionPolicyIsPrintedFromTheConfigurationFile(t *testing.T) {
	clearEnvironment(t)
	path := writeFile(t, "data: {loadBalancerPlan: production-small, tenants: {namespaces: [{names: [team-a], plans: [production-large]}]}}")
	command := newCommand(nil)
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetArgs([]string{"admission-policy", "--cloud-config", path})
	if err := command.Execute(); err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(out.String(), "---\n")
	var policy admission.ValidatingAdmissionPolicy
	var binding admission.ValidatingAdmissionPolicyBinding
	if err := yaml.UnmarshalStrict([]byte(first), &policy); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict([]byte(second), &binding); err != nil {
		t.Fatal(err)
	}
	if len(policy.Spec.Validations) < 8 || binding.Spec.PolicyName != policy.Name || !strings.Contains(first, "production-large") {
		t.Errorf("printed: %s", out.String())
	}
	for text, want := range map[string]string{
		"data: {clusterName: x}":                      "has no data.tenants; set it to {} for the safe defaults",
		"data: {tenants: {default: {plans: [X Y]}}}":  `invalid default.plans[0] "X Y"`,
		"data: {tenants: {}, sharedLoadBalancer: []}": `unknown field "sharedLoadBalancer"`,
	} {
		if _, err := admissionPolicy(writeFile(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}
