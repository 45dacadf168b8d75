package cloud

import (
	"bytes"
	"encoding/json"
)

// Properties are a frontend's or backend's flat properties, those too that this program does not know.
type Properties map[string]any

// With returns the properties with those of changes on top, and whether that makes any difference. It is what a PATCH of them
// has to hold to change nothing else, whether the API merges it into what it has or, which is not known, puts defaults
// in the place of what is left out. Empty values are left out: they are the defaults, and the API answers some (such as
// "" for health_check_on_down) that it may not take back.
func (p Properties) With(changes Properties) (Properties, bool) {
	merged, changed := Properties{}, false
	for key, value := range p {
		if !isNone(value) {
			merged[key] = value
		}
	}
	for key, want := range changes {
		have, ok := p[key]
		changed = changed || !(isNone(want) && isNone(have)) && (!ok || !sameProperty(have, want))
		merged[key] = want
	}
	return merged, changed
}

// isNone says that a property is off, or not there: the API shows some that were never set, and leaves out others.
func isNone(value any) bool { return value == nil || value == "" || value == false }

// sameProperty compares values of which one may come from JSON, where every number is a float64.
func sameProperty(a, b any) bool {
	left, errLeft := json.Marshal(a)
	right, errRight := json.Marshal(b)
	return errLeft == nil && errRight == nil && bytes.Equal(left, right)
}
