package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const (
	serverThere = "00a217dc-4fa8-4aa2-a20a-306d398362ed"
	serverHere  = "00b00000-0000-4000-8000-000000000001"
	otherHere   = "00b00000-0000-4000-8000-000000000002"
)

// TestDifferences holds answers against recorded ones: a comparison that finds nothing would let every simulator pass.
func TestDifferences(t *testing.T) {
	for name, test := range map[string]struct {
		line, recorded, ours string
		want                 []string // parts of the differences, in order; none: the answers are the same
	}{
		"same": {"GET /zone", `{"zones":{"zone":[{"id":"a"}]}}`, `{"zones":{"zone":[{"id":"a"}]}}`, nil},
		"another UUID": {"GET /server/x", `{"server":{"uuid":"` + serverThere + `","storage":"` + serverThere + `"}}`,
			`{"server":{"uuid":"` + serverHere + `","storage":"` + serverHere + `"}}`, nil},
		"one UUID there, two here": {"GET /server/x",
			`{"server":{"storage":"` + serverThere + `","uuid":"` + serverThere + `"}}`,
			`{"server":{"storage":"` + serverHere + `","uuid":"` + otherHere + `"}}`, []string{".server.uuid"}},
		"a time": {"GET /storage/x", `{"storage":{"created":"2022-10-24T11:05:39Z"}}`,
			`{"storage":{"created":"2026-01-05T09:00:00Z"}}`,
			nil},
		"a time as a number": {"GET /storage/x", `{"storage":{"created":"2022-10-24T11:05:39Z"}}`,
			`{"storage":{"created":1666609539}}`,
			[]string{".storage.created is a number, recorded a string"}},
		"an enumerated value": {"GET /storage/x", `{"storage":{"state":"online"}}`,
			`{"storage":{"state":"maintenance"}}`,
			[]string{`.storage.state is "maintenance", recorded "online"`}},
		"a number": {"GET /storage/x", `{"storage":{"size":10}}`,
			`{"storage":{"size":11}}`,
			[]string{".storage.size is 11"}},
		"a number as a text": {"GET /storage/x", `{"storage":{"size":10}}`,
			`{"storage":{"size":"10"}}`,
			[]string{".storage.size is a string"}},
		"a field too few": {"GET /storage/x", `{"storage":{"size":10,"tier":"hdd"}}`,
			`{"storage":{"size":10}}`,
			[]string{".storage.tier is missing"}},
		"a field too many": {"GET /storage/x", `{"storage":{"size":10}}`,
			`{"storage":{"size":10,"colour":"red"}}`,
			[]string{".storage.colour is in no recording"}},
		"a field of later": {"GET /storage/x", `{"storage":{"size":10}}`,
			`{"storage":{"size":10,"encrypted":"no"}}`,
			nil},
		"null": {"GET /server/x", `{"server":{"server_group":null}}`,
			`{"server":{"server_group":""}}`,
			[]string{"is a string, recorded null"}},
		"a list too short": {"GET /server/x", `{"server":{"tags":{"tag":["a","b"]}}}`,
			`{"server":{"tags":{"tag":["a"]}}}`,
			[]string{"has 1 items, recorded 2"}},
		"an error code": {"POST /server", `{"error":{"error_code":"A","error_message":"a"}}`,
			`{"error":{"error_code":"B","error_message":"b"}}`,
			[]string{".error_code"}},
		"another's resources": {"GET /tag", `{"tags":{"tag":[{"name":"theirs","description":""}]}}`,
			`{"tags":{"tag":[{"name":"ours","description":""}]}}`, nil},
		"another's fields": {"GET /tag", `{"tags":{"tag":[{"name":"theirs","description":""}]}}`,
			`{"tags":{"tag":[{"name":"ours"}]}}`,
			[]string{".tags.tag[0].description is missing"}},
		"not JSON": {"GET /tag", `{"tags":{"tag":[]}}`, `tags`, []string{"is not JSON"}},
	} {
		t.Run(name, func(t *testing.T) {
			known := shapes{".storage": {"encrypted": true}}
			known.learn(kind(test.line, http.StatusOK), decoded(t, test.recorded))
			c := &comparison{names: names{}, shapes: known, request: test.line}
			c.response(step(t, test.line, "", http.StatusOK, test.recorded), decoded(t, test.recorded),
				answered(http.StatusOK, test.ours))
			if len(c.differences) != len(test.want) {
				t.Fatalf("differences %v, want %v", c.differences, test.want)
			}
			for i, want := range test.want {
				if got := c.differences[i].String(); !strings.Contains(got, want) {
					t.Errorf("difference %q, want %q", got, want)
				}
			}
		})
	}
}

func TestStatusAndContentTypeDiffer(t *testing.T) {
	const body = `{"tags":{"tag":[]}}`
	i := step(t, "GET /tag", "", http.StatusOK, body)
	c := &comparison{names: names{}, shapes: shapes{}}
	c.response(i, decoded(t, body), answered(http.StatusNotFound, body))
	if len(c.differences) != 1 || !strings.Contains(c.differences[0].text, "status 404, recorded 200") {
		t.Errorf("another status: %v", c.differences)
	}
	c = &comparison{names: names{}, shapes: shapes{}}
	got := answered(http.StatusOK, body)
	got.Header().Set("Content-Type", "text/plain")
	c.response(i, decoded(t, body), got)
	if len(c.differences) != 1 || !strings.Contains(c.differences[0].text, "content type") {
		t.Errorf("another content type: %v", c.differences)
	}
}

func TestWhatTheClientChoseIsNoName(t *testing.T) {
	const recorded = `{"ip_address":{"address":"10.0.0.5"}}`
	c := (&comparison{names: names{}, shapes: shapes{}}).next(step(t, "POST /ip_address", recorded, http.StatusOK, recorded))
	c.response(step(t, "POST /ip_address", recorded, http.StatusOK, recorded), decoded(t, recorded),
		answered(http.StatusOK, `{"ip_address":{"address":"10.0.0.6"}}`))
	if len(c.differences) != 1 {
		t.Errorf("the client asked for an address and got another: %v", c.differences)
	}
}

func TestKnownDifferencesNeedReasonsAndStayFew(t *testing.T) {
	k, err := readKnown()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(k.Tests) + len(k.Recordings); n > 5 {
		t.Errorf("%d known differences: five at most", n)
	}
	d := difference{request: "GET /network/?zone=fi-hel2", path: ".networks.network[3].name"}
	if k.recording("createmodifydeletenetwork", d) == "" || k.recording("getnetworks", d) != "" {
		t.Error("a known difference is known in its own recording alone")
	}
	d.path = ".networks.network[3].zone"
	if k.recording("createmodifydeletenetwork", d) != "" {
		t.Error("a known difference covers its own field alone")
	}
}

func TestNamesAreReplacedWhole(t *testing.T) {
	n := names{"10.0.0.1": "10.9.9.9", "web": "site"}
	for text, want := range map[string]string{
		"10.0.0.1": "10.9.9.9", "10.0.0.12": "10.0.0.12", "/ip_address/10.0.0.1": "/ip_address/10.9.9.9", "webs": "webs",
		`{"name":"web"}`: `{"name":"site"}`,
	} {
		if got := n.translate(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func step(t *testing.T, line, asked string, code int, body string) *interaction {
	t.Helper()
	method, path, _ := strings.Cut(line, " ")
	i := &interaction{}
	i.Request.Method, i.Request.URL, i.Request.Body = method, "https://api.upcloud.com"+apiPrefix+path, asked
	i.Response.Code, i.Response.Body = code, body
	i.Response.Headers = http.Header{"Content-Type": {"application/json; charset=UTF-8"}}
	return i
}

func answered(code int, body string) *httptest.ResponseRecorder {
	got := httptest.NewRecorder()
	got.Header().Set("Content-Type", "application/json; charset=UTF-8")
	got.WriteHeader(code)
	got.Body.WriteString(body)
	return got
}

func decoded(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}
