package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
)

// difference is where an answer of the simulator's is not what was recorded.
type difference struct {
	request string // its line
	path    string // in the answer
	text    string
	timed   bool // it may pass with time
}

func (d difference) String() string {
	return d.request + ": " + strings.TrimPrefix(d.path+" ", " ") + d.text
}

// names map what the real API named to what the simulator named: UUIDs, addresses, MAC addresses.
type names map[string]string

// translate puts the simulator's names in the place of the recorded ones.
func (n names) translate(text string) string {
	for recorded, ours := range n {
		text = replaceWhole(text, recorded, ours)
	}
	return text
}

// replaceWhole replaces a name where it is not a part of a longer one.
func replaceWhole(text, name, by string) string {
	var b strings.Builder
	for {
		i := strings.Index(text, name)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		end := i + len(name)
		whole := (i == 0 || !partOfName(text[i-1])) && (end == len(text) || !partOfName(text[end]))
		b.WriteString(text[:i])
		if whole {
			b.WriteString(by)
		} else {
			b.WriteString(name)
		}
		text = text[end:]
	}
}

func partOfName(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' || c == '_'
}

// chosen matches what an API chooses for a resource where the client does not: UUIDs, addresses, maintenance windows.
var chosen = regexp.MustCompile(`^(` + strings.Join([]string{
	`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`,
	`\d+\.\d+\.\d+\.\d+(/\d+)?`,
	`[0-9a-f]*:[0-9a-f:]*:[0-9a-f:]+(/\d+)?`,
	`[0-2]\d:[0-5]\d:[0-5]\dZ`,
	`(mon|tues|wednes|thurs|fri|satur|sun)day`,
	`_acme-challenge\.[0-9a-f]+\.upcloudlb\.com`,
}, "|") + `)$`)

// free are the fields whose values are the API's choice, or a moment's, or words for people; their types must hold.
var free = map[string]bool{
	"created": true, "created_at": true, "updated_at": true, "completed": true, "expires_at": true, "last_used_at": true,
	"not_after": true, "not_before": true,
	"host": true, "password": true, "remote_access_password": true, "ptr_record": true, "progress": true, "token": true,
	"correlation_id": true, "error_message": true, "reason": true, "dns_name": true, "direct_upload_url": true,
	"client_content_length": true, "read_bytes": true, "written_bytes": true, "md5sum": true, "sha256sum": true,
	"credits": true, "price": true,
}

// timed are the fields that time changes.
var timed = map[string]bool{"state": true, "operational_state": true, "progress": true, "host": true, "listen": true}

// comparison compares answers, and learns the simulator's names from them.
type comparison struct {
	names       names
	shapes      shapes
	request     string
	asked       string // the request's body: what the client chose
	differences []difference
}

// next returns a comparison for one more answer, with the names known so far.
func (c *comparison) next(i *interaction) *comparison {
	return &comparison{names: maps.Clone(c.names), shapes: c.shapes, request: i.line(), asked: i.Request.Body}
}

func (c *comparison) differ(path, format string, args ...any) {
	key := path[strings.LastIndexAny(path, ".]")+1:]
	c.differences = append(c.differences, difference{c.request, path, fmt.Sprintf(format, args...), timed[key]})
}

// response compares a whole answer with the recorded one.
func (c *comparison) response(i *interaction, recorded any, got *httptest.ResponseRecorder) {
	if got.Code != i.Response.Code {
		c.differ("", "status %d, recorded %d: %s", got.Code, i.Response.Code, strings.TrimSpace(got.Body.String()))
		return
	}
	if recorded == nil {
		if got.Body.Len() > 0 {
			c.differ("", "has a body, and the recorded answer has none: %s", got.Body)
		}
		return
	}
	if ours, theirs := got.Header().Get("Content-Type"), i.Response.Headers.Get("Content-Type"); ours != theirs {
		c.differ("", "content type %q, recorded %q", ours, theirs)
	}
	var ours any
	if err := json.Unmarshal(got.Body.Bytes(), &ours); err != nil {
		c.differ("", "is not JSON: %v", err)
		return
	}
	c.value(kind(i.line(), i.Response.Code), recorded, ours)
}

func (c *comparison) value(path string, recorded, ours any) {
	switch r := recorded.(type) {
	case map[string]any:
		o, ok := ours.(map[string]any)
		if !ok {
			c.differ(path, "is %s, recorded an object", typeOf(ours))
			return
		}
		c.object(path, r, o)
	case []any:
		o, ok := ours.([]any)
		if !ok {
			c.differ(path, "is %s, recorded a list", typeOf(ours))
			return
		}
		c.list(path, r, o)
	default:
		c.scalar(path, recorded, ours)
	}
}

func (c *comparison) object(path string, recorded, ours map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(recorded)) {
		value, ok := ours[key]
		if !ok {
			c.differ(path+"."+key, "is missing")
			continue
		}
		c.value(path+"."+key, recorded[key], value)
	}
	for _, key := range slices.Sorted(maps.Keys(ours)) {
		if _, ok := recorded[key]; !ok && !c.shapes.has(path, key) {
			c.differ(path+"."+key, "is in no recording")
		}
	}
}

func (c *comparison) scalar(path string, recorded, ours any) {
	if typeOf(recorded) != typeOf(ours) {
		c.differ(path, "is %s, recorded %s", typeOf(ours), typeOf(recorded))
		return
	}
	key := path[strings.LastIndexAny(path, ".]")+1:]
	theirs, isText := recorded.(string)
	if free[key] {
		return
	}
	if !isText {
		if recorded != ours {
			c.differ(path, "is %v, recorded %v", ours, recorded)
		}
		return
	}
	mine := ours.(string)
	if known, ok := c.names[theirs]; ok {
		if mine != known {
			c.differ(path, "is %q, and what was recorded as %q is %q here", mine, theirs, known)
		}
		return
	}
	if theirs != mine && chosen.MatchString(theirs) && chosen.MatchString(mine) && !strings.Contains(c.asked, theirs) {
		c.names[theirs] = mine
		return
	}
	if want := c.names.translate(theirs); mine != want {
		c.differ(path, "is %q, recorded %q", mine, theirs)
	}
}

func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case float64:
		return "a number"
	case bool:
		return "a boolean"
	case []any:
		return "a list"
	}
	return "an object"
}
