package manifests

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/google/cel-go/cel"
	admissionregistration "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// The policy that confines the node plugin to its own Node follows the plugin into whatever namespace it is installed in, for kustomize
// and Helm move the plugin and know nothing of expressions.
func TestThePolicyOfTheNodePluginFollowsItsNamespace(t *testing.T) {
	condition := nodePolicy(t).Spec.MatchConditions[0].Expression
	environment, err := cel.NewEnv(cel.Variable("request", cel.DynType))
	if err != nil {
		t.Fatal(err)
	}
	parsed, issues := environment.Compile(condition)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	program, err := environment.Program(parsed)
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]bool{
		"system:serviceaccount:kube-system:upcloud-csi-node":           true,
		"system:serviceaccount:storage:upcloud-csi-node":               true,
		"system:serviceaccount:kube-system:upcloud-csi-controller":     false,
		"system:serviceaccount:kube-system:another-upcloud-csi-node":   false,
		"system:serviceaccount:kube-system:upcloud-csi-node-of-others": false,
		"system:node:upcloud-csi-node":                                 false,
		"system:node:worker-1":                                         false,
	} {
		got, _, err := program.Eval(map[string]any{"request": map[string]any{"userInfo": map[string]any{"username": user}}})
		if err != nil || got.Value() != want {
			t.Errorf("%s is confined: %v, %v", user, got, err)
		}
	}
}

func nodePolicy(t *testing.T) (policy admissionregistration.ValidatingAdmissionPolicy) {
	t.Helper()
	text, err := os.ReadFile(deploy + "/base/csi-driver/node-rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		policy = admissionregistration.ValidatingAdmissionPolicy{}
		if err := decoder.Decode(&policy); errors.Is(err, io.EOF) {
			t.Fatal("node-rbac.yaml has no policy")
		} else if policy.Kind == "ValidatingAdmissionPolicy" {
			return policy
		}
	}
}
