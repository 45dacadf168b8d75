package simulator

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A graph in JSON: a struct is an object of those fields that are not zero, a map a list of pairs, and what is pointed to
// has a number: {"id":7,"is":{…}} where it comes first, {"ref":7} where it comes again.

// encodeGraph writes v, which must pass checkGraph.
func encodeGraph[T any](v *T) []byte {
	e := graphEncoder{ids: map[graphKey]int{}}
	e.write(reflect.ValueOf(v).Elem())
	return e.out.Bytes()
}

type graphEncoder struct {
	out bytes.Buffer
	ids map[graphKey]int
}

func (e *graphEncoder) text(s string) {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always can be
	}
	e.out.Write(quoted)
}

func (e *graphEncoder) write(v reflect.Value) {
	t := v.Type()
	if opaque(t) {
		e.text(opaqueText(v))
		return
	}
	switch t.Kind() {
	case reflect.Bool:
		e.out.WriteString(strconv.FormatBool(v.Bool()))
	case reflect.String:
		e.text(v.String())
	case reflect.Float32, reflect.Float64:
		e.out.WriteString(strconv.FormatFloat(v.Float(), 'g', -1, 64))
	case reflect.Pointer:
		e.pointer(v)
	case reflect.Slice:
		e.slice(v)
	case reflect.Array:
		e.list(v)
	case reflect.Map:
		e.mapping(v)
	case reflect.Struct:
		e.object(v)
	default:
		if v.CanInt() {
			e.out.WriteString(strconv.FormatInt(v.Int(), 10))
			return
		}
		e.out.WriteString(strconv.FormatUint(v.Uint(), 10))
	}
}

func opaqueText(v reflect.Value) string {
	if isTime(v.Type()) {
		at := v.Convert(timeType).Interface().(time.Time)
		if at.IsZero() {
			return ""
		}
		return at.UTC().Format(time.RFC3339Nano)
	}
	if v.IsZero() {
		return ""
	}
	return fmt.Sprint(v.Interface())
}

func (e *graphEncoder) pointer(v reflect.Value) {
	if v.IsNil() {
		e.out.WriteString("null")
		return
	}
	key := graphKey{v.UnsafePointer(), v.Type()}
	if id, known := e.ids[key]; known {
		fmt.Fprintf(&e.out, `{"ref":%d}`, id)
		return
	}
	e.ids[key] = len(e.ids) + 1
	fmt.Fprintf(&e.out, `{"id":%d,"is":`, e.ids[key])
	e.write(v.Elem())
	e.out.WriteByte('}')
}

func (e *graphEncoder) slice(v reflect.Value) {
	switch {
	case v.IsNil():
		e.out.WriteString("null")
	case v.Type().Elem().Kind() == reflect.Uint8:
		e.text(base64.StdEncoding.EncodeToString(v.Bytes()))
	default:
		e.list(v)
	}
}

func (e *graphEncoder) list(v reflect.Value) {
	e.out.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			e.out.WriteByte(',')
		}
		e.write(v.Index(i))
	}
	e.out.WriteByte(']')
}

func (e *graphEncoder) mapping(v reflect.Value) {
	if v.IsNil() {
		e.out.WriteString("null")
		return
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(keyText(a), keyText(b)) })
	e.out.WriteByte('[')
	for i, key := range keys {
		if i > 0 {
			e.out.WriteByte(',')
		}
		e.out.WriteByte('[')
		e.text(keyText(key))
		e.out.WriteByte(',')
		value := reflect.New(v.Type().Elem()).Elem() // addressable, as fields need it
		value.Set(v.MapIndex(key))
		e.write(value)
		e.out.WriteByte(']')
	}
	e.out.WriteByte(']')
}

func keyText(key reflect.Value) string {
	if key.Kind() == reflect.String {
		return key.String()
	}
	return opaqueText(key)
}

func (e *graphEncoder) object(v reflect.Value) {
	e.out.WriteByte('{')
	first := true
	for i := range v.NumField() {
		f := field(v, i)
		if f.IsZero() {
			continue
		}
		if !first {
			e.out.WriteByte(',')
		}
		first = false
		e.text(v.Type().Field(i).Name)
		e.out.WriteByte(':')
		e.write(f)
	}
	e.out.WriteByte('}')
}

// decodeGraph reads what encodeGraph wrote. A field that the type does not have is an error: it would be lost.
func decodeGraph[T any](text []byte) (*T, error) {
	v := new(T)
	d := graphDecoder{}
	if err := d.read(reflect.ValueOf(v).Elem(), text, "state"); err != nil {
		return nil, err
	}
	return v, nil
}

// graphDecoder knows what has been pointed to, by number: some of it is pointed to before it is described.
type graphDecoder map[int]reflect.Value

func (d graphDecoder) read(v reflect.Value, text json.RawMessage, at string) error {
	t := v.Type()
	switch {
	case opaque(t):
		return readOpaque(v, text, at)
	case t.Kind() == reflect.Pointer:
		return d.pointer(v, text, at)
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		var data []byte
		err := json.Unmarshal(text, &data)
		v.SetBytes(data)
		return wrongAt(at, err)
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Array:
		return d.list(v, text, at)
	case t.Kind() == reflect.Map:
		return d.mapping(v, text, at)
	case t.Kind() == reflect.Struct:
		return d.object(v, text, at)
	}
	plain := reflect.New(plainType(t)) // without the type's own way of being read
	if err := json.Unmarshal(text, plain.Interface()); err != nil {
		return wrongAt(at, err)
	}
	v.Set(plain.Elem().Convert(t))
	return nil
}

func wrongAt(at string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", at, err)
}

func plainType(t reflect.Type) reflect.Type {
	switch t.Kind() {
	case reflect.Bool:
		return reflect.TypeFor[bool]()
	case reflect.String:
		return reflect.TypeFor[string]()
	case reflect.Float32, reflect.Float64:
		return reflect.TypeFor[float64]()
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return reflect.TypeFor[int64]()
	}
	return reflect.TypeFor[uint64]()
}

func readOpaque(v reflect.Value, text json.RawMessage, at string) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return wrongAt(at, err)
	}
	value, err := opaqueValue(v.Type(), s)
	if err != nil {
		return wrongAt(at, err)
	}
	v.Set(value)
	return nil
}

func opaqueValue(t reflect.Type, s string) (reflect.Value, error) {
	if s == "" {
		return reflect.Zero(t), nil
	}
	switch t {
	case addrType:
		a, err := netip.ParseAddr(s)
		return reflect.ValueOf(a), err
	case prefixType:
		p, err := netip.ParsePrefix(s)
		return reflect.ValueOf(p), err
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	return reflect.ValueOf(at).Convert(t), err
}

func (d graphDecoder) pointer(v reflect.Value, text json.RawMessage, at string) error {
	var p *struct {
		ID, Ref int
		Is      json.RawMessage
	}
	if err := json.Unmarshal(text, &p); err != nil || p == nil {
		return wrongAt(at, err)
	}
	target, known := d[max(p.ID, p.Ref)]
	if !known {
		target = reflect.New(v.Type().Elem())
		d[max(p.ID, p.Ref)] = target
	}
	if target.Type() != v.Type() {
		return fmt.Errorf("%s: number %d is a %s, not a %s", at, max(p.ID, p.Ref), target.Type(), v.Type())
	}
	v.Set(target)
	if p.Is == nil {
		return nil
	}
	return d.read(target.Elem(), p.Is, at)
}

func (d graphDecoder) list(v reflect.Value, text json.RawMessage, at string) error {
	var items []json.RawMessage
	if err := json.Unmarshal(text, &items); err != nil || items == nil {
		return wrongAt(at, err)
	}
	if v.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	} else if v.Len() != len(items) {
		return fmt.Errorf("%s: %d items, want %d", at, len(items), v.Len())
	}
	for i, item := range items {
		if err := d.read(v.Index(i), item, at+"."+strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return nil
}

func (d graphDecoder) mapping(v reflect.Value, text json.RawMessage, at string) error {
	var pairs [][2]json.RawMessage
	if err := json.Unmarshal(text, &pairs); err != nil || pairs == nil {
		return wrongAt(at, err)
	}
	t := v.Type()
	v.Set(reflect.MakeMapWithSize(t, len(pairs)))
	for _, pair := range pairs {
		key, value := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := d.read(key, pair[0], at); err != nil {
			return err
		}
		if err := d.read(value, pair[1], at+"."+keyText(key)); err != nil {
			return err
		}
		v.SetMapIndex(key, value)
	}
	return nil
}

func (d graphDecoder) object(v reflect.Value, text json.RawMessage, at string) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return wrongAt(at, err)
	}
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		value, given := fields[name]
		if !given {
			continue
		}
		delete(fields, name)
		if err := d.read(field(v, i), value, at+"."+name); err != nil {
			return err
		}
	}
	for name := range fields {
		return fmt.Errorf("%s: the field %s is not known", at, name)
	}
	return nil
}
