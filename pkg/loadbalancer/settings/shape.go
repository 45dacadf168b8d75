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
// Nothing of what users write reaches the API, or a type of Go, without having passed one. Null never reaches one: it is what
// Terraform's jsonencode writes for a variable that is not set, and stands for a field that is not there.
type shape func(at place, value any) (any, error)

// place is where in a document a value is.
type place struct {
	path string
	// unknown collects the fields that do not exist; nil: such a field is an error.
	unknown *[]string
}

func (p place) field(name string) place {
	return place{strings.TrimPrefix(p.path+"."+Abbreviated(name), "."), p.unknown}
}

func (p place) item(i int) place { return place{fmt.Sprintf("%s[%d]", p.path, i), p.unknown} }

// String names the place in messages.
func (p place) String() string {
	if p.path == "" {
		return "it"
	}
	return p.path
}

// parseShape reads JSON and checks it against a shape. The result is nil for null. If unknown is not nil, fields that do not exist
// are added to it.
func parseShape(text string, whole shape, unknown *[]string) (any, error) {
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
	if value == nil {
		return nil, nil
	}
	return whole(place{unknown: unknown}, value)
}

func wrong(at place, value any, allowed string) error {
	return fmt.Errorf("%s is %s: want %s", at, shown(value), allowed)
}

// notText is the error of a value where a text is wanted.
func notText(at place, value any, allowed string) error {
	switch value.(type) {
	case bool, float64:
		return fmt.Errorf("%s is %s, which is no text: put what is meant in quotes (want %s)", at, shown(value), allowed)
	}
	return wrong(at, value, allowed)
}

func missing(at place) error { return fmt.Errorf("%s is missing", at) }

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

const (
	// mostShown is how much of a value is repeated in messages: events have 1024 bytes in all.
	mostShown = 100
	// mostDetail is how much of a message may say what is wrong within a value: it says what is wanted, and may repeat what is there.
	mostDetail = 400
)

// Abbreviated is the text as messages show it: cut if it is long.
func Abbreviated(text string) string { return abbreviatedTo(mostShown, text) }

func abbreviatedTo(most int, text string) string {
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// object has these fields. Others are an error, or no more than remarked upon (see place).
func object(fields map[string]shape) shape {
	return func(at place, value any) (any, error) {
		given, ok := value.(map[string]any)
		if !ok {
			return nil, wrong(at, value, "an object")
		}
		out := map[string]any{}
		for _, key := range slices.Sorted(maps.Keys(given)) {
			if given[key] == nil {
				continue
			}
			name, field := fieldOf(fields, key)
			switch _, twice := out[name]; {
			case field == nil && at.unknown != nil:
				*at.unknown = append(*at.unknown, at.field(key).String())
				continue
			case field == nil:
				return nil, fmt.Errorf("%s does not exist: want %s", at.field(key), orList(slices.Sorted(maps.Keys(fields))))
			case twice:
				return nil, fmt.Errorf("%s is there twice", at.field(key))
			}
			checked, err := field(at.field(name), given[key])
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
	return func(at place, value any) (any, error) {
		checked, err := inner(at, value)
		if err != nil {
			return nil, err
		}
		for _, name := range required {
			if _, ok := checked.(map[string]any)[name]; !ok {
				return nil, missing(at.field(name))
			}
		}
		return checked, nil
	}
}

func list(item shape, least, most int) shape {
	return func(at place, value any) (any, error) {
		given, ok := value.([]any)
		if !ok || len(given) > most {
			return nil, wrong(at, value, fmt.Sprintf("a list of %d to %d", least, most))
		}
		out := []any{}
		for i, one := range given {
			if one == nil {
				continue
			}
			checked, err := item(at.item(i), one)
			if err != nil {
				return nil, err
			}
			if checked == nil {
				return nil, wrong(at.item(i), one, "a value")
			}
			out = append(out, checked)
		}
		if len(out) < least {
			return nil, wrong(at, value, fmt.Sprintf("a list of %d to %d", least, most))
		}
		return out, nil
	}
}

// optional takes the empty text for one that asks for nothing, as UpCloud's own CCM does.
func optional(inner shape) shape {
	return func(at place, value any) (any, error) {
		if value == "" {
			return nil, nil
		}
		return inner(at, value)
	}
}

func word(allowed ...string) shape {
	return func(at place, value any) (any, error) {
		if text, ok := value.(string); ok && slices.Contains(allowed, text) {
			return text, nil
		}
		return nil, notText(at, value, orList(quoted(allowed)))
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
	return func(at place, value any) (any, error) {
		if text, ok := value.(string); ok {
			if parsed, err := k.parse(text); err == nil {
				return parsed, nil
			}
		}
		return nil, notText(at, value, k.allowed)
	}
}

var printable = regexp.MustCompile(`^[^\x00-\x1f\x7f]*$`)

// characters is printable text of some length.
func characters(least, most int) shape {
	return func(at place, value any) (any, error) {
		if text, ok := value.(string); ok && len(text) >= least && len(text) <= most && printable.MatchString(text) {
			return text, nil
		}
		return nil, notText(at, value, fmt.Sprintf("%d to %d printable characters", least, most))
	}
}

// number is a whole number. Zero asks for nothing where it is not allowed, as with UpCloud's own CCM.
func number(least, most int) shape {
	return func(at place, value any) (any, error) {
		n, ok := value.(float64)
		if ok && n == 0 && least > 0 {
			return nil, nil
		}
		if !ok || n != math.Trunc(n) || n < float64(least) || n > float64(most) {
			return nil, wrong(at, value, fmt.Sprintf("a whole number from %d to %d", least, most))
		}
		return int(n), nil
	}
}

func truth(at place, value any) (any, error) {
	if _, ok := value.(bool); !ok {
		return nil, wrong(at, value, "true or false")
	}
	return value, nil
}

// kinds is an object whose field "type" says which one other field, named prefix+type, it has.
func kinds(prefix string, details map[string]shape, others map[string]shape) shape {
	names := slices.Sorted(maps.Keys(details))
	return func(at place, value any) (any, error) {
		given, ok := value.(map[string]any)
		if !ok {
			return nil, wrong(at, value, "an object")
		}
		kind, _ := given["type"].(string)
		detail, ok := details[kind]
		if !ok {
			return nil, wrong(at.field("type"), given["type"], orList(names))
		}
		fields := map[string]shape{}
		for _, name := range names {
			fields[prefix+name] = contradicting(kind)
		}
		maps.Copy(fields, others)
		fields["type"], fields[prefix+kind] = word(kind), detail
		return with(object(fields), "type", prefix+kind)(at, value)
	}
}

// contradicting is a field of another type than the object's.
func contradicting(kind string) shape {
	return func(at place, value any) (any, error) {
		return nil, fmt.Errorf("%s is %s, and type is %q: remove one of the two", at, shown(value), kind)
	}
}
