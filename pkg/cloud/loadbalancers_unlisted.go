package cloud

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"sync"
)

// unlisted are the fields of a component that its type does not list: what the API learns after this program was built, or
// what the program has no use for. They are kept, because a component that is written again would lose them otherwise.
type unlisted map[string]json.RawMessage

// readOnlyFields are the API's alone to write.
var readOnlyFields = []string{"created_at", "updated_at"}

// unmarshalKeeping decodes data into listed, a pointer to a struct without methods, and returns the other fields.
func unmarshalKeeping(data []byte, listed any) (unlisted, error) {
	if err := json.Unmarshal(data, listed); err != nil {
		return nil, err
	}
	var all unlisted
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	for _, name := range fieldNames(reflect.TypeOf(listed).Elem()) {
		delete(all, name)
	}
	for _, name := range readOnlyFields {
		delete(all, name)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, nil
}

// marshalKeeping encodes a struct without methods with the other fields beside its own.
func marshalKeeping(listed any, rest unlisted) ([]byte, error) {
	text, err := json.Marshal(listed)
	if err != nil || len(rest) == 0 {
		return text, err
	}
	all := maps.Clone(rest)
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

var fieldNamesOf sync.Map // reflect.Type -> []string

// fieldNames are the JSON names of a struct's fields.
func fieldNames(of reflect.Type) []string {
	if known, ok := fieldNamesOf.Load(of); ok {
		return known.([]string)
	}
	var names []string
	for i := range of.NumField() {
		if name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	fieldNamesOf.Store(of, names)
	return names
}
