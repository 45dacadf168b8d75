package loadbalancer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// labelChanges sets our labels, each by a call of its own. Labels of others are not looked at.
func labelChanges(want, have cloud.Labels) []Change {
	var changes []Change
	for _, key := range slices.Sorted(maps.Keys(want)) {
		value, ok := have[key]
		switch {
		case !ok:
			changes = append(changes, Change{Name: key, CreateLabel: new(want[key])})
		case key == LabelGeneratedName:
			// As it was written first: UpCloud's own CCM finds the load balancer by it, should it ever come back.
		case value != want[key]:
			changes = append(changes, Change{Name: key, ModifyLabel: new(want[key])})
		}
	}
	return changes
}

// applied returns the labels as they are after the changes.
func applied(labels cloud.Labels, changes []Change) cloud.Labels {
	after := cloud.Labels{}
	maps.Copy(after, labels)
	for _, change := range changes {
		if value := cmp.Or(change.CreateLabel, change.ModifyLabel); value != nil {
			after[change.Name] = *value
		}
	}
	return after
}

// componentSet holds digests of the names of the frontends and backends that we made. The API cannot say who made one, as
// they carry no labels, so the load balancer's own labels do.
type componentSet map[string]bool

// componentsPerLabel keeps a label's value within 255 characters.
const componentsPerLabel = 28

// componentsOf reads the set from a load balancer's labels.
func componentsOf(labels cloud.Labels) componentSet {
	set := componentSet{}
	for key, value := range labels {
		if key != LabelComponents && !strings.HasPrefix(key, LabelComponents+"_") {
			continue
		}
		for digest := range strings.SplitSeq(value, ".") {
			if digest != "" {
				set[digest] = true
			}
		}
	}
	return set
}

func (s componentSet) has(name string) bool { return s[shortDigest(name)] }

// with returns the set with these names added.
func (s componentSet) with(names []string) componentSet {
	more := componentSet{}
	maps.Copy(more, s)
	for _, name := range names {
		more[shortDigest(name)] = true
	}
	return more
}

// labels writes the set: over one label, or as many as it takes.
func (s componentSet) labels() cloud.Labels {
	labels := cloud.Labels{LabelComponents: ""}
	number := 1
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(s)), componentsPerLabel) {
		key := LabelComponents
		if number > 1 {
			key = fmt.Sprintf("%s_%d", LabelComponents, number)
		}
		labels[key] = strings.Join(chunk, ".")
		number++
	}
	return labels
}

// changes writes the set into labels that may hold another one, and empties those that it no longer takes.
func (s componentSet) changes(have cloud.Labels) []Change {
	want := s.labels()
	for key := range have {
		if _, ok := want[key]; !ok && strings.HasPrefix(key, LabelComponents+"_") {
			want[key] = ""
		}
	}
	return labelChanges(want, have)
}
