package simulator

import (
	"fmt"
	"net/netip"
	"reflect"
	"time"
	"unsafe"
)

// The state is a graph of plain data: servers point to their interfaces, these to networks and back. What follows walks
// it by reflection, unexported fields included, so that a resource that gets a new field is copied and kept with it.

var (
	timeType   = reflect.TypeFor[time.Time]()
	addrType   = reflect.TypeFor[netip.Addr]()
	prefixType = reflect.TypeFor[netip.Prefix]()
)

// opaque says whether values of the type are taken as they are: nothing can change behind them.
func opaque(t reflect.Type) bool {
	return t == addrType || t == prefixType || isTime(t)
}

// isTime says whether the type is time.Time or one made of it.
func isTime(t reflect.Type) bool { return t.Kind() == reflect.Struct && t.ConvertibleTo(timeType) }

// field returns a field of an addressable struct, unexported or not.
func field(v reflect.Value, i int) reflect.Value {
	f := v.Field(i)
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
}

// checkGraph says whether values of the type can be copied and kept; at names it.
func checkGraph(t reflect.Type, at string, seen map[reflect.Type]bool) error {
	if seen[t] || opaque(t) {
		return nil
	}
	seen[t] = true
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return nil
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return checkGraph(t.Elem(), at, seen)
	case reflect.Map:
		if k := t.Key(); k.Kind() != reflect.String && !opaque(k) {
			return fmt.Errorf("%s: a map with keys of the type %s cannot be kept", at, k)
		}
		return checkGraph(t.Elem(), at, seen)
	case reflect.Struct:
		for i := range t.NumField() {
			if err := checkGraph(t.Field(i).Type, at+"."+t.Field(i).Name, seen); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("%s: a %s cannot be kept", at, t)
}

// copyGraph returns a copy of *from that shares nothing that changes with it. What is pointed to twice is copied once.
func copyGraph[T any](from *T) *T {
	to := new(T)
	c := graphCopier{}
	c[graphKey{unsafe.Pointer(from), reflect.TypeOf(from)}] = reflect.ValueOf(to)
	c.copy(reflect.ValueOf(to).Elem(), reflect.ValueOf(from).Elem())
	return to
}

// graphKey tells objects apart: a struct and its first field have the same address.
type graphKey struct {
	address unsafe.Pointer
	kind    reflect.Type // of the pointer
}

// graphCopier knows the copies of what is pointed to.
type graphCopier map[graphKey]reflect.Value

// copy sets to, which is zero, to a copy of from. Both are addressable.
func (c graphCopier) copy(to, from reflect.Value) {
	t := from.Type()
	switch {
	case opaque(t):
		to.Set(from)
		return
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			c.copy(field(to, i), field(from, i))
		}
		return
	case t.Kind() == reflect.Array:
		for i := range t.Len() {
			c.copy(to.Index(i), from.Index(i))
		}
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		to.Set(c.pointer(from))
	case reflect.Slice:
		if from.IsNil() {
			return
		}
		to.Set(reflect.MakeSlice(t, from.Len(), from.Len()))
		if flat(t.Elem()) {
			reflect.Copy(to, from)
			return
		}
		for i := range from.Len() {
			c.copy(to.Index(i), from.Index(i))
		}
	case reflect.Map:
		if !from.IsNil() {
			to.Set(c.mapping(from))
		}
	default:
		to.Set(from)
	}
}

func (c graphCopier) pointer(from reflect.Value) reflect.Value {
	if from.IsNil() {
		return from
	}
	key := graphKey{from.UnsafePointer(), from.Type()}
	if known, ok := c[key]; ok {
		return known
	}
	to := reflect.New(from.Type().Elem())
	if from.Type() != to.Type() {
		to = to.Convert(from.Type())
	}
	c[key] = to
	c.copy(to.Elem(), from.Elem())
	return to
}

func (c graphCopier) mapping(from reflect.Value) reflect.Value {
	t := from.Type()
	to := reflect.MakeMapWithSize(t, from.Len())
	for entries := from.MapRange(); entries.Next(); {
		before, after := reflect.New(t.Elem()).Elem(), reflect.New(t.Elem()).Elem()
		before.Set(entries.Value())
		c.copy(after, before)
		to.SetMapIndex(entries.Key(), after)
	}
	return to
}

// flat says whether a copy of a value of the type shares nothing with it that changes.
func flat(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return false
	case reflect.Array:
		return flat(t.Elem())
	case reflect.Struct:
		if opaque(t) {
			return true
		}
		for i := range t.NumField() {
			if !flat(t.Field(i).Type) {
				return false
			}
		}
	}
	return true
}
