package haproxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// matcher is a rule's matcher; exactly the field that its type names is set.
type matcher struct {
	Type           string       `json:"type"`
	Inverse        bool         `json:"inverse"`
	SrcIP          textMatch    `json:"match_src_ip"`
	SrcPort        numberMatch  `json:"match_src_port"`
	BodySize       numberMatch  `json:"match_body_size"`
	Path           textMatch    `json:"match_path"`
	URL            textMatch    `json:"match_url"`
	URLQuery       textMatch    `json:"match_url_query"`
	Host           textMatch    `json:"match_host"`
	HTTPMethod     textMatch    `json:"match_http_method"`
	HTTPStatus     numberMatch  `json:"match_http_status"`
	Cookie         textMatch    `json:"match_cookie"`
	Header         textMatch    `json:"match_header"`
	RequestHeader  textMatch    `json:"match_request_header"`
	ResponseHeader textMatch    `json:"match_response_header"`
	URLParam       textMatch    `json:"match_url_param"`
	NumMembersUp   membersMatch `json:"match_num_members_up"`
}

type textMatch struct {
	Method     string `json:"method"`
	Name       string `json:"name"`
	Value      string `json:"value"`
	IgnoreCase bool   `json:"ignore_case"`
}

type numberMatch struct {
	Method     string `json:"method"`
	Value      int    `json:"value"`
	RangeStart int    `json:"range_start"`
	RangeEnd   int    `json:"range_end"`
}

type membersMatch struct {
	numberMatch
	Backend string `json:"backend"`
}

// ofResponse says whether the matcher looks at what a member answered.
func (m *matcher) ofResponse() bool { return m.Type == "http_status" || m.Type == "response_header" }

// rule is rule number n of a frontend on its way into a configuration.
type rule struct {
	n        int
	mode     string
	dir      string // for payloads
	frontend string
	matchers []matcher
	actions  []action
	either   bool // matching condition `or`
	first    bool // of the rules that match only the first acts
}

func parseRule(n int, r simulator.Rule, f simulator.Frontend, dir string) (*rule, error) {
	out := &rule{n: n, mode: f.Mode, dir: dir, frontend: f.Name, either: r.MatchingCondition == "or"}
	for _, raw := range r.Matchers {
		var m matcher
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, err
		}
		out.matchers = append(out.matchers, m)
	}
	for _, raw := range r.Actions {
		a, err := parseAction(raw)
		if err != nil {
			return nil, err
		}
		out.actions = append(out.actions, a)
	}
	return out, nil
}

// ofResponse says whether the rule can be decided only when a member has answered.
func (r *rule) ofResponse() bool {
	for i := range r.matchers {
		if r.matchers[i].ofResponse() {
			return true
		}
	}
	return false
}

// render writes the rule. In HTTP mode each matcher of the request is decided once, when it is the rule's turn, and its
// outcome kept in a variable: so the actions of one rule all see the same outcome, whatever they change, and those that
// wait for the answer see it, too.
func (r *rule) render(b *bytes.Buffer) error {
	names := make([]string, 0, len(r.matchers))
	for i := range r.matchers {
		m := &r.matchers[i]
		test, err := m.test(r.mode)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("r%d_m%d", r.n, i)
		if r.mode == "http" && !m.ofResponse() {
			fmt.Fprintf(b, "  acl %s_now %s\n", name, test)
			fmt.Fprintf(b, "  http-request set-var(txn.%s) bool(true) if %s_now\n", name, name)
			test = fmt.Sprintf("var(txn.%s) -m bool", name)
		}
		fmt.Fprintf(b, "  acl %s %s\n", name, test)
		if m.Inverse {
			name = "!" + name
		}
		names = append(names, name)
	}
	condition := r.condition(names)
	if r.first {
		condition = r.unlessMatched(b, names)
	}
	for i := range r.actions {
		lines, err := r.directives(i)
		if err != nil {
			return err
		}
		for _, line := range lines {
			fmt.Fprintf(b, "  %s%s\n", line, condition)
		}
	}
	return nil
}

// condition follows a directive that acts if the matchers of these names do.
func (r *rule) condition(names []string) string {
	if len(names) == 0 {
		return ""
	}
	between := " "
	if r.either {
		between = " || "
	}
	return " if " + strings.Join(names, between)
}

// unlessMatched decides whether the rule acts: if it matches, and no rule before it did. What waits for the answer is decided by itself.
func (r *rule) unlessMatched(b *bytes.Buffer, names []string) (condition string) {
	set, done := "http-request", "txn.matched"
	switch {
	case r.mode != "http":
		set = "tcp-request content"
	case r.ofResponse():
		set, done = "http-response", "txn.matched_response"
	}
	over, acts := fmt.Sprintf("r%d_over", r.n), fmt.Sprintf("r%d_acts", r.n)
	fmt.Fprintf(b, "  acl %s var(%s) -m bool\n  acl %s var(txn.%s) -m bool\n", over, done, acts, acts)
	switch {
	case len(names) == 0:
		names = []string{"!" + over}
	case r.either: // which binds less than "and"
		for i := range names {
			names[i] += " !" + over
		}
	default:
		names = append(names, "!"+over)
	}
	fmt.Fprintf(b, "  %s set-var(txn.%s) bool(true)%s\n", set, acts, r.condition(names))
	fmt.Fprintf(b, "  %s set-var(%s) bool(true) if %s\n", set, done, acts)
	return " if " + acts
}

func (m *matcher) test(mode string) (string, error) {
	switch m.Type {
	case "src_ip":
		return "src " + m.SrcIP.Value, nil
	case "src_port":
		return "src_port " + m.SrcPort.operand(), nil
	case "num_members_up":
		return fmt.Sprintf("nbsrv(%s) %s", backendName(m.NumMembersUp.Backend, mode), m.NumMembersUp.operand()), nil
	}
	if mode != "http" {
		return "", fmt.Errorf("matcher %s needs an HTTP frontend", m.Type)
	}
	switch m.Type {
	case "body_size":
		return "req.body_size " + m.BodySize.operand(), nil
	case "path":
		return m.Path.test("path"), nil
	case "url":
		return m.URL.test("var(txn.url)"), nil
	case "url_query":
		return m.URLQuery.test("query"), nil
	case "host":
		return "req.hdr(host),host_only -i -m str -- " + quote(m.Host.Value), nil
	case "http_method":
		return "method " + m.HTTPMethod.Value, nil
	case "http_status":
		return "status " + m.HTTPStatus.operand(), nil
	case "cookie":
		return m.Cookie.test("req.cook(" + m.Cookie.Name + ")"), nil
	case "header":
		return m.Header.test("req.hdr(" + m.Header.Name + ")"), nil
	case "request_header":
		return m.RequestHeader.test("req.hdr(" + m.RequestHeader.Name + ")"), nil
	case "response_header":
		return m.ResponseHeader.test("res.hdr(" + m.ResponseHeader.Name + ")"), nil
	case "url_param":
		return m.URLParam.test("urlp(" + m.URLParam.Name + ")"), nil
	}
	return "", fmt.Errorf("unknown matcher %q", m.Type)
}

// schemelessURL is what the matcher url looks at: "Matches by URL without schema, e.g. example.com/dashboard".
const schemelessURL = "  http-request set-var-fmt(txn.url) %[req.hdr(host)]%[pathq]\n"

var textMethods = map[string]string{
	"exact": "str", "substring": "sub", "regexp": "reg", "starts": "beg", "ends": "end", "domain": "dom",
}

// anAddress is what the method ip matches: text that is an IP address.
const anAddress = `'^([0-9]{1,3}\.){3}[0-9]{1,3}$|^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$'`

func (m textMatch) test(fetch string) string {
	switch m.Method {
	case "exists":
		return fetch + " -m found"
	case "ip":
		return fetch + " -m reg -- " + anAddress
	}
	flags := ""
	if m.IgnoreCase {
		flags = " -i"
	}
	return fmt.Sprintf("%s%s -m %s -- %s", fetch, flags, textMethods[m.Method], quote(m.Value))
}

var numberMethods = map[string]string{"equal": "eq", "greater": "gt", "greater_or_equal": "ge", "less": "lt",
	"less_or_equal": "le"}

func (m numberMatch) operand() string {
	if m.Method == "range" {
		return fmt.Sprintf("%d:%d", m.RangeStart, m.RangeEnd)
	}
	return fmt.Sprintf("%s %d", numberMethods[m.Method], m.Value)
}
