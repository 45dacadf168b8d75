package loadbalancer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// A rule that has no room for the action that sets forwarded headers is named once, and only if a member is asked after it.
func TestRulesWithoutRoomForForwardedHeadersAreNamed(t *testing.T) {
	const sets, header = `{"type":"set_forwarded_headers","action_set_forwarded_headers":{}}`,
		`{"type":"set_request_header","action_set_request_header":{"header":"X-%d","value":"a"}}`
	for _, test := range []struct {
		name, last, forwarded string
		actions               int
		named                 bool
	}{
		{name: "no room", last: header, forwarded: "true", actions: 40, named: true},
		{name: "room", last: header, forwarded: "true", actions: 39},
		{name: "they are set", last: sets, forwarded: "true", actions: 40},
		{name: "they are not wanted", last: header, forwarded: "false", actions: 40},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			l := a.balancers()
			var actions []string
			for i := range test.actions - 1 {
				actions = append(actions, fmt.Sprintf(header, i))
			}
			actions = append(actions, strings.ReplaceAll(test.last, "%d", "last"))
			s := a.addService(example.Annotated(example.Service("http 80 30080"), "mode", "http", "forwarded-headers", test.forwarded, "config",
				`{"frontends":[{"name":"http","rules":[{"name":"many","priority":50,"matchers":[],"actions":[`+strings.Join(actions, ",")+`]}]}]}`))
			a.ensure(l, s)
			a.ensure(l, s)
			var named []string
			for _, event := range a.said() {
				if strings.Contains(event, "TooManyActions") {
					named = append(named, event)
				}
			}
			if want := map[bool]int{true: 1}[test.named]; len(named) != want || test.named && !strings.Contains(named[0], "many") {
				t.Errorf("events %v, want %d that name the rule", named, want)
			}
		})
	}
}
