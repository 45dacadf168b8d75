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
	Method  string `json:"method"`
	Value   int    `json:"value"`
	Backend string `json:"backend"`
}

// renderRule writes rule number n of a frontend: an ACL for each matcher, and each action under the condition that
// they make.
func renderRule(b *bytes.Buffer, n int, r simulator.Rule, mode string) error {
	names := make([]string, 0, len(r.Matchers))
	for i, raw := range r.Matchers {
		var m matcher
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		test, err := m.test(mode)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("r%d_m%d", n, i)
		fmt.Fprintf(b, "  acl %s %s\n", name, test)
		if m.Inverse {
			name = "!" + name
		}
		names = append(names, name)
	}
	condition := ""
	switch {
	case len(names) > 0 && r.MatchingCondition == "or":
		condition = " if " + strings.Join(names, " || ")
	case len(names) > 0:
		condition = " if " + strings.Join(names, " ")
	}
	for _, raw := range r.Actions {
		a, err := parseAction(raw)
		if err != nil {
			return err
		}
		text, err := a.directive(mode)
		if err != nil {
			return err
		}
		for _, line := range text {
			fmt.Fprintf(b, "  %s%s\n", line, condition)
		}
	}
	return nil
}

func (m *matcher) test(mode string) (string, error) {
	switch m.Type {
	case "src_ip":
		return "src " + m.SrcIP.Value, nil
	case "src_port":
		return "src_port " + m.SrcPort.operand(), nil
	case "num_members_up":
		number := numberMatch{Method: m.NumMembersUp.Method, Value: m.NumMembersUp.Value}
		return fmt.Sprintf("nbsrv(%s) %s", backendName(m.NumMembersUp.Backend, mode), number.operand()), nil
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
		return m.URL.test("url"), nil
	case "url_query":
		return m.URLQuery.test("query"), nil
	case "host":
		return "req.hdr(host),host_only -i -m str " + quote(m.Host.Value), nil
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

var textMethods = map[string]string{
	"exact": "str", "substring": "sub", "regexp": "reg", "starts": "beg", "ends": "end", "domain": "dom", "ip": "ip",
	"exists": "found",
}

func (m textMatch) test(fetch string) string {
	method := textMethods[m.Method]
	if method == "found" {
		return fetch + " -m found"
	}
	flags := ""
	if m.IgnoreCase {
		flags = " -i"
	}
	return fmt.Sprintf("%s%s -m %s -- %s", fetch, flags, method, quote(m.Value))
}

var numberMethods = map[string]string{"equal": "eq", "greater": "gt", "greater_or_equal": "ge", "less": "lt",
	"less_or_equal": "le"}

func (m numberMatch) operand() string {
	if m.Method == "range" {
		return fmt.Sprintf("%d:%d", m.RangeStart, m.RangeEnd)
	}
	return fmt.Sprintf("%s %d", numberMethods[m.Method], m.Value)
}

// directive returns the lines that do what the action says, each to be followed by the condition.
func (a *action) directive(mode string) ([]string, error) {
	switch a.Type {
	case "use_backend":
		return []string{"use_backend " + backendName(a.UseBackend.Backend, mode)}, nil
	case "tcp_reject":
		return []string{"tcp-request content reject"}, nil
	}
	if mode != "http" {
		return nil, fmt.Errorf("action %s needs an HTTP frontend", a.Type)
	}
	switch a.Type {
	case "http_return":
		return []string{fmt.Sprintf("http-request return status %d content-type %s string %s",
			a.HTTPReturn.Status, quote(a.HTTPReturn.ContentType), quote(string(a.HTTPReturn.Payload)))}, nil
	case "http_redirect":
		code := a.HTTPRedirect.Status
		if code == 0 {
			code = 302
		}
		if a.HTTPRedirect.Scheme != "" {
			return []string{fmt.Sprintf("http-request redirect scheme %s code %d", a.HTTPRedirect.Scheme, code)}, nil
		}
		return []string{fmt.Sprintf("http-request redirect location %s code %d", quote(a.HTTPRedirect.Location), code)}, nil
	case "set_forwarded_headers":
		return []string{
			"http-request set-header X-Forwarded-For %[src]",
			"http-request set-header X-Forwarded-Port %[dst_port]",
			"http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]",
		}, nil
	case "set_request_header":
		return []string{fmt.Sprintf("http-request set-header %s %s", quote(a.SetRequest.Header),
			quote(a.SetRequest.Value))}, nil
	case "set_response_header":
		return []string{fmt.Sprintf("http-response set-header %s %s", quote(a.SetResponse.Header),
			quote(a.SetResponse.Value))}, nil
	case "http_rewrite_path":
		return []string{fmt.Sprintf("http-request replace-path %s %s", quote(a.RewritePath.Pattern),
			quote(a.RewritePath.To))}, nil
	case "http_rewrite_uri":
		return []string{fmt.Sprintf("http-request replace-uri %s %s", quote(a.RewriteURI.Pattern), quote(a.RewriteURI.To))}, nil
	}
	return nil, fmt.Errorf("unknown action %q", a.Type)
}
