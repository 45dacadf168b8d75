package manifests

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// No program may list or watch Secrets, which would send it all of them; nor write them.
func TestSecretsAreReadByName(t *testing.T) {
	found := 0
	err := filepath.WalkDir(deploy, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) { // of a kustomization's patch
			if strings.Contains(line, "resources: [secrets]") && strings.Contains(line, "verbs") && !strings.Contains(line, "verbs: [get]") {
				t.Errorf("%s: %s", path, line)
			}
		}
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
		for {
			var role rbacv1.ClusterRole
			if err := decoder.Decode(&role); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil && (role.Kind == "ClusterRole" || role.Kind == "Role") {
				return err
			} else if err != nil { // another kind
				continue
			}
			for _, rule := range role.Rules {
				if !slices.Contains(rule.Resources, "secrets") && !slices.Contains(rule.Resources, "*") {
					continue
				}
				found++
				if !slices.Equal(rule.Verbs, []string{"get"}) {
					t.Errorf("%s: %s %s grants %v of %v", path, role.Kind, role.Name, rule.Verbs, rule.Resources)
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no role for Secrets is found")
	}
}
