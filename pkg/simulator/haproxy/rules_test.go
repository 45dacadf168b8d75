package haproxy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/haproxy"
)

// echo is a member that says what it was asked, with the status and the header that the request wishes.
func echo(t *testing.T, name string) (member string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Kind", r.URL.Query().Get("kind"))
		if r.URL.Query().Get("status") == "404" {
			w.WriteHeader(404)
		}
		fmt.Fprintf(w, "%s %s %s", name, r.URL.RequestURI(), r.Header.Get("X-Added"))
	}))
	t.Cleanup(server.Close)
	return memberAt(name, server.Listener.Addr().String())
}

// ask makes a request and returns the answer, redirects included.
func ask(t *testing.T, method, url string, change func(*http.Request)) (resp *http.Response, body string) {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(nil))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err = client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// rules replaces the rules of the frontend fe.
func (b *bench) rules(t *testing.T, uuid string, rules ...string) {
	t.Helper()
	b.Do(t, "PATCH", "/load-balancer/"+uuid+"/frontends/fe", `{"rules":[`+strings.Join(rules, ",")+`]}`, nil)
	b.running(t, uuid)
}

func TestEveryMatcherDecides(t *testing.T) {
	b := startOn(t, simulator.Config{}, haproxy.Config{Rules: haproxy.AllRules})
	uuid, address := b.balance(t, 18100, "http", `{}`, echo(t, "member"))
	var rules []string
	matchers := map[string]string{ // by the name of the rule
		"src-ip":      `{"type":"src_ip","match_src_ip":{"value":"127.0.0.0/8"}}`,
		"src-not":     `{"type":"src_ip","match_src_ip":{"value":"127.0.0.0/8"},"inverse":true}`,
		"src-port":    `{"type":"src_port","match_src_port":{"method":"range","range_start":1024,"range_end":65535}}`,
		"body":        `{"type":"body_size","match_body_size":{"method":"greater_or_equal","value":5}}`,
		"path-exact":  `{"type":"path","match_path":{"method":"exact","value":"/A/b.txt"}}`,
		"path-case":   `{"type":"path","match_path":{"method":"starts","value":"/a/","ignore_case":true}}`,
		"path-nocase": `{"type":"path","match_path":{"method":"starts","value":"/a/"}}`,
		"path-ends":   `{"type":"path","match_path":{"method":"ends","value":".txt"}}`,
		"path-sub":    `{"type":"path","match_path":{"method":"substring","value":"/b."}}`,
		"path-regexp": `{"type":"path","match_path":{"method":"regexp","value":"^/[A-Z]/b\\.(txt|md)$"}}`,
		"url":         `{"type":"url","match_url":{"method":"starts","value":"www.example.com/A/"}}`,
		"url-query":   `{"type":"url_query","match_url_query":{"method":"substring","value":"x=1"}}`,
		"host":        `{"type":"host","match_host":{"value":"www.example.com"}}`,
		"host-domain": `{"type":"request_header","match_request_header":{"name":"Host","method":"domain","value":"example.com"}}`,
		"method":      `{"type":"http_method","match_http_method":{"value":"PUT"}}`,
		"cookie":      `{"type":"cookie","match_cookie":{"name":"who","method":"exact","value":"me"}}`,
		"header":      `{"type":"header","match_header":{"name":"X-Who","method":"exists"}}`,
		"header-ip":   `{"type":"request_header","match_request_header":{"name":"X-Address","method":"ip"}}`,
		"header-noip": `{"type":"request_header","match_request_header":{"name":"X-Who","method":"ip"}}`,
		"url-param":   `{"type":"url_param","match_url_param":{"name":"x","method":"exact","value":"1"}}`,
		"status":      `{"type":"http_status","match_http_status":{"method":"equal","value":404}}`,
		"status-less": `{"type":"http_status","match_http_status":{"method":"less","value":400}}`,
		"response":    `{"type":"response_header","match_response_header":{"name":"X-Kind","method":"exact","value":"special"}}`,
		"members":     `{"type":"num_members_up","match_num_members_up":{"backend":"be","method":"equal","value":1}}`,
		"members-no":  `{"type":"num_members_up","match_num_members_up":{"backend":"be","method":"greater","value":1}}`,
		"both": `{"type":"path","match_path":{"method":"starts","value":"/A"}},
			{"type":"http_status","match_http_status":{"method":"equal","value":404}}`,
		"not-both": `{"type":"path","match_path":{"method":"starts","value":"/B"}},{"type":"http_method","match_http_method":{"value":"PUT"}}`,
	}
	for name, matcher := range matchers {
		rules = append(rules, fmt.Sprintf(`{"name":%q,"priority":1,"matchers":[%s],"actions":[
			{"type":"set_response_header","action_set_response_header":{"header":"X-Matched-%s","value":"yes"}}]}`, name, matcher, name))
	}
	rules = append(rules, fmt.Sprintf(`{"name":"either","priority":1,"matching_condition":"or","matchers":[%s],"actions":[
		{"type":"set_response_header","action_set_response_header":{"header":"X-Matched-either","value":"yes"}}]}`, matchers["not-both"]))
	b.rules(t, uuid, rules...)

	matched := func(resp *http.Response) (out []string) {
		for name := range resp.Header {
			if rule, ok := strings.CutPrefix(name, "X-Matched-"); ok {
				out = append(out, strings.ToLower(rule))
			}
		}
		slices.Sort(out)
		return out
	}
	resp, _ := ask(t, "PUT", "http://"+address+"/A/b.txt?x=1&status=404&kind=special", func(r *http.Request) {
		r.Host = "www.example.com"
		r.Header.Set("X-Who", "me")
		r.Header.Set("X-Address", "10.1.2.3")
		r.AddCookie(&http.Cookie{Name: "who", Value: "me"})
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("hello")), 5
	})
	want := []string{"body", "both", "cookie", "either", "header", "header-ip", "host", "host-domain", "members", "method",
		"path-case", "path-ends", "path-exact", "path-regexp", "path-sub", "response", "src-ip", "src-port", "status", "url",
		"url-param", "url-query"}
	if got := matched(resp); !slices.Equal(got, want) {
		t.Errorf("matched %v\nwant    %v", got, want)
	}
	resp, _ = ask(t, "GET", "http://"+address+"/other", nil)
	want = []string{"members", "src-ip", "src-port", "status-less"}
	if got := matched(resp); !slices.Equal(got, want) {
		t.Errorf("matched %v\nwant    %v", got, want)
	}
}

func rule(name string, priority int, path string, actions ...string) string {
	return fmt.Sprintf(`{"name":%q,"priority":%d,"matchers":[{"type":"path","match_path":{"method":"starts","value":%q}}],"actions":[%s]}`,
		name, priority, path, strings.Join(actions, ","))
}

func act(kind string, fields ...any) string {
	object := map[string]any{}
	for i := 0; i < len(fields); i += 2 {
		object[fields[i].(string)] = fields[i+1]
	}
	text, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"type":%q,"action_%s":%s}`, kind, kind, text)
}

func TestEveryActionActs(t *testing.T) {
	b := startOn(t, simulator.Config{}, haproxy.Config{Rules: haproxy.AllRules})
	uuid, address := b.balance(t, 18101, "http", `{}`, echo(t, "default"))
	b.Do(t, "POST", "/load-balancer/"+uuid+"/backends", `{"name":"other","members":[`+echo(t, "other")+`]}`, nil)
	page := "<h1>it's\n100 %</h1>\n"
	b.rules(t, uuid,
		rule("return", 90, "/return", act("http_return", "status", 503, "content_type", "text/html", "payload", base64.StdEncoding.EncodeToString([]byte(page)))),
		rule("location", 90, "/moved", act("http_redirect", "location", "https://example.com/100%25?a=b c", "status", 308)),
		rule("scheme", 90, "/scheme", act("http_redirect", "scheme", "https")),
		rule("reject", 90, "/reject", act("tcp_reject")),
		// the path that the rule matched is another afterwards: the rest of the rule's actions come all the same
		rule("rewrite", 80, "/api/", act("http_rewrite_path", "match_pattern", "^/api/(.*)$", "rewrite_to", `/v2/\1`),
			act("set_request_header", "header", "X-Added", "value", "100 % it's %[src]"),
			act("set_response_header", "header", "X-Seen", "value", "by the \"rule\""), act("use_backend", "backend", "other")),
		rule("uri", 80, "/uri", act("http_rewrite_uri", "match_pattern", `^/uri\?(.*)$`, "rewrite_to", `/query/\1?was=\1`)),
		rule("all", 80, "/whole", act("http_rewrite_path", "match_pattern", "", "rewrite_to", "/nothing")),
		rule("late", 70, "/v2/", act("set_response_header", "header", "X-Late", "value", "after the rewriting")),
	)
	resp, body := ask(t, "GET", "http://"+address+"/return", nil)
	if resp.StatusCode != 503 || body != page || resp.Header.Get("Content-Type") != "text/html" {
		t.Errorf("http_return: %d %q %q", resp.StatusCode, resp.Header.Get("Content-Type"), body)
	}
	resp, _ = ask(t, "GET", "http://"+address+"/moved", nil)
	if got := resp.Header.Get("Location"); resp.StatusCode != 308 || got != "https://example.com/100%25?a=b c" {
		t.Errorf("http_redirect: %d to %q", resp.StatusCode, got)
	}
	resp, _ = ask(t, "GET", "http://"+address+"/scheme?a=b", nil)
	if got := resp.Header.Get("Location"); resp.StatusCode != 302 || got != "https://"+address+"/scheme?a=b" {
		t.Errorf("http_redirect by scheme: %d to %q", resp.StatusCode, got)
	}
	if resp, err := http.Get("http://" + address + "/reject"); err == nil {
		resp.Body.Close()
		t.Errorf("tcp_reject: %d", resp.StatusCode)
	}
	resp, body = ask(t, "GET", "http://"+address+"/api/things?x=1", nil)
	if body != "other /v2/things?x=1 100 % it's %[src]" || resp.Header.Get("X-Seen") != `by the "rule"` ||
		resp.Header.Get("X-Late") != "after the rewriting" {
		t.Errorf("several actions: %q, headers %v", body, resp.Header)
	}
	if _, body := ask(t, "GET", "http://"+address+"/uri?abc", nil); strings.TrimSpace(body) != "default /query/abc?was=abc" {
		t.Errorf("http_rewrite_uri: %q", body)
	}
	if _, body := ask(t, "GET", "http://"+address+"/whole/path?x=1", nil); strings.TrimSpace(body) != "default /nothing?x=1" {
		t.Errorf("http_rewrite_path of everything: %q", body)
	}
}

func TestTCPRulesRejectAndChoose(t *testing.T) {
	b := start(t)
	uuid, address := b.balance(t, 18102, "tcp", `{}`, echo(t, "default"))
	b.Do(t, "POST", "/load-balancer/"+uuid+"/backends", `{"name":"other","members":[`+echo(t, "other")+`]}`, nil)
	b.rules(t, uuid, `{"name":"r","priority":1,"matchers":[{"type":"src_ip","match_src_ip":{"value":"127.0.0.0/8"}}],"actions":[`+
		act("use_backend", "backend", "other")+`]}`)
	if _, body := ask(t, "GET", "http://"+address+"/", nil); !strings.HasPrefix(body, "other") {
		t.Errorf("use_backend: %q", body)
	}
	b.rules(t, uuid, `{"name":"r","priority":1,"matchers":[{"type":"src_ip","match_src_ip":{"value":"127.0.0.0/8"}}],"actions":[`+act("tcp_reject")+`]}`)
	if resp, err := http.Get("http://" + address + "/"); err == nil {
		resp.Body.Close()
		t.Errorf("tcp_reject: %d", resp.StatusCode)
	}
}

// What comes after a rule that matched is a choice: what the real load balancers do is not known.
func TestRulesAfterOneThatMatched(t *testing.T) {
	header := func(name string) string { return act("set_response_header", "header", "X-"+name, "value", "yes") }
	for evaluation, want := range map[haproxy.RuleEvaluation]map[string]string{
		haproxy.FirstRule: {"/a": "default First", "/b": "other Second", "/c": "default", "/a?status=404": "default First Missing"},
		haproxy.AllRules:  {"/a": "other First Second", "/b": "other Second", "/c": "default", "/a?status=404": "other First Missing Second"},
	} {
		b := startOn(t, simulator.Config{}, haproxy.Config{Rules: evaluation})
		uuid, address := b.balance(t, 18103, "http", `{}`, echo(t, "default"))
		b.Do(t, "POST", "/load-balancer/"+uuid+"/backends", `{"name":"other","members":[`+echo(t, "other")+`]}`, nil)
		b.rules(t, uuid, rule("first", 50, "/a", header("First")),
			`{"name":"second","priority":40,"matching_condition":"or","matchers":[{"type":"path","match_path":{"method":"starts","value":"/a"}},
				{"type":"path","match_path":{"method":"starts","value":"/b"}}],"actions":[`+header("Second")+","+act("use_backend", "backend", "other")+`]}`,
			`{"name":"missing","priority":30,"matchers":[{"type":"http_status","match_http_status":{"method":"equal","value":404}}],"actions":[`+header("Missing")+`]}`)
		for path, answer := range want {
			resp, body := ask(t, "GET", "http://"+address+path, nil)
			who, _, _ := strings.Cut(body, " ")
			got := []string{who}
			for _, name := range []string{"First", "Missing", "Second"} {
				if resp.Header.Get("X-"+name) != "" {
					got = append(got, name)
				}
			}
			if strings.Join(got, " ") != answer {
				t.Errorf("%s, %s: %v, want %s", evaluation, path, got, answer)
			}
		}
	}
}

func TestTCPRulesAfterOneThatMatched(t *testing.T) {
	everybody := `"matchers":[{"type":"src_ip","match_src_ip":{"value":"127.0.0.0/8"}}],"actions":[`
	for evaluation, served := range map[haproxy.RuleEvaluation]bool{haproxy.FirstRule: true, haproxy.AllRules: false} {
		b := startOn(t, simulator.Config{}, haproxy.Config{Rules: evaluation})
		uuid, address := b.balance(t, 18104, "tcp", `{}`, echo(t, "default"))
		b.rules(t, uuid, `{"name":"a","priority":2,`+everybody+act("use_backend", "backend", "be")+`]}`,
			`{"name":"b","priority":1,`+everybody+act("tcp_reject")+`]}`)
		resp, err := http.Get("http://" + address + "/")
		if err == nil {
			resp.Body.Close()
		}
		if (err == nil) != served {
			t.Errorf("%s: %v, want served %v", evaluation, err, served)
		}
	}
}
