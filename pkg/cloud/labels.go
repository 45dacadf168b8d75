package cloud

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// Labels that this package puts on what it makes, and finds it by.
const (
	// LabelName holds the name that a volume was asked for under.
	LabelName = "csi-name"
	// LabelCluster holds Config.ClusterID, where that is set.
	LabelCluster = "csi-cluster"
	// LabelClusterUID holds the UID of the cluster that a thing was made for: that of its namespace kube-system. A name that people
	// give (LabelCluster) may be given twice; a UID is given by an API server, and shared only by copies of its etcd.
	LabelClusterUID = "csi-cluster-uid"
	// LabelUsed is "yes" on a volume of a name that people chose from before it is attached for the first time (see checkUnused).
	LabelUsed = "csi-used"
	// LabelSource holds the ID of the storage that a volume was made a copy of; the API does not tell of clones.
	LabelSource = "csi-source"
)

// Lengths of labels in characters, from the API's documentation of its newer products.
const (
	minLabelKey   = 2
	maxLabelKey   = 32
	maxLabelValue = 255
)

// ValidateLabel returns an error of kind ErrInvalid when the API would not take the label.
func ValidateLabel(key, value string) error { return checkLabel(key, value) }

// checkLabel says what is wrong with a label, so that a bad one is told by its name before anything is made.
func checkLabel(key, value string) error {
	switch n := utf8.RuneCountInString(key); {
	case n < minLabelKey || n > maxLabelKey:
		return invalid("label key %q has %d characters: give %d to %d", key, n, minLabelKey, maxLabelKey)
	case !printable(key):
		return invalid("label key %q has characters that are not printable: leave them out", key)
	}
	switch n := utf8.RuneCountInString(value); {
	case n > maxLabelValue:
		return invalid("the value of label %s has %d characters: give at most %d", key, n, maxLabelValue)
	case !printable(value):
		return invalid("the value %q of label %s has characters that are not printable: leave them out", value, key)
	}
	return nil
}

func printable(text string) bool {
	if !utf8.ValidString(text) {
		return false
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

func invalid(format string, args ...any) error {
	return &Error{Kind: ErrInvalid, Message: fmt.Sprintf(format, args...)}
}

// labelQuery asks for what has all of these labels, in a fixed order.
func labelQuery(labels map[string]string) string {
	query := url.Values{}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		query.Add("label", key+"="+labels[key])
	}
	return query.Encode()
}

func labelMap(labels []upcloud.Label) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	byKey := make(map[string]string, len(labels))
	for _, label := range labels {
		byKey[label.Key] = label.Value
	}
	return byKey
}

func labelList(byKey map[string]string) []upcloud.Label {
	var labels []upcloud.Label
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		labels = append(labels, upcloud.Label{Key: key, Value: byKey[key]})
	}
	return labels
}

// hasLabels reports whether every one of wanted is in labels with that value.
func hasLabels(labels, wanted map[string]string) bool {
	for key, value := range wanted {
		if has, found := labels[key]; !found || has != value {
			return false
		}
	}
	return true
}
