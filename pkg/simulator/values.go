package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// number is an integer that a client may write as a JSON number or as a string: the older resources take both.
type number int

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(b []byte) error {
	text := string(bytes.Trim(b, `"`))
	if text == "null" || text == "" {
		return nil
	}
	v, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%s is not an integer", b)
	}
	*n = number(v)
	return nil
}

// yesNo is a boolean as the older resources write it: "yes" or "no".
type yesNo bool

// MarshalJSON implements json.Marshaler.
func (v yesNo) MarshalJSON() ([]byte, error) {
	if v {
		return []byte(`"yes"`), nil
	}
	return []byte(`"no"`), nil
}

// UnmarshalJSON implements json.Unmarshaler. The SDK writes yes and no; the API documents those alone.
func (v *yesNo) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case `"yes"`:
		*v = true
	case `"no"`, `""`, `null`:
		*v = false
	default:
		return fmt.Errorf(`%s is neither "yes" nor "no"`, b)
	}
	return nil
}

// stamp is a time as the newer resources write it: RFC 3339 with microseconds.
type stamp time.Time

// MarshalJSON implements json.Marshaler.
func (t stamp) MarshalJSON() ([]byte, error) {
	return json.Marshal(timeOfMicroseconds(time.Time(t)))
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *stamp) UnmarshalJSON(b []byte) error { return (*time.Time)(t).UnmarshalJSON(b) }
