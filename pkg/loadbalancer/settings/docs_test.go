package settings

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
)

var update = flag.Bool("update", false, "write the files that are made from the table instead of comparing")

// The reference page has every annotation, as the table has it. go test ./pkg/loadbalancer/settings -run Reference -update writes it.
func TestReferencePageIsCurrent(t *testing.T) {
	const path = "../../../docs/load-balancers.md"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for name, table := range map[string][]Setting{
		"loadBalancerTable": loadBalancerTable, "frontendTable": frontendTable, "backendTable": backendTable, "sharedTable": sharedTable,
	} {
		section := regexp.MustCompile(`(?s)<!-- ` + name + ` -->\n(\n\|.*?\n\n|\n)`)
		if !section.MatchString(want) {
			t.Fatalf("%s has no section %s", path, name)
		}
		want = section.ReplaceAllLiteralString(want, "<!-- "+name+" -->\n\n"+referenceOf(table)+"\n")
	}
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("not current: %s", diff)
	}
}

func referenceOf(table []Setting) string {
	var out strings.Builder
	out.WriteString("| annotation | value | default | example | |\n|---|---|---|---|---|\n")
	for _, s := range table {
		fmt.Fprintf(&out, "| `-%s` | %s | %s | `%s` | %s Maps to: %s. |\n", s.Name, escaped(s.Values), s.Default, s.Example, s.About, code(s.MapsTo))
	}
	return out.String()
}

func escaped(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// code puts the API's fields in code style.
func code(text string) string {
	return regexp.MustCompile(`[a-z_]+(\[\])?(\.[a-zA-Z_0-9]+(\[\])?)+`).ReplaceAllStringFunc(text, func(field string) string { return "`" + field + "`" })
}

// What the table says of itself is true.
func TestTableIsTrue(t *testing.T) {
	names := map[string]bool{}
	for _, setting := range Table {
		if names[setting.Name] {
			t.Errorf("%s is there twice", setting.Name)
		}
		names[setting.Name] = true
		if setting.Default == "" || setting.Example == "" || setting.MapsTo == "" || !strings.HasSuffix(strings.TrimSuffix(setting.About, ")"), ".") {
			t.Errorf("%s is not described: %+v", setting.Name, setting)
		}
		if len("upcloud-load-balancer-"+setting.Name) > 63 {
			t.Errorf("%s is too long for an annotation", setting.Name)
		}
		s := example.Service("http 80 30080", "https 443 30443", "ssh 22 30022")
		if err := setting.apply(setting.Example, s, &Settings{Ports: emptyPorts(3)}); err != nil {
			t.Errorf("the example of %s: %v", setting.Name, err)
		}
		if err := setting.apply("no such thing: \x00", s, &Settings{Ports: emptyPorts(3)}); err == nil || !strings.Contains(err.Error(), setting.allowed) {
			t.Errorf("%s refuses nonsense with %v", setting.Name, err)
		}
	}
}

func emptyPorts(n int) []PortSettings {
	ports := make([]PortSettings, n)
	for i := range ports {
		ports[i].Frontend, ports[i].Backend = map[string]any{}, map[string]any{}
	}
	return ports
}

// The Services to copy are without mistakes.
func TestExamplesAreWithoutMistakes(t *testing.T) {
	text, err := os.ReadFile("../../../examples/loadbalancer.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := strings.Split(string(text), "\n---\n")
	for _, document := range documents {
		s := &v1.Service{}
		if err := yaml.UnmarshalStrict([]byte(document), s); err != nil {
			t.Fatal(err)
		}
		for i := range s.Spec.Ports { // as the API server fills them in
			s.Spec.Ports[i].NodePort = int32(30000 + i)
		}
		if s.Spec.ExternalTrafficPolicy == v1.ServiceExternalTrafficPolicyLocal {
			s.Spec.HealthCheckNodePort = 32000
		}
		_, problems := Parse(s)
		if problems = append(problems, Problems(s)...); len(problems) > 0 || len(s.Annotations) == 0 {
			t.Errorf("%s: %v", s.Name, problems)
		}
	}
}
