package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// accountWide are the lists of everything in the account or the cloud: the recorded ones have what others made, too.
// They are told by their path in the answer.
var accountWide = regexp.MustCompile(`^(load-balancer|file-storage|tokens|load-balancer/(plans|certificate-bundles)|` +
	`\.servers\.server|\.storages\.storage|\.networks\.network(\[\d+\]\.servers\.server)?|\.network\.servers\.server|` +
	`\.routers\.router(\[\d+\]\.attached_networks\.network)?|\.router\.attached_networks\.network|\.tags\.tag|` +
	`\.ip_addresses\.ip_address|\.server_groups\.server_group|\.zones\.zone|\.plans\.plan|\.prices\.zone|` +
	`\.timezones\.timezone|\.server_sizes\.server_size|\.accounts\.account)$`)

// identities are the fields that name an item of a list, the first that it has.
var identities = []string{"uuid", "id", "address", "username", "name", "key"}

func (c *comparison) list(path string, recorded, ours []any) {
	if accountWide.MatchString(path) {
		c.wideList(path, recorded, ours)
		return
	}
	if strings.HasSuffix(path, ".labels") && !hasOwnLabels(recorded) {
		ours = slices.DeleteFunc(slices.Clone(ours), isOwnLabel)
	}
	if len(recorded) != len(ours) {
		c.differ(path, "has %d items, recorded %d", len(ours), len(recorded))
	}
	for i := range min(len(recorded), len(ours)) {
		c.value(fmt.Sprintf("%s[%d]", path, i), recorded[i], ours[i])
	}
}

// isOwnLabel says whether a label is the API's own. It has put them on copies of its templates since about 2024:
// recordings that are older have none.
func isOwnLabel(label any) bool { return strings.HasPrefix(fmt.Sprint(identity(label)), "_") }

func hasOwnLabels(labels []any) bool { return slices.ContainsFunc(labels, isOwnLabel) }

// wideList compares those items that are the same here and there in full; of the others the simulator must show what
// all recorded ones of the kind have, and nothing that none has.
func (c *comparison) wideList(path string, recorded, ours []any) {
	same := make(map[int]bool) // items of ours
	var foreign []any
	last := -1
	for _, r := range recorded {
		if i := c.find(r, ours, same); i >= 0 {
			same[i] = true
			if i < last && !orderedByName(r) {
				c.differ(path, "has items in another order")
			}
			last = max(last, i)
			c.value(fmt.Sprintf("%s[%d]", path, i), r, ours[i])
			continue
		}
		if name := identity(r); c.names[name] != "" {
			c.differ(path, "lacks %s, which was recorded as %s", c.names[name], name)
			continue
		}
		foreign = append(foreign, r)
	}
	for i, o := range ours {
		if same[i] || len(recorded) == 0 {
			continue
		}
		c.pair(o, foreign)
		c.resembles(fmt.Sprintf("%s[%d]", path, i), recorded, o)
	}
}

// orderedByName says whether lists of such items are in the order of what the API named them: the older resources.
func orderedByName(item any) bool {
	object, _ := item.(map[string]any)
	return object["uuid"] != nil && object["created_at"] == nil || object["address"] != nil
}

func identity(v any) string {
	object, ok := v.(map[string]any)
	if !ok {
		text, _ := v.(string)
		return text
	}
	for _, key := range identities {
		if name, ok := object[key].(string); ok {
			return name
		}
	}
	return fmt.Sprint(v)
}

// find returns the index of the item of ours that is the recorded one.
func (c *comparison) find(recorded any, ours []any, taken map[int]bool) int {
	name := identity(recorded)
	if known, ok := c.names[name]; ok {
		name = known
	}
	for i, o := range ours {
		if !taken[i] && identity(o) == name {
			return i
		}
	}
	return -1
}

// pair learns which of the cloud's own resources is like ours: one of the same name, or the same type in the same zone.
func (c *comparison) pair(ours any, foreign []any) {
	o, ok := ours.(map[string]any)
	if !ok {
		return
	}
	for _, f := range foreign {
		r, _ := f.(map[string]any)
		alike := r["name"] != nil && r["name"] == o["name"] ||
			r["zone"] != nil && r["type"] != nil && r["zone"] == o["zone"] && r["type"] == o["type"] && r["type"] != "private"
		if name := identity(f); alike && c.names[name] == "" && identity(ours) != name {
			c.names[name] = identity(ours)
		}
	}
}

// resembles says what is wrong with the fields and types of an item for which there is no recorded one.
func (c *comparison) resembles(path string, recorded []any, ours any) {
	o, ok := ours.(map[string]any)
	if !ok {
		if typeOf(ours) != typeOf(recorded[0]) {
			c.differ(path, "is %s, recorded %s", typeOf(ours), typeOf(recorded[0]))
		}
		return
	}
	for key, value := range o {
		if !c.shapes.has(path, key) {
			c.differ(path+"."+key, "is in no recording")
			continue
		}
		want := typesOf(recorded, key)
		delete(want, "nothing")
		if len(want) > 0 && !want[typeOf(value)] {
			c.differ(path+"."+key, "is %s, which was never recorded", typeOf(value))
			continue
		}
		c.recordedFields(path+"."+key, value)
	}
	for key := range recorded[0].(map[string]any) {
		if _, has := o[key]; !has && !typesOf(recorded, key)["nothing"] {
			c.differ(path+"."+key, "is missing")
		}
	}
}

// recordedFields finds fields, however deep, that are in no recording.
func (c *comparison) recordedFields(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if !c.shapes.has(path, key) {
				c.differ(path+"."+key, "is in no recording")
				continue
			}
			c.recordedFields(path+"."+key, value)
		}
	case []any:
		for i, value := range v {
			c.recordedFields(fmt.Sprintf("%s[%d]", path, i), value)
		}
	}
}

// typesOf returns the types that a field has in the items, "nothing" where one lacks it.
func typesOf(items []any, key string) map[string]bool {
	out := map[string]bool{}
	for _, item := range items {
		object, _ := item.(map[string]any)
		if value, ok := object[key]; ok {
			out[typeOf(value)] = true
		} else {
			out["nothing"] = true
		}
	}
	return out
}
