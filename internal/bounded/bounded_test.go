package bounded_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded/boundedtest"
)

var small = bounded.Document{Bytes: 40, Values: 6, Depth: 3}

// A document at a limit is read, and one that is one beyond it is refused, with the limit.
func TestDocumentIsRefusedJustBeyondItsLimit(t *testing.T) {
	for _, c := range []struct{ name, text, refused string }{
		{"as many bytes as allowed", `"` + strings.Repeat("x", 38) + `"`, ""},
		{"one byte more", `"` + strings.Repeat("x", 39) + `"`, "too large: 41 bytes, at most 40"},
		{"as many values as allowed", `[1,2,3,4,5]`, ""},
		{"one value more", `[1,2,3,4,5,6]`, "too many values: 7 or more, at most 6"},
		{"keys and values", `{"a":1,"b":[2]}`, ""},
		{"one key more", `{"a":1,"b":[2],"c":3}`, "too many values"},
		{"as deep as allowed", `[[[1]]]`, ""},
		{"one deeper", `[[[[]]]]`, "nested too deeply: more than 3"},
		{"signs within a text", `"a,b:[[[[,,,\"\\,,[["`, ""},
	} {
		for form, check := range map[string]func(string) error{
			"JSON": small.JSON, "YAML": func(text string) error { return small.YAML([]byte(text)) },
		} {
			err := check(c.text)
			if (err != nil) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s, read as %s: %v, want %q", c.name, form, err, c.refused)
			}
		}
	}
}

// A value that stands for others is refused wherever it is, and a text with the same signs is not.
func TestYAMLWithReferencesIsRefused(t *testing.T) {
	for text, refused := range map[string]string{
		"[&a x, *a]":       "line 1: YAML anchor &a is not allowed",
		"x: &a {}":         "YAML anchor &a",
		"x:\n- &a\n  y: 1": "line 2: YAML anchor &a",
		"? &a x\n: 1":      "YAML anchor &a",
		"&a x: 1":          "YAML anchor &a",
		"!!str &a x":       "YAML anchor &a",
		`{"x":&a 1}`:       "YAML anchor &a",
		"x: *a":            "unknown anchor 'a' referenced",
		"<<: &a {x: 1}":    "YAML anchor &a",
		"path: /a&b":       "",
		`"&a *a"`:          "",
		"'*.example.com'":  "",
		"x: a & b":         "",
		"x: 1 # *a":        "",
		"# only a comment": "",
		"":                 "",
		"- |\n  &a [*b]":   "",
		"!!binary AAAA":    "",
		"[a":               "not YAML: line 1: did not find expected ',' or ']'",
	} {
		_, err := bounded.File.YAMLToJSON([]byte(text))
		if (err != nil) != (refused != "") || err != nil && !strings.Contains(err.Error(), refused) {
			t.Errorf("%q: %v, want %q", text, err, refused)
		}
	}
}

func TestFileIsReadUpToItsLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := bounded.ReadFile(path, 5); err != nil || string(text) != "12345" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := bounded.ReadFile(path, 4); err == nil || !strings.Contains(err.Error(), path+" is too large: at most 4 bytes") {
		t.Errorf("a file that is one byte too long: %v", err)
	}
	if _, err := bounded.ReadFile("/dev/zero", 1000); err == nil {
		t.Error("a file without an end was read")
	}
}

// cost of reading a document: measured with lists, the largest for its size, up to 700 bytes a byte.
var cost = boundedtest.Cost{Bytes: 1 << 20, BytesPerByte: 4000, CPU: 2 * time.Second, CPUPerByte: 50 * time.Microsecond}

// FuzzDocument reads any text, repeated, as YAML and JSON: what is within the limits costs little, and what the scan of JSON lets
// through has no more values than allowed.
func FuzzDocument(f *testing.F) {
	for _, text := range []string{
		"{matchLabels: {pool: web}}", "[&a [x, x], *a, *a]", "a: &a [1,1,1]\nb: &b [*a,*a]", "[", "[[],", "{a: ", "- - - -", "? ", "'\\", "\"\\u0000",
		"x: |\n  a\n", "--- a\n---\n", "%YAML 1.1\n---\n", "!!binary AA==", "<<: {a: b}", `{"a":{"b":[1,null,true]}}`, "\xef\xbb\xbf[]", "\x85", "a: b: c", "0x1_0",
	} {
		f.Add("", text, "", uint16(1))
		f.Add("[", text, "]", uint16(300))
	}
	limits := bounded.Document{Bytes: 64 << 10, Values: 1000, Depth: 8}
	f.Fuzz(func(t *testing.T, before, text, after string, times uint16) {
		if len(text)*int(times) > 2*limits.Bytes {
			return
		}
		document := before + strings.Repeat(text, int(times)) + after
		cost.Within(t, len(document), func() {
			plain, err := limits.YAMLToJSON([]byte(document))
			if err == nil && len(plain) > 8*len(document)+100 {
				t.Errorf("%d bytes of YAML are %d of JSON", len(document), len(plain))
			}
			if limits.JSON(document) != nil {
				return
			}
			var value any
			if json.Unmarshal([]byte(document), &value) == nil && count(value) > limits.Values {
				t.Errorf("%d values, and the limit is %d", count(value), limits.Values)
			}
		})
	})
}

// count is how many values a JSON value has, with keys.
func count(value any) int {
	n := 1
	switch value := value.(type) {
	case []any:
		for _, one := range value {
			n += count(one)
		}
	case map[string]any:
		for _, one := range value {
			n += 1 + count(one)
		}
	}
	return n
}
