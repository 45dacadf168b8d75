package simulator

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
)

// Limits of the OpenAPI document.
const (
	maxMatchers      = 40
	maxActions       = 40
	maxLocation      = 255
	maxHeader        = 256
	maxReturnPayload = 4096 // characters, of base64
)

func checkRule(v *validator, lb *LoadBalancer, r *Rule, path string, names map[string]bool) {
	v.unique(names, r.Name, path+"name")
	v.within(r.Priority, 0, 100, path+"priority")
	v.oneOf(r.MatchingCondition, path+"matching_condition", "", "and", "or")
	v.within(len(r.Matchers), 0, maxMatchers, path+"matchers")
	v.within(len(r.Actions), 1, maxActions, path+"actions")
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
	"path": checkText, "url": checkText, "url_query": checkText, "host": checkValue, "http_method": checkHTTPMethod,
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

func checkNumber(_ *LoadBalancer, m map[string]any) string { return checkNumberUpTo(m, math.MaxInt32) }

func checkNumberUpTo(m map[string]any, most float64) string {
	within := func(name string) string {
		if v, ok := m[name].(float64); !ok || v != math.Trunc(v) || v < 0 || v > most {
			return fmt.Sprintf("The field '%s' must be an integer between 0 and %.0f.", name, most)
		}
		return ""
	}
	switch m["method"] {
	case "equal", "greater", "greater_or_equal", "less", "less_or_equal":
		return within("value")
	case "range":
		if reason := within("range_start"); reason != "" {
			return reason
		}
		return within("range_end")
	}
	return fmt.Sprintf("The method '%v' does not exist.", m["method"])
}

// beyondGo is in regular expressions that HAProxy takes, and Go does not: look-around and references.
var beyondGo = regexp.MustCompile(`\(\?|\\[1-9]`)

func checkText(_ *LoadBalancer, m map[string]any) string {
	switch m["method"] {
	case "regexp":
		if text, _ := m["value"].(string); text != "" {
			if _, err := regexp.Compile(text); err != nil && !beyondGo.MatchString(text) {
				return "The value is not a regular expression."
			}
		}
		return checkValue(nil, m)
	case "exact", "substring", "starts", "ends", "domain":
		return checkValue(nil, m)
	case "exists", "ip":
		return ""
	}
	return fmt.Sprintf("The method '%v' does not exist.", m["method"])
}

var httpMethods = []any{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"}

func checkHTTPMethod(_ *LoadBalancer, m map[string]any) string {
	if !slices.Contains(httpMethods, m["value"]) {
		return fmt.Sprintf("The HTTP method '%v' does not exist.", m["value"])
	}
	return ""
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
	return checkNumberUpTo(m, 100)
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
	return actionChecks[kind](lb, detail)
}

var actionChecks = map[string]func(*LoadBalancer, map[string]any) string{
	"use_backend": checkUseBackend, "http_return": checkHTTPReturn, "http_redirect": checkHTTPRedirect,
	"set_request_header": checkSetHeader, "set_response_header": checkSetHeader,
	"http_rewrite_path": checkRewrite, "http_rewrite_uri": checkRewrite,
	"tcp_reject": checkNothing, "set_forwarded_headers": checkNothing,
}

func checkNothing(*LoadBalancer, map[string]any) string { return "" }

func checkUseBackend(lb *LoadBalancer, a map[string]any) string {
	if name, _ := a["backend"].(string); !lb.hasBackend(name) {
		return fmt.Sprintf("The backend '%s' does not exist.", name)
	}
	return ""
}

func checkHTTPRedirect(_ *LoadBalancer, a map[string]any) string {
	status, given := a["status"].(float64)
	if given && !slices.Contains([]float64{301, 302, 303, 307, 308}, status) {
		return "The status must be one of 301, 302, 303, 307, 308."
	}
	location, _ := a["location"].(string)
	scheme, _ := a["scheme"].(string)
	switch {
	case (location == "") == (scheme == ""):
		return "One of 'location' and 'scheme' is required."
	case scheme != "" && scheme != "http" && scheme != "https":
		return "The scheme must be one of http, https."
	case len(location) > maxLocation || !printable(location):
		return fmt.Sprintf("The location must have at most %d printable characters.", maxLocation)
	}
	return ""
}

var contentTypes = []any{"text/plain", "text/html", "application/javascript", "application/json"}

func checkHTTPReturn(_ *LoadBalancer, a map[string]any) string {
	if status, _ := a["status"].(float64); status < 100 || status > 599 {
		return "The status must be between 100 and 599."
	}
	if !slices.Contains(contentTypes, a["content_type"]) {
		return "The content type must be one of text/plain, text/html, application/javascript, application/json."
	}
	payload, _ := a["payload"].(string)
	if _, err := base64.StdEncoding.DecodeString(payload); err != nil || payload == "" || len(payload) > maxReturnPayload {
		return fmt.Sprintf("The payload must be base64 of 1 to %d characters.", maxReturnPayload)
	}
	return ""
}

func checkSetHeader(_ *LoadBalancer, a map[string]any) string {
	name, _ := a["header"].(string)
	if !headerName.MatchString(name) || len(name) > maxHeader {
		return "The field 'header' is required."
	}
	if value, _ := a["value"].(string); len(value) > maxHeader || !printable(value) {
		return fmt.Sprintf("The value must have at most %d printable characters.", maxHeader)
	}
	return ""
}

func checkRewrite(_ *LoadBalancer, a map[string]any) string {
	pattern, given := a["match_pattern"].(string)
	if !given || !printable(pattern) {
		return "The field 'match_pattern' is required."
	}
	if to, _ := a["rewrite_to"].(string); to == "" || !printable(to) {
		return "The field 'rewrite_to' is required."
	}
	return ""
}
