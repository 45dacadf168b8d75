// Package bounded reads documents that others write, within limits that are checked before the document is parsed.
//
// A parser makes more of a text than the text: a value of two characters takes a hundred bytes in memory, and in YAML one value
// can stand for thousands of others. What a document costs is therefore limited by its bytes, its values and its depth, and
// YAML in which one value refers to another is refused.
package bounded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// Document limits a YAML or JSON document.
type Document struct {
	Bytes  int // of the text
	Values int // texts, numbers, lists and objects; the key of a field is one, too
	Depth  int // lists and objects within each other
}

// Limits of documents. Those of other inputs are where they are read.
var (
	// File is a configuration file of a program.
	File = Document{Bytes: 1 << 20, Values: 50_000, Depth: 32}
	// Plan is a plan of upcloud-doctor: some 30 values for each of tens of thousands of storages.
	Plan = Document{Bytes: 32 << 20, Values: 2_000_000, Depth: 16}
)

// Text refuses a text that is too long.
func Text(text string, most int) error { return Size(len(text), most) }

// Size refuses so many bytes.
func Size(bytes, most int) error {
	if bytes > most {
		return fmt.Errorf("too large: %d bytes, at most %d are allowed; shorten it", bytes, most)
	}
	return nil
}

// Count refuses a list that is too long. things is the plural of what is counted.
func Count(n, most int, things string) error {
	if n > most {
		return fmt.Errorf("too many %s: %d, at most %d are allowed; use fewer", things, n, most)
	}
	return nil
}

// JSON refuses a text that is, if it is JSON, a larger document. It allocates nothing, and does not say whether the text is JSON.
func (d Document) JSON(text string) error {
	if err := Text(text, d.Bytes); err != nil {
		return err
	}
	values, depth, quoted := 1, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++ // whatever follows is part of the text
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			values++
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ',' || c == ':':
			values++
		}
		if values > d.Values || depth > d.Depth {
			return d.exceeded(values, depth)
		}
	}
	return nil
}

func (d Document) exceeded(values, depth int) error {
	if depth > d.Depth {
		return fmt.Errorf("nested too deeply: more than %d lists and objects within each other; make it flatter", d.Depth)
	}
	return fmt.Errorf("too many values: %d or more, at most %d are allowed; shorten it", values, d.Values)
}

// YAML refuses a text that is a larger document, that is not YAML, or that has an anchor or alias. Of several documents, it
// checks the first, as parsers of one document read no further.
func (d Document) YAML(text []byte) error {
	if err := Text(string(text), d.Bytes); err != nil {
		return err
	}
	if err := d.marks(text); err != nil {
		return err
	}
	var root yaml.Node
	err := yaml.NewDecoder(strings.NewReader(string(text))).Decode(&root)
	if errors.Is(err, io.EOF) {
		return nil // only comments
	}
	if err != nil {
		return notYAML(err)
	}
	values := 0
	return d.check(&root, 0, &values)
}

// marks refuses a text with so many signs after which a value can begin that the parser would take too much memory to count the values.
// Such signs are also in texts, such as the colons of a time, so that more of them are allowed than values. A small text needs no such
// look: what it costs is bounded by its size.
func (d Document) marks(text []byte) error {
	const small, most = 1 << 20, 4
	if len(text) <= small {
		return nil
	}
	n := 0
	for i, c := range text {
		switch c {
		case '\n', ',', ':', '[', '{':
			n++
		case '-', '?':
			if i+1 < len(text) && (text[i+1] == ' ' || text[i+1] == '\n') {
				n++
			}
		}
	}
	if n > most*d.Values {
		return d.exceeded(d.Values+1, 0)
	}
	return nil
}

func (d Document) check(node *yaml.Node, depth int, values *int) error {
	switch node.Kind {
	case yaml.AliasNode:
		return fmt.Errorf("line %d: YAML alias *%s is not allowed; write the value out", node.Line, shortened(node.Value))
	case yaml.MappingNode, yaml.SequenceNode:
		depth++
	}
	if node.Anchor != "" {
		return fmt.Errorf("line %d: YAML anchor &%s is not allowed; remove it, and write values out where they are needed", node.Line,
			shortened(node.Anchor))
	}
	if node.Kind != yaml.DocumentNode {
		*values++
	}
	if *values > d.Values || depth > d.Depth {
		return d.exceeded(*values, depth)
	}
	for _, part := range node.Content {
		if err := d.check(part, depth, values); err != nil {
			return err
		}
	}
	return nil
}

// YAMLToJSON makes JSON of a YAML document within the limits. A field that is given twice is an error.
func (d Document) YAMLToJSON(text []byte) ([]byte, error) {
	if err := d.YAML(text); err != nil {
		return nil, err
	}
	plain, err := sigsyaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, notYAML(err)
	}
	return plain, nil
}

// Unmarshal reads a YAML document within the limits into a type with JSON tags. Fields that the type has not are ignored.
func (d Document) Unmarshal(text []byte, into any) error {
	if err := d.YAML(text); err != nil {
		return err
	}
	return brief(sigsyaml.Unmarshal(text, into))
}

// UnmarshalStrict is Unmarshal, but a field that the type has not, or that is given twice, is an error.
func (d Document) UnmarshalStrict(text []byte, into any) error {
	if err := d.YAML(text); err != nil {
		return err
	}
	return brief(sigsyaml.UnmarshalStrict(text, into))
}

// ReadFile reads a file of at most so many bytes. Its error names the file.
func ReadFile(path string, most int) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	if err != nil {
		return nil, err
	}
	if len(text) > most {
		return nil, fmt.Errorf("%s is too large: at most %d bytes are read; shorten it", path, most)
	}
	return text, nil
}

// notYAML is a parser's error in one line, cut as brief does.
func notYAML(err error) error {
	text := strings.Join(strings.Fields(err.Error()), " ")
	return brief(fmt.Errorf("not YAML: %s", strings.TrimPrefix(strings.TrimPrefix(text, "error converting YAML to JSON: "), "yaml: ")))
}

// brief is a parser's error, which may repeat a value of any length.
func brief(err error) error {
	const most = 500
	if err == nil || len(err.Error()) <= most {
		return err
	}
	return errors.New(strings.ToValidUTF8(err.Error()[:most], "") + "…")
}

// shortened is a name in a message.
func shortened(name string) string {
	const most = 40
	if len(name) > most {
		return strings.ToValidUTF8(name[:most], "") + "…"
	}
	return name
}
