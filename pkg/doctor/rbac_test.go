package doctor_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

// role is the one that deploy/kubernetes/doctor gives to the doctor.
func role(t *testing.T) *rbacv1.ClusterRole {
	t.Helper()
	manifest, err := os.ReadFile("../../deploy/kubernetes/doctor/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range strings.Split(string(manifest), "\n---\n") {
		var found rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(document), &found); err != nil {
			t.Fatal(err)
		}
		if found.Kind == "ClusterRole" {
			return &found
		}
	}
	t.Fatal("the manifest has no ClusterRole")
	return nil
}

// mayAsk checks that the role allows every question that was asked of Kubernetes. What tests create and delete is their own.
func mayAsk(t *testing.T, asked []clienttesting.Action) {
	t.Helper()
	rules := role(t).Rules
	for _, action := range asked {
		verb, resource := action.GetVerb(), action.GetResource()
		if verb != "get" && verb != "list" && verb != "watch" {
			continue
		}
		if !slices.ContainsFunc(rules, func(rule rbacv1.PolicyRule) bool {
			return slices.Contains(rule.APIGroups, resource.Group) && slices.Contains(rule.Resources, resource.Resource) &&
				slices.Contains(rule.Verbs, verb)
		}) {
			t.Errorf("the role does not allow to %s %s", verb, resource.GroupResource())
		}
	}
}

// Kubernetes is only read, also with --fix.
func TestTheRoleOnlyReads(t *testing.T) {
	for _, rule := range role(t).Rules {
		for _, verb := range rule.Verbs {
			if verb != "get" && verb != "list" {
				t.Errorf("%v may be used with %s", rule.Resources, verb)
			}
		}
	}
}
