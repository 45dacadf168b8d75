package simulator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func TestRoutesAreRefusedThatCannotBe(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	for routes, code := range map[string]string{
		`{"route":"10.0.0.0/33","nexthop":"10.0.0.1"}`:                                                                  "INVALID_ROUTE",
		`{"route":"10.0.0.0/8","nexthop":"here"}`:                                                                       "NEXTHOP_INVALID",
		`{"route":"10.0.0.0/8","nexthop":"2001:db8::1"}`:                                                                "INVALID_ROUTE_FAMILY",
		`{"route":"10.0.0.0/8","nexthop":"10.0.0.1"},{"route":"10.0.0.0/8","nexthop":"10.0.0.2"}`:                       "DUPLICATE_ROUTE",
		`{"name":"a","route":"10.0.0.0/8","nexthop":"10.0.0.1"},{"name":"a","route":"11.0.0.0/8","nexthop":"10.0.0.2"}`: "DUPLICATE_RESOURCE",
		`{"name":"` + strings.Repeat("n", 65) + `","route":"10.0.0.0/8","nexthop":"10.0.0.1"}`:                          "INVALID_ROUTE",
		`{"name":"a","route":"10.0.0.0/8","nexthop":"10.0.0.1","type":"service"}`:                                       "INVALID_ROUTE",
	} {
		refused(t, sim, "POST", "/router", `{"router":{"name":"r","static_routes":[`+routes+`]}}`, 400, code)
	}
	const twice = `[{"key":"team","value":"a"},{"key":"team","value":"b"}]`
	refused(t, sim, "POST", "/router", `{"router":{"name":"r","labels":`+twice+`}}`, 400, "DUPLICATE_LABEL_KEYS")
}

func routesOf(t *testing.T, sim *simulatortest.Server, router string) string {
	t.Helper()
	var answer struct {
		Router struct {
			Routes []struct{ Name, Route, Nexthop, Type string } `json:"static_routes"`
		}
	}
	sim.Do(t, "GET", "/router/"+router, "", &answer)
	var texts []string
	for _, r := range answer.Router.Routes {
		texts = append(texts, strings.TrimSpace(r.Name+" "+r.Type))
	}
	return strings.Join(texts, ", ")
}

func TestRoutesOfServicesAreNobodyElses(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	var made struct{ Router struct{ UUID string } }
	sim.Do(t, "POST", "/router", `{"router":{"name":"r","static_routes":[{"name":"a","route":"10.0.0.0/8","nexthop":"10.0.0.1"}]}}`, &made)
	if err := sim.AddServiceRoute(made.Router.UUID, "ngw-default", "0.0.0.0/0", "169.254.16.2"); err != nil {
		t.Fatal(err)
	}
	if got, want := routesOf(t, sim, made.Router.UUID), "ngw-default service, a"; got != want {
		t.Errorf("routes %q, want %q", got, want)
	}
	sim.Do(t, "PATCH", "/router/"+made.Router.UUID, `{"router":{"static_routes":[{"name":"b","route":"0.0.0.0/0","nexthop":"10.0.0.1"}]}}`, nil)
	if got, want := routesOf(t, sim, made.Router.UUID), "ngw-default service, b"; got != want {
		t.Errorf("after a user replaced theirs: routes %q, want %q", got, want)
	}
}

func TestARouterHasSoManyRoutes(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{MaxStaticRoutes: 2})
	list := func(n int) string {
		var routes []string
		for i := range n {
			routes = append(routes, fmt.Sprintf(`{"route":"10.%d.0.0/16","nexthop":"172.16.0.1"}`, i))
		}
		return `{"router":{"name":"r","static_routes":[` + strings.Join(routes, ",") + `]}}`
	}
	refused(t, sim, "POST", "/router", list(3), 409, "STATIC_ROUTE_LIMIT_REACHED")
	sim.Do(t, "POST", "/router", list(2), nil)
}
