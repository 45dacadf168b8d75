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

// rights are the rules that a folder of deploy/kubernetes gives to the doctor.
func rights(t *testing.T, folder string) (rules []rbacv1.PolicyRule) {
	t.Helper()
	manifest, err := os.ReadFile("../../deploy/kubernetes/" + folder + "/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range strings.Split(string(manifest), "\n---\n") {
		var found rbacv1.ClusterRole
		if err := yaml.Unmarshal([]byte(document), &found); err != nil {
			t.Fatal(err)
		}
		if found.Kind == "ClusterRole" || found.Kind == "Role" {
			rules = append(rules, found.Rules...)
		}
	}
	if len(rules) == 0 {
		t.Fatal("the manifest has no role")
	}
	return rules
}

// mayAsk checks that the role allows every question that was asked of Kubernetes. What tests create and delete is their own.
func mayAsk(t *testing.T, asked []clienttesting.Action) {
	t.Helper()
	rules := slices.Concat(rights(t, "doctor"), rights(t, "doctor-fix"))
	for _, action := range asked {
		verb, resource := action.GetVerb(), action.GetResource()
		if verb != "get" && verb != "list" && verb != "watch" && resource.Resource != "configmaps" {
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

// Kubernetes is only read, but for the record, which --fix writes.
func TestTheRolesOnlyReadAndWriteTheRecord(t *testing.T) {
	for _, rule := range rights(t, "doctor") {
		for _, verb := range rule.Verbs {
			if verb != "get" && verb != "list" {
				t.Errorf("%v may be used with %s", rule.Resources, verb)
			}
		}
	}
	for _, rule := range rights(t, "doctor-fix") {
		if !slices.Equal(rule.Resources, []string{"configmaps"}) {
			t.Errorf("%v may be used with %v", rule.Resources, rule.Verbs)
		}
	}
}
