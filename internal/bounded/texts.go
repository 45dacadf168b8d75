package bounded

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// Misread is a value that was meant as text, and that YAML reads as something else: y is true, 010 is 8, 1.10 is 1.1. A text with JSON
// tags would get what it was read as. The value itself is not repeated: it may be a password.
type Misread struct {
	Path string // such as data.clusterName
	Line int
	Kind string // what YAML reads it as
	Key  bool   // it is the name of a field
}

func (m Misread) Error() string {
	what := "its value"
	if m.Key {
		what = "the name of a field"
	}
	return fmt.Sprintf("%s (line %d): YAML reads %s as a %s, not as text: put it in quotes", m.Path, m.Line, what, m.Kind)
}

// Misreads returns the texts of a type with JSON tags that a YAML document does not give as they are written. The document is within
// the limits, or there are none.
func (d Document) Misreads(text []byte, into any) []Misread {
	var root yaml.Node
	if d.YAML(text) != nil || yaml.Unmarshal(text, &root) != nil || len(root.Content) == 0 {
		return nil
	}
	return misreads(root.Content[0], "", reflect.TypeOf(into))
}

func misreads(node *yaml.Node, path string, of reflect.Type) []Misread {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	var all []Misread
	switch {
	case of.Kind() == reflect.String:
		if kind := misreadAs(node); kind != "" {
			all = append(all, Misread{Path: path, Line: node.Line, Kind: kind})
		}
	case node.Kind == yaml.SequenceNode && of.Kind() == reflect.Slice:
		for i, part := range node.Content {
			all = append(all, misreads(part, fmt.Sprintf("%s[%d]", path, i), of.Elem())...)
		}
	case node.Kind == yaml.MappingNode && of.Kind() == reflect.Map:
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			if kind := misreadAs(key); kind != "" {
				all = append(all, Misread{Path: path, Line: key.Line, Kind: kind, Key: true})
			}
			all = append(all, misreads(node.Content[i+1], path+"."+shortened(key.Value), of.Elem())...)
		}
	case node.Kind == yaml.MappingNode && of.Kind() == reflect.Struct:
		for i := 0; i+1 < len(node.Content); i += 2 {
			name := node.Content[i].Value
			if field, ok := fieldNamed(of, name); ok {
				all = append(all, misreads(node.Content[i+1], strings.TrimPrefix(path+"."+name, "."), field)...)
			}
		}
	}
	return all
}

// fieldNamed finds the type of a field by its JSON name, whose case does not matter, as it does not to the decoder.
func fieldNamed(of reflect.Type, name string) (reflect.Type, bool) {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct {
		return nil, false
	}
	for field := range of.Fields() {
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Anonymous && tag == "":
			if found, ok := fieldNamed(field.Type, name); ok {
				return found, true
			}
		case field.IsExported() && tag != "-" && (strings.EqualFold(tag, name) || tag == "" && strings.EqualFold(field.Name, name)):
			return field.Type, true
		}
	}
	return nil, false
}

// misreadAs names what a value without quotes is read as, if that is not the text that is written there.
func misreadAs(node *yaml.Node) string {
	if node.Kind != yaml.ScalarNode || node.Style != 0 {
		return ""
	}
	plain, err := sigsyaml.YAMLToJSON([]byte(node.Value))
	var read any
	if err != nil || json.Unmarshal(plain, &read) != nil || string(plain) == node.Value {
		return ""
	}
	switch read.(type) {
	case bool:
		return "boolean"
	case float64:
		return "number"
	}
	return ""
}
