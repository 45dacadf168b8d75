package simulator

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
)

const maxMatchers = 100

func checkRule(v *validator, lb *LoadBalancer, r *Rule, path string, names map[string]bool) {
	v.unique(names, r.Name, path+"name")
	v.within(r.Priority, 0, 100, path+"priority")
	v.oneOf(r.MatchingCondition, path+"matching_condition", "", "and", "or")
	v.within(len(r.Matchers), 0, maxMatchers, path+"matchers")
	v.within(len(r.Actions), 1, maxMatchers, path+"actions")
	for i := range r.Matchers {
		filled, reason := checkMatcher(lb, r.Matchers[i])
		v.add(reason == "", fmt.Sprintf("%smatchers.%d", path, i), "%s", reason)
		if reason == "" {
			r.Matchers[i] = filled
		}
	}
	for i := range r.Actions {
		reason := checkAction(lb, r.Actions[i])
		v.add(reason == "", fmt.Sprintf("%sactions.%d", path, i), "%s", reason)
	}
}

var matcherTypes = map[string]func(*LoadBalancer, map[string]any) string{
	"src_ip": checkSourceIP, "src_port": checkNumber, "body_size": checkNumber, "http_status": checkNumber,
	"path": checkText, "url": checkText, "url_query": checkText, "host": checkValue, "http_method": checkValue,
	"cookie": checkNamedText, "header": checkNamedText, "request_header": checkNamedText, "response_header": checkNamedText,
	"url_param": checkNamedText, "num_members_up": checkMembersUp,
}

// checkMatcher returns the matcher with its defaults filled in, or the reason why it is not one.
func checkMatcher(lb *LoadBalancer, raw Matcher) (Matcher, string) {
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, "Must be an object."
	}
	kind, _ := m["type"].(string)
	check, known := matcherTypes[kind]
	if !known {
		return nil, fmt.Sprintf("The matcher type '%s' does not exist.", kind)
	}
	detail, ok := m["match_"+kind].(map[string]any)
	if !ok {
		return nil, fmt.Sprintf("The field 'match_%s' is required.", kind)
	}
	if reason := check(lb, detail); reason != "" {
		return nil, reason
	}
	inverse, _ := m["inverse"].(bool)
	filled, err := orderedJSON("type", kind, "inverse", inverse, "match_"+kind, detail)
	if err != nil {
		return nil, err.Error()
	}
	return Matcher(filled), ""
}

// orderedJSON writes an object whose fields are in the order given.
func orderedJSON(pairs ...any) ([]byte, error) {
	out := []byte{'{'}
	for i := 0; i < len(pairs); i += 2 {
		value, err := json.Marshal(pairs[i+1])
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(fmt.Appendf(out, "%q:", pairs[i]), value...)
	}
	return append(out, '}'), nil
}

func checkSourceIP(_ *LoadBalancer, m map[string]any) string {
	text, _ := m["value"].(string)
	if _, err := netip.ParseAddr(text); err == nil {
		return ""
	}
	if _, err := netip.ParsePrefix(text); err == nil {
		return ""
	}
	return fmt.Sprintf("'%s' is neither an IP address nor a network.", text)
}

func checkNumber(_ *LoadBalancer, m map[string]any) string {
	switch m["method"] {
	case "equal", "greater", "greater_or_equal", "less", "less_or_equal":
		if _, ok := m["value"].(float64); !ok {
			return "The field 'value' is required."
		}
		return ""
	case "range":
		return ""
	}
	return fmt.Sprintf("The method '%v' does not exist.", m["method"])
}

func checkText(_ *LoadBalancer, m map[string]any) string {
	switch m["method"] {
	case "exact", "substring", "regexp", "starts", "ends", "domain", "ip":
		return checkValue(nil, m)
	case "exists":
		return ""
	}
	return fmt.Sprintf("The method '%v' does not exist.", m["method"])
}

func checkValue(_ *LoadBalancer, m map[string]any) string {
	text, _ := m["value"].(string)
	if text == "" || !printable(text) {
		return "The field 'value' is required."
	}
	return ""
}

func checkNamedText(lb *LoadBalancer, m map[string]any) string {
	name, _ := m["name"].(string)
	if !headerName.MatchString(name) {
		return "The field 'name' is required."
	}
	return checkText(lb, m)
}

func checkMembersUp(lb *LoadBalancer, m map[string]any) string {
	name, _ := m["backend"].(string)
	if !lb.hasBackend(name) {
		return fmt.Sprintf("The backend '%s' does not exist.", name)
	}
	return checkNumber(lb, m)
}

var actionTypes = []string{"use_backend", "tcp_reject", "http_return", "http_redirect", "set_forwarded_headers",
	"set_request_header", "set_response_header", "http_rewrite_path", "http_rewrite_uri"}

// checkAction returns the reason why an action is not one, or nothing.
func checkAction(lb *LoadBalancer, raw Action) string {
	var a map[string]any
	if err := json.Unmarshal(raw, &a); err != nil {
		return "Must be an object."
	}
	kind, _ := a["type"].(string)
	if !slices.Contains(actionTypes, kind) {
		return fmt.Sprintf("The action type '%s' does not exist.", kind)
	}
	detail, ok := a["action_"+kind].(map[string]any)
	if !ok {
		return fmt.Sprintf("The field 'action_%s' is required.", kind)
	}
	switch kind {
	case "use_backend":
		if name, _ := detail["backend"].(string); !lb.hasBackend(name) {
			return fmt.Sprintf("The backend '%s' does not exist.", name)
		}
	case "http_redirect":
		status, given := detail["status"].(float64)
		if given && !slices.Contains([]float64{301, 302, 303, 307, 308}, status) {
			return "The status must be one of 301, 302, 303, 307, 308."
		}
		location, _ := detail["location"].(string)
		scheme, _ := detail["scheme"].(string)
		if (location == "") == (scheme == "") {
			return "One of 'location' and 'scheme' is required."
		}
	case "http_return":
		if status, _ := detail["status"].(float64); status < 100 || status > 599 {
			return "The status must be between 100 and 599."
		}
	case "set_request_header", "set_response_header":
		if name, _ := detail["header"].(string); !headerName.MatchString(name) {
			return "The field 'header' is required."
		}
	}
	return ""
}
