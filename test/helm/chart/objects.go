package chart

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Objects are the objects of YAML documents, by "Kind namespace/name".
func Objects(text string) (map[string]*unstructured.Unstructured, error) {
	objects := map[string]*unstructured.Unstructured{}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(text)), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		if len(object.Object) == 0 {
			continue
		}
		key := fmt.Sprintf("%s %s/%s", object.GetKind(), object.GetNamespace(), object.GetName())
		if objects[key] != nil {
			return nil, fmt.Errorf("%s comes twice", key)
		}
		objects[key] = object
	}
}

// helmLabels are on the objects of Helm alone.
var helmLabels = []string{"app.kubernetes.io/instance", "app.kubernetes.io/managed-by"}

// WithoutHelm takes Helm's own labels, which stand on lines of their own, out of what is rendered, and lines without text.
func WithoutHelm(text string) string {
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool {
		return strings.TrimSpace(line) == "" || slices.ContainsFunc(helmLabels, func(label string) bool {
			return strings.HasPrefix(strings.TrimSpace(line), label+":")
		})
	})
	return strings.Join(lines, "\n") + "\n"
}

// Meaning brings an object into a form in which two objects that mean the same to Kubernetes and to our programs are equal: without
// Helm's labels; each flag of a container as the last of its kind has it, in the order of their names.
func Meaning(object *unstructured.Unstructured) map[string]any {
	meaning := object.DeepCopy()
	labels := meaning.GetLabels()
	for _, label := range helmLabels {
		delete(labels, label)
	}
	meaning.SetLabels(labels)
	sortFlags(meaning.Object)
	return meaning.Object
}

func sortFlags(value any) {
	switch value := value.(type) {
	case []any:
		for _, each := range value {
			sortFlags(each)
		}
	case map[string]any:
		if args, ok := value["args"].([]any); ok && value["image"] != nil {
			value["args"] = lastFlags(args)
		}
		for _, each := range value {
			sortFlags(each)
		}
	}
}

// lastFlags leaves what is no flag at the front, where a command is.
func lastFlags(args []any) []any {
	last := map[string]any{}
	var names []string
	var sorted []any
	for _, arg := range args {
		text, _ := arg.(string)
		name, _, _ := strings.Cut(text, "=")
		if !strings.HasPrefix(name, "--") {
			sorted = append(sorted, arg)
			continue
		}
		if last[name] == nil {
			names = append(names, name)
		}
		last[name] = arg
	}
	slices.Sort(names)
	for _, name := range names {
		sorted = append(sorted, last[name])
	}
	return sorted
}
