package simulator

import (
	"net/url"
	"strings"
)

// Label is a key and a value that a user put on a resource.
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Limits as the newer products document them; the older ones name none. The lower bound of two is not applied to keys
// that begin with an underscore: the API's own.
const (
	minLabelKey   = 2
	maxLabelKey   = 32
	maxLabelValue = 255
)

// checkLabels refuses what the API could not store: it has one value a key.
func checkLabels(labels []Label) error {
	for i, l := range labels {
		if len(l.Key) < minLabelKey || len(l.Key) > maxLabelKey || !printable(l.Key) {
			return badRequest("INVALID_LABEL_KEY",
				"The label key '%s' is invalid: it must have %d to %d printable characters.", l.Key, minLabelKey, maxLabelKey)
		}
		if len(l.Value) > maxLabelValue {
			return badRequest("INVALID_LABEL_VALUE",
				"The value of the label '%s' is invalid: it must have at most %d characters.", l.Key, maxLabelValue)
		}
		for _, other := range labels[:i] {
			if other.Key == l.Key {
				return badRequest("DUPLICATE_LABEL_KEYS", "The label key '%s' is given twice.", l.Key)
			}
		}
	}
	return nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// labelFilter is what ?label=KEY or ?label=KEY%3DVALUE asks for.
type labelFilter struct {
	key, value string
	anyValue   bool
}

// labelFilters returns the filters of a query: all of them must match.
func labelFilters(q url.Values) []labelFilter {
	var out []labelFilter
	for _, text := range q["label"] {
		key, value, hasValue := strings.Cut(text, "=")
		out = append(out, labelFilter{key: key, value: value, anyValue: !hasValue})
	}
	return out
}

func matchLabels(labels []Label, filters []labelFilter) bool {
	for _, f := range filters {
		if !hasLabel(labels, f) {
			return false
		}
	}
	return true
}

func hasLabel(labels []Label, f labelFilter) bool {
	for _, l := range labels {
		if l.Key == f.key && (f.anyValue || l.Value == f.value) {
			return true
		}
	}
	return false
}

// labelsOrNone never is nil: the API shows resources without labels with an empty list.
func labelsOrNone(labels []Label) []Label {
	if labels == nil {
		return []Label{}
	}
	return labels
}
