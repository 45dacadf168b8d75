package settings

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
)

// A shape says what a JSON value may be. It returns the value as the API gets it, nil for one that asks for nothing, or an
// error that names the path, the value and what is allowed.
//
// Nothing of what users write reaches the API, or a type of Go, without having passed one.
type shape func(path string, value any) (any, error)

// parseShape reads JSON and checks it against a shape.
func parseShape(text string, whole shape) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	var value any
	if err := decoder.Decode(&value); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("not JSON: something follows the end of it")
	}
	return whole("", value)
}

func wrong(path string, value any, allowed string) error {
	if path == "" {
		path = "it"
	}
	return fmt.Errorf("%s is %s: want %s", strings.TrimPrefix(path, "."), shown(value), allowed)
}

// shown is a value in a message, in short.
func shown(value any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return "unreadable"
	}
	return Abbreviated(strings.TrimSpace(text.String()))
}

// mostShown is how much of a value is repeated in messages: events have 1024 bytes in all.
const mostShown = 100

// Abbreviated is the text as messages show it: cut if it is long.
func Abbreviated(text string) string {
	if len(text) > mostShown {
		return strings.ToValidUTF8(text[:mostShown], "") + "…"
	}
	return text
}

// object has these fields and no others.
func object(fields map[string]shape) shape {
	return func(path string, value any) (any, error) {
		given, ok := value.(map[string]any)
		if !ok {
			return nil, wrong(path, value, "an object")
		}
		out := map[string]any{}
		for _, key := range slices.Sorted(maps.Keys(given)) {
			name, field := fieldOf(fields, key)
			if field == nil {
				return nil, fmt.Errorf("%s does not exist: want %s", strings.TrimPrefix(path+"."+Abbreviated(key), "."),
					orList(slices.Sorted(maps.Keys(fields))))
			}
			if _, twice := out[name]; twice {
				return nil, fmt.Errorf("%s is there twice", strings.TrimPrefix(path+"."+key, "."))
			}
			checked, err := field(path+"."+name, given[key])
			if err != nil {
				return nil, err
			}
			if checked != nil {
				out[name] = checked
			}
		}
		return out, nil
	}
}

// fieldOf finds a field by its name, whose case does not matter: it does not to the program whose place this one takes.
func fieldOf(fields map[string]shape, key string) (string, shape) {
	if field, ok := fields[key]; ok {
		return key, field
	}
	for name, field := range fields {
		if strings.EqualFold(name, key) {
			return name, field
		}
	}
	return "", nil
}

// with is an object that must have these fields.
func with(inner shape, required ...string) shape {
	return func(path string, value any) (any, error) {
		checked, err := inner(path, value)
		if err != nil {
			return nil, err
		}
		for _, name := range required {
			if _, ok := checked.(map[string]any)[name]; !ok {
				return nil, fmt.Errorf("%s is missing", strings.TrimPrefix(path+"."+name, "."))
			}
		}
		return checked, nil
	}
}

func list(item shape, least, most int) shape {
	return func(path string, value any) (any, error) {
		given, ok := value.([]any)
		if !ok || len(given) < least || len(given) > most {
			return nil, wrong(path, value, fmt.Sprintf("a list of %d to %d", least, most))
		}
		out := []any{}
		for i, one := range given {
			checked, err := item(fmt.Sprintf("%s[%d]", path, i), one)
			if err != nil {
				return nil, err
			}
			if checked == nil {
				return nil, wrong(fmt.Sprintf("%s[%d]", path, i), one, "a value")
			}
			out = append(out, checked)
		}
		return out, nil
	}
}

// optional takes the empty text for one that asks for nothing, as UpCloud's own CCM does.
func optional(inner shape) shape {
	return func(path string, value any) (any, error) {
		if value == "" {
			return nil, nil
		}
		return inner(path, value)
	}
}

func word(allowed ...string) shape {
	return func(path string, value any) (any, error) {
		if text, ok := value.(string); ok && slices.Contains(allowed, text) {
			return text, nil
		}
		return nil, wrong(path, value, orList(quoted(allowed)))
	}
}

func quoted(all []string) []string {
	var out []string
	for _, one := range all {
		out = append(out, `"`+one+`"`)
	}
	return out
}

// like is a text of a kind that annotations have too.
func like(k kind[string]) shape {
	return func(path string, value any) (any, error) {
		if text, ok := value.(string); ok {
			if parsed, err := k.parse(text); err == nil {
				return parsed, nil
			}
		}
		return nil, wrong(path, value, k.allowed)
	}
}

var printable = regexp.MustCompile(`^[^\x00-\x1f\x7f]*$`)

// characters is printable text of some length.
func characters(least, most int) shape {
	return func(path string, value any) (any, error) {
		if text, ok := value.(string); ok && len(text) >= least && len(text) <= most && printable.MatchString(text) {
			return text, nil
		}
		return nil, wrong(path, value, fmt.Sprintf("%d to %d printable characters", least, most))
	}
}

// number is a whole number. Zero asks for nothing where it is not allowed, as with UpCloud's own CCM.
func number(least, most int) shape {
	return func(path string, value any) (any, error) {
		n, ok := value.(float64)
		if ok && n == 0 && least > 0 {
			return nil, nil
		}
		if !ok || n != math.Trunc(n) || n < float64(least) || n > float64(most) {
			return nil, wrong(path, value, fmt.Sprintf("a whole number from %d to %d", least, most))
		}
		return int(n), nil
	}
}

func truth(path string, value any) (any, error) {
	if _, ok := value.(bool); !ok {
		return nil, wrong(path, value, "true or false")
	}
	return value, nil
}

// kinds is an object whose field "type" says which one other field, named prefix+type, it has.
func kinds(prefix string, details map[string]shape, others map[string]shape) shape {
	names := slices.Sorted(maps.Keys(details))
	return func(path string, value any) (any, error) {
		given, ok := value.(map[string]any)
		if !ok {
			return nil, wrong(path, value, "an object")
		}
		kind, _ := given["type"].(string)
		detail, ok := details[kind]
		if !ok {
			return nil, wrong(path+".type", given["type"], orList(names))
		}
		fields := maps.Clone(others)
		if fields == nil {
			fields = map[string]shape{}
		}
		fields["type"], fields[prefix+kind] = word(kind), detail
		return with(object(fields), "type", prefix+kind)(path, value)
	}
}
