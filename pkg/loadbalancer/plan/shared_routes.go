package plan

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Priorities of routes, the highest first: a route for a host wins over one for a wildcard, that over one for any host; then an
// exact path wins over a prefix. Of one priority, rules are evaluated in the order of their names, which begin so that the longer
// path comes first.
const (
	priorityHostExact     = 90
	priorityHostPrefix    = 70
	priorityWildExact     = 50
	priorityWildPrefix    = 40
	priorityAnyHostExact  = 20
	priorityAnyHostPrefix = 10
)

// routePriority is the priority of the rules of a route.
func routePriority(r settings.Route) int {
	exact, prefix := priorityHostExact, priorityHostPrefix
	switch {
	case r.Host == "":
		exact, prefix = priorityAnyHostExact, priorityAnyHostPrefix
	case strings.HasPrefix(r.Host, "*."):
		exact, prefix = priorityWildExact, priorityWildPrefix
	}
	if r.PathType == settings.PathExact {
		return exact
	}
	return prefix
}

// routeClaim is the rule's name, which follows from what the route matches and nothing else.
func routeClaim(r settings.Route) string {
	return fmt.Sprintf("r%03d-%s", 999-min(len(r.Path), 999), hexDigest(r.Host+"|"+r.PathType+"|"+r.Path, 16))
}

// RulesOf are those that send the route's requests to a backend: one, which is the claim, or one for each network that clients
// may come from. They never reject: that would end the requests of longer routes, which may be others', too.
func RulesOf(r settings.Route, backend string, ranges []netip.Prefix, before []json.RawMessage) []cloud.Rule {
	matchers := RouteMatchers(r)
	actions := append([]json.RawMessage{}, before...)
	if rewrite := routeRewrite(r); rewrite != nil {
		actions = append(actions, rewrite)
	}
	actions = append(actions, action("use_backend", map[string]any{"backend": backend}))
	if len(ranges) == 0 {
		return []cloud.Rule{{Name: routeClaim(r), Priority: routePriority(r), MatchingCondition: "and", Matchers: matchers, Actions: actions}}
	}
	var all []cloud.Rule
	for i, prefix := range ranges {
		name := routeClaim(r)
		if i > 0 {
			name += fmt.Sprintf("-%d", i)
		}
		all = append(all, cloud.Rule{
			Name: name, Priority: routePriority(r), MatchingCondition: "and", Actions: actions,
			Matchers: append(append([]json.RawMessage{}, matchers...), matcher("src_ip", map[string]any{"value": prefix.String()})),
		})
	}
	return all
}

// RouteMatchers are the conditions of the requests that a route means.
func RouteMatchers(r settings.Route) []json.RawMessage {
	all := []json.RawMessage{}
	switch below, wild := strings.CutPrefix(r.Host, "*"); {
	case r.Host == "":
	case wild:
		all = append(all, matcher("request_header", map[string]any{"name": "Host", "method": "regexp", "ignore_case": true,
			"value": "^[^.:]+" + regexp.QuoteMeta(below) + "(:[0-9]+)?$"}))
	default:
		all = append(all, matcher("host", map[string]any{"value": r.Host}))
	}
	switch {
	case r.PathType == settings.PathExact:
		all = append(all, matcher("path", map[string]any{"method": "exact", "value": r.Path}))
	case r.Path != "/":
		all = append(all, matcher("path", map[string]any{"method": "regexp", "value": "^" + regexp.QuoteMeta(r.Path) + "(/|$)"}))
	}
	return all
}

// routeRewrite gives the path that a member sees another beginning.
func routeRewrite(r settings.Route) json.RawMessage {
	switch {
	case r.Rewrite == "":
		return nil
	case r.PathType == settings.PathExact:
		return action("http_rewrite_path", map[string]any{"match_pattern": "^.*$", "rewrite_to": r.Rewrite})
	}
	return action("http_rewrite_path", map[string]any{
		"match_pattern": "^" + regexp.QuoteMeta(strings.TrimRight(r.Path, "/")) + "/?(.*)$",
		"rewrite_to":    strings.TrimRight(r.Rewrite, "/") + `/\1`,
	})
}

func matcher(kind string, detail map[string]any) json.RawMessage {
	return raw(map[string]any{"type": kind, "match_" + kind: detail})
}

// sameMatch says whether two rules match the same requests.
func sameMatch(a, b cloud.Rule) bool {
	return len(a.Matchers) == len(b.Matchers) && matched(decodedAll(a.Matchers), decodedAll(b.Matchers))
}
