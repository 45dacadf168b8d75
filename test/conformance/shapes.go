package main

import (
	"regexp"
	"strings"
)

// shapes are the fields that each kind of object has in any of the recordings. An older recording lacks what the API
// shows today; what no recording has, the simulator must not show either.
type shapes map[string]map[string]bool

// sameKind are objects that show the same fields in two places, one of which was recorded earlier than the other.
var sameKind = map[string]string{
	".networks.network[]": ".network", ".routers.router[]": ".router", ".resize_backup": ".storage",
	".networking": ".server.networking", ".interface": ".server.networking.interfaces.interface[]",
	".ip_addresses.ip_address[]": ".ip_address",
}

// newer are fields that came after the recordings of their kind: the SDK's types have them, and where there is one, a
// later recording of the same thing elsewhere.
var newer = map[string][]string{
	".zones.zone[]":       {"parent_zone"},    // of private zones
	".ip_address":         {"release_policy"}, // recorded since 2025 in servers' interfaces
	".storages.storage[]": {"encrypted"},
}

func shapesOf(recordings []*recording) (shapes, error) {
	out := shapes{}
	for path, fields := range newer {
		out[path] = map[string]bool{}
		for _, field := range fields {
			out[path][field] = true
		}
	}
	for _, r := range recordings {
		for i := range r.Interactions {
			step := &r.Interactions[i]
			v, err := step.answer()
			if err != nil {
				return nil, err
			}
			out.learn(kind(step.line(), step.Response.Code), v)
		}
	}
	return out, nil
}

func (s shapes) learn(path string, v any) {
	path = canonical(path)
	switch v := v.(type) {
	case map[string]any:
		if s[path] == nil {
			s[path] = map[string]bool{}
		}
		for key, value := range v {
			s[path][key] = true
			s.learn(path+"."+key, value)
		}
	case []any:
		for _, value := range v {
			s.learn(path+"[]", value)
		}
	}
}

func (s shapes) has(path, key string) bool { return s[canonical(path)][key] }

// canonical is a path without the numbers of items, and the one name of a kind that has two.
func canonical(path string) string {
	path = parts.ReplaceAllString(indexes.ReplaceAllString(path, "[]"), "$1.$2[]")
	path = strings.NewReplacer("load-balancer*", "load-balancer", "load-balancer[]", "load-balancer",
		"file-storage*", "file-storage", "file-storage[]", "file-storage").Replace(path)
	for one, other := range sameKind {
		if rest, ok := strings.CutPrefix(path, one); ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return other + rest
		}
	}
	return path
}

var (
	indexes = regexp.MustCompile(`\[\d+\]`)
	parts   = regexp.MustCompile(`(load-balancer|file-storage|\]|\*|\w)/([\w-]+)(?:\*|\[\])?`) // of services
	ids     = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
)

// kind tells what an answer is about. The older resources say so in the answer; of the newer ones the path does, in
// which names stand at every other place.
func kind(line string, status int) string {
	_, path, _ := strings.Cut(line, " ")
	path, _, _ = strings.Cut(path, "?")
	if status >= 400 {
		return "error"
	}
	segments := strings.Split(strings.Trim(path, "/"), "/")
	switch segments[0] {
	case "load-balancer", "file-storage":
	case "account":
		if len(segments) < 2 || segments[1] != "tokens" {
			return ""
		}
		segments = segments[1:]
	default:
		return ""
	}
	for i := range segments {
		if i%2 == 1 && (i < len(segments) && ids.MatchString(segments[i]) || i > 1) {
			segments[i] = "*"
		}
	}
	return strings.ReplaceAll(strings.Join(segments, "/"), "/*", "*")
}
