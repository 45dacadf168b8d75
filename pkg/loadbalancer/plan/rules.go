package plan

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Priorities of the rules that are made for a port that is one Service's as a whole. Source ranges come first: whoever is not in them must
// not even be answered.
const (
	prioritySourceRanges = settings.MaxPriority
	priorityRedirect     = 90
	priorityForwarded    = 0
)

// maxActions is how many actions the API takes in a rule.
const maxActions = 40

// RulesOfPort are the rules that follow from a Service's source ranges and its settings, and those that it asks for. It is not known
// whether any rule is evaluated after one that matched, so each is whole by itself: forwarded headers are set by all rules after which a
// member is asked, and by a last one for the requests that match no other.
func RulesOfPort(ranges []netip.Prefix, s *settings.PortSettings, backend string) []cloud.Rule {
	rules := generatedRules(ranges, s)
	if !s.Forwarded {
		return append(rules, s.Rules...)
	}
	last := cloud.Rule{Name: settings.RuleForwarded, Priority: priorityForwarded, Matchers: []json.RawMessage{},
		Actions: []json.RawMessage{action(setForwarded, nil)}}
	behind := func(rule cloud.Rule) bool { return rule.Priority == priorityForwarded && rule.Name > last.Name }
	if !slices.ContainsFunc(s.Rules, behind) { // whose backend it must not take
		last.Actions = append(last.Actions, action("use_backend", map[string]any{"backend": backend}))
	}
	for _, rule := range s.Rules {
		rules = append(rules, withForwarded(rule))
	}
	return append(rules, last)
}

const setForwarded = "set_forwarded_headers"

// withForwarded is a rule that sets the forwarded headers, too, if a member may be asked after it. A rule that has as many actions as the
// API takes stays as it is.
func withForwarded(rule cloud.Rule) cloud.Rule {
	if !lacksForwarded(rule) || len(rule.Actions) >= maxActions {
		return rule
	}
	rule.Actions = append([]json.RawMessage{action(setForwarded, nil)}, rule.Actions...)
	return rule
}

// ForwardedRemarks tell of rules after which a member is asked without the forwarded headers that the Service wants.
func ForwardedRemarks(asked *settings.Settings) []settings.Problem {
	var full []string
	for _, port := range asked.EveryPort() {
		for _, rule := range port.Rules {
			if port.Forwarded && lacksForwarded(rule) && len(rule.Actions) >= maxActions {
				full = append(full, rule.Name)
			}
		}
	}
	if len(full) == 0 {
		return nil
	}
	return []settings.Problem{{Reason: "TooManyActions", Message: fmt.Sprintf("annotation %s: rules %s have %d actions, the most that a rule can have, so that "+
		"requests that they match get no forwarded headers: take away an action of each, or replace one by %s", settings.AnnotationConfig,
		settings.Abbreviated(strings.Join(full, ", ")), maxActions, setForwarded)}}
}

// lacksForwarded says whether a member may be asked after a rule that does not set the forwarded headers.
func lacksForwarded(rule cloud.Rule) bool {
	sets := func(part json.RawMessage) bool { return kindOf(part) == setForwarded }
	answers := func(part json.RawMessage) bool {
		return slices.Contains([]string{"tcp_reject", "http_return", "http_redirect"}, kindOf(part))
	}
	ofAnswer := func(part json.RawMessage) bool {
		return slices.Contains([]string{"http_status", "response_header"}, kindOf(part))
	}
	return !slices.ContainsFunc(rule.Matchers, ofAnswer) && !slices.ContainsFunc(rule.Actions, sets) && !slices.ContainsFunc(rule.Actions, answers)
}

// kindOf is the type of a matcher or an action.
func kindOf(part json.RawMessage) string {
	var typed struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(part, &typed) // what is not an object has none
	return typed.Type
}

func generatedRules(ranges []netip.Prefix, s *settings.PortSettings) []cloud.Rule {
	var rules []cloud.Rule
	if len(ranges) > 0 {
		rule := cloud.Rule{Name: settings.RuleSourceRanges, Priority: prioritySourceRanges, Actions: []json.RawMessage{action("tcp_reject", nil)}}
		for _, prefix := range ranges {
			rule.Matchers = append(rule.Matchers, raw(map[string]any{
				"type": "src_ip", "inverse": true, "match_src_ip": map[string]any{"value": prefix.String()},
			}))
		}
		rules = append(rules, rule)
	}
	if s.Redirect {
		rules = append(rules, cloud.Rule{Name: settings.RuleRedirect, Priority: priorityRedirect, Matchers: []json.RawMessage{}, Actions: []json.RawMessage{
			action("http_redirect", map[string]any{"scheme": "https", "status": 301})}})
	}
	return rules
}

func action(kind string, detail map[string]any) json.RawMessage {
	if detail == nil {
		detail = map[string]any{}
	}
	return raw(map[string]any{"type": kind, "action_" + kind: detail})
}

func raw(value map[string]any) json.RawMessage {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // only of values that are written in this file
	}
	return text
}

// sameRule says whether the API has a rule as it was asked for. The API fills in defaults, and keeps matchers in an order of
// its own; conditions are evaluated to the same whatever their order, actions are not.
func sameRule(want, have cloud.Rule) bool {
	condition := func(r cloud.Rule) string { return cmp.Or(r.MatchingCondition, "and") }
	if want.Priority != have.Priority || len(want.Matchers) != len(have.Matchers) || len(want.Actions) != len(have.Actions) {
		return false
	}
	if condition(want) != condition(have) && len(want.Matchers) > 1 {
		return false
	}
	for i := range want.Actions {
		if !covered(decoded(want.Actions[i]), decoded(have.Actions[i])) {
			return false
		}
	}
	return matched(decodedAll(want.Matchers), decodedAll(have.Matchers))
}

// matched says whether each of want has a partner of its own among have that has all of it.
func matched(want, have []any) bool {
	partner := make([]int, len(have)) // of have: which of want, plus one
	var find func(i int, tried []bool) bool
	find = func(i int, tried []bool) bool {
		for j := range have {
			if tried[j] || !covered(want[i], have[j]) {
				continue
			}
			tried[j] = true
			if partner[j] == 0 || find(partner[j]-1, tried) {
				partner[j] = i + 1
				return true
			}
		}
		return false
	}
	for i := range want {
		if !find(i, make([]bool, len(have))) {
			return false
		}
	}
	return true
}

func decodedAll(all []json.RawMessage) []any {
	var out []any
	for _, one := range all {
		out = append(out, decoded(one))
	}
	return out
}

func decoded(text json.RawMessage) any {
	var value any
	_ = json.Unmarshal(text, &value)
	return value
}

// covered says whether have has everything of want. What want leaves out, or leaves empty, may be filled in.
func covered(want, have any) bool {
	fields, ok := want.(map[string]any)
	if !ok {
		return sameValue(want, have)
	}
	filled, _ := have.(map[string]any)
	for name, value := range fields {
		other, there := filled[name]
		if !there {
			if value == false || value == "" {
				continue
			}
			return false
		}
		if !covered(value, other) {
			return false
		}
	}
	return true
}

func sameValue(a, b any) bool {
	if text, ok := a.(string); ok {
		other, _ := b.(string)
		if text == other {
			return true
		}
		left, errLeft := prefixOf(text)
		right, errRight := prefixOf(other)
		return errLeft == nil && errRight == nil && left == right
	}
	left, errLeft := json.Marshal(a)
	right, errRight := json.Marshal(b)
	return errLeft == nil && errRight == nil && bytes.Equal(left, right)
}

// prefixOf reads an address as the network of it alone, so that 192.0.2.1 and 192.0.2.1/32 are the same.
func prefixOf(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil {
		return address.Prefix(address.BitLen())
	}
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err
}
