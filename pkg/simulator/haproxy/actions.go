package haproxy

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

type action struct {
	Type         string                   `json:"type"`
	UseBackend   struct{ Backend string } `json:"action_use_backend"`
	HTTPReturn   httpReturn               `json:"action_http_return"`
	HTTPRedirect httpRedirect             `json:"action_http_redirect"`
	SetRequest   setHeader                `json:"action_set_request_header"`
	SetResponse  setHeader                `json:"action_set_response_header"`
	RewritePath  rewrite                  `json:"action_http_rewrite_path"`
	RewriteURI   rewrite                  `json:"action_http_rewrite_uri"`
}

type httpReturn struct {
	Status      int    `json:"status"`
	ContentType string `json:"content_type"`
	Payload     []byte `json:"payload"` // base64
}

type httpRedirect struct {
	Location string `json:"location"`
	Scheme   string `json:"scheme"`
	Status   int    `json:"status"`
}

type setHeader struct {
	Header string `json:"header"`
	Value  string `json:"value"`
}

type rewrite struct {
	Pattern string `json:"match_pattern"`
	To      string `json:"rewrite_to"`
}

// pattern is the regular expression of what is rewritten: all of it, when none is given.
func (r rewrite) pattern() string {
	if r.Pattern == "" {
		return "^(.*)$"
	}
	return r.Pattern
}

func parseAction(a simulator.Action) (action, error) {
	var out action
	err := json.Unmarshal(a, &out)
	return out, err
}

// directives returns the lines that do what action i says, each to be followed by the condition.
func (r *rule) directives(i int) ([]string, error) {
	a := &r.actions[i]
	switch a.Type {
	case "use_backend":
		return []string{"use_backend " + backendName(a.UseBackend.Backend, r.mode)}, nil
	case "tcp_reject":
		if r.mode == "http" {
			return []string{r.phase() + " reject"}, nil
		}
		return []string{"tcp-request content reject"}, nil
	}
	if r.mode != "http" {
		return nil, fmt.Errorf("action %s needs an HTTP frontend", a.Type)
	}
	switch a.Type {
	case "http_return":
		text := fmt.Sprintf("%s return status %d", r.phase(), a.HTTPReturn.Status)
		if len(a.HTTPReturn.Payload) > 0 {
			text += fmt.Sprintf(" content-type %s file %s", quote(a.HTTPReturn.ContentType), quote(r.payloadPath(i)))
		}
		return []string{text}, nil
	case "http_redirect":
		return []string{r.phase() + " " + a.HTTPRedirect.directive()}, nil
	case "set_forwarded_headers":
		return []string{
			"http-request set-header X-Forwarded-For %[src]",
			"http-request set-header X-Forwarded-Port %[dst_port]",
			"http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]",
		}, nil
	case "set_request_header":
		return []string{"http-request " + a.SetRequest.directive()}, nil
	case "set_response_header":
		return []string{"http-response " + a.SetResponse.directive()}, nil
	case "http_rewrite_path":
		return []string{fmt.Sprintf("http-request replace-path %s %s", quote(a.RewritePath.pattern()), format(a.RewritePath.To))}, nil
	case "http_rewrite_uri":
		// path and query: an HTTP/2 request's URI would have scheme and host, too
		return []string{fmt.Sprintf("http-request replace-pathq %s %s", quote(a.RewriteURI.pattern()), format(a.RewriteURI.To))}, nil
	}
	return nil, fmt.Errorf("unknown action %q", a.Type)
}

// phase is when the rule can be decided.
func (r *rule) phase() string {
	if r.ofResponse() {
		return "http-response"
	}
	return "http-request"
}

func (a httpRedirect) directive() string {
	code := a.Status
	if code == 0 {
		code = 302
	}
	if a.Scheme != "" {
		return fmt.Sprintf("redirect scheme %s code %d", a.Scheme, code)
	}
	return fmt.Sprintf("redirect location %s code %d", format(a.Location), code)
}

func (a setHeader) directive() string {
	if a.Value == "" {
		return "del-header " + quote(a.Header)
	}
	return "set-header " + quote(a.Header) + " " + format(a.Value)
}

func (r *rule) payloadPath(i int) string {
	return filepath.Join(r.dir, fmt.Sprintf("%s_r%d_a%d.payload", r.frontend, r.n, i))
}

// payloads are the bodies that the rule's actions answer with, by the file that each is in.
func (r *rule) payloads() map[string][]byte {
	out := map[string][]byte{}
	for i := range r.actions {
		if a := &r.actions[i]; a.Type == "http_return" && len(a.HTTPReturn.Payload) > 0 {
			out[r.payloadPath(i)] = a.HTTPReturn.Payload
		}
	}
	return out
}

// quote makes one word of text, whatever is in it.
func quote(text string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "\n", "", "\r", "").Replace(text) + "'"
}

// format is quote for where HAProxy would put values into the text: it must not here.
func format(text string) string { return quote(strings.ReplaceAll(text, "%", "%%")) }
