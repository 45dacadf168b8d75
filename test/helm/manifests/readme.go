package manifests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/helm/chart"
)

const (
	valuesBegin = "<!-- values: made from the comments of values.yaml by make manifests -->\n"
	valuesEnd   = "<!-- end of values -->\n"
)

// Readme is the chart's README.md with the table of the values, which is made from the comments of values.yaml.
func Readme(project string) (string, error) {
	text, err := os.ReadFile(filepath.Join(chart.Dir(project), "README.md"))
	if err != nil {
		return "", err
	}
	before, rest, found := strings.Cut(string(text), valuesBegin)
	_, after, ended := strings.Cut(rest, valuesEnd)
	if !found || !ended {
		return "", fmt.Errorf("README.md of the chart has no lines %q and %q", valuesBegin, valuesEnd)
	}
	values, err := os.ReadFile(filepath.Join(chart.Dir(project), "values.yaml"))
	if err != nil {
		return "", err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(values, &document); err != nil {
		return "", err
	}
	table := "| value | default | |\n|---|---|---|\n"
	if err := rows(document.Content[0], "", &table); err != nil {
		return "", err
	}
	return before + valuesBegin + table + valuesEnd + after, nil
}

// rows adds a row for each key with a comment. What is below such a key belongs to it.
func rows(mapping *yaml.Node, prefix string, table *string) error {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name := prefix + key.Value
		comment := strings.Join(strings.Fields(strings.ReplaceAll(key.HeadComment, "#", " ")), " ")
		if comment == "" {
			if value.Kind != yaml.MappingNode || len(value.Content) == 0 {
				return fmt.Errorf("values.yaml:%d: %s has no comment that says what it is", key.Line, name)
			}
			if err := rows(value, name+".", table); err != nil {
				return err
			}
			continue
		}
		var decoded any
		if err := value.Decode(&decoded); err != nil {
			return err
		}
		standard, err := json.Marshal(decoded)
		if err != nil {
			return err
		}
		*table += fmt.Sprintf("| `%s` | `%s` | %s |\n", name, standard, strings.ReplaceAll(comment, "|", "\\|"))
	}
	return nil
}
