package plan

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Who places rules of their own goes by the documentation.
func TestPrioritiesAreDocumented(t *testing.T) {
	rows := []string{"| priority | rules of |", "|---|---|",
		fmt.Sprintf("| %d to %d | none: for rules before all routes |", priorityHostExact+1, settings.MaxPriority)}
	for _, kind := range []struct{ host, words string }{{"a.example", "a host"}, {"*.a.example", "a wildcard host"}, {"", "any host"}} {
		exact := routePriority(settings.Route{Host: kind.host, PathType: settings.PathExact})
		prefix := routePriority(settings.Route{Host: kind.host, PathType: settings.PathPrefix})
		rows = append(rows, fmt.Sprintf("| %d | routes for %s with an exact path |", exact, kind.words),
			fmt.Sprintf("| %d | routes for %s with a prefix |", prefix, kind.words))
	}
	rows = append(rows, fmt.Sprintf("| 0 to %d | none: for rules after all routes |", priorityAnyHostPrefix-1))
	text, err := os.ReadFile("../../../docs/load-balancers.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "<!-- routePriorities -->\n\n")
	table, _, _ := strings.Cut(after, "\n\n")
	if want := strings.Join(rows, "\n"); !found || table != want {
		t.Errorf("docs/load-balancers.md has\n%s\nwant\n%s", table, want)
	}
	own := fmt.Sprintf("%d (source ranges), %d (redirect to https) and %d (forwarded headers", prioritySourceRanges, priorityRedirect, priorityForwarded)
	if !strings.Contains(string(text), own) {
		t.Errorf("docs/load-balancers.md does not say %q", own)
	}
}
