package loadbalancer

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/haproxy"
)

// addLocalNode makes a server on a network of loopback addresses, and its Node, so that a test can listen on its node ports.
func (a *account) addLocalNode(name, network string) (ip string) {
	a.t.Helper()
	id := a.CreateServerOn(a.t, name, zone, network)
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.NodeSpec{ProviderID: providerid.New(id)}}
	addresses, err := newInstances(a.t, a.connect()).NodeAddresses(a.t.Context(), node)
	if err != nil {
		a.t.Fatal(err)
	}
	node.Status.Addresses = addresses
	a.nodes = append(a.nodes, node)
	address, ok := plan.InternalIPv4(node)
	if !ok {
		a.t.Fatalf("node %s has no internal address: %v", name, addresses)
	}
	return address.String()
}

// answer listens on a node port, and says who it is and which path it was asked for.
func (a *account) answer(ip string, port int, who string) {
	a.t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, fmt.Sprint(port)))
	if err != nil {
		a.t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := who + " " + r.URL.Path
		if r.Header.Get("X-Forwarded-For") != "" {
			answer += " forwarded"
		}
		_, _ = fmt.Fprint(w, answer)
	})}}
	server.Start()
	a.t.Cleanup(server.Close)
}

// Requests go to the cluster whose route fits best: exact before prefix, longer before shorter, a host before any.
func TestRoutesCarryTraffic(t *testing.T) { eachEvaluation(t, routesCarryTraffic) }

func routesCarryTraffic(t *testing.T, rules haproxy.RuleEvaluation) {
	a := newTrafficAccount(t, rules)
	ip := a.addLocalNode("n1", a.CreateNetwork(t, "nodes", zone, "127.77.0.0/24"))
	x, y := a.balancers(func(c *Config) { c.ClusterName = "x" }), a.balancers(func(c *Config) { c.ClusterName = "y" })
	a.answer(ip, 30081, "x")
	a.answer(ip, 30082, "y")
	inX := a.addService(sharingService("of-x", "create/saas", []string{"http 18490 30081"}, settings.RoutesName, `
- {host: saas.example, path: /foo}
- {host: saas.example, path: /only, pathType: Exact}
- {host: saas.example, path: /api, rewrite: /v2}
- {host: "*.saas.example", path: /}`))
	inY := a.addService(sharingService("of-y", "create/saas", []string{"http 18490 30082"}, settings.RoutesName, `
- {host: saas.example, path: /bar}
- {host: saas.example, path: /foo/long}
- {host: saas.example, path: /only}
- {host: eu.saas.example, path: /}
- {path: /anywhere}`))
	a.ensure(x, inX)
	url := "http://" + a.address(y, inY, 18490)
	for _, test := range []struct{ host, path, want string }{
		{"saas.example", "/foo", "x /foo"},
		{"saas.example", "/foo/", "x /foo/"},
		{"SAAS.example", "/foo/short", "x /foo/short"},
		{"saas.example", "/foobar", "503"},
		{"saas.example", "/foo/long/one", "y /foo/long/one"},
		{"saas.example", "/foo/longer", "x /foo/longer"},
		{"saas.example", "/bar?q=1", "y /bar"},
		{"saas.example", "/only", "x /only"},
		{"saas.example", "/only/more", "y /only/more"},
		{"saas.example", "/api", "x /v2/"},
		{"saas.example", "/api/users", "x /v2/users"},
		{"us.saas.example:8080", "/", "x /"},
		{"eu.saas.example", "/", "y /"},
		{"a.b.saas.example", "/", "503"},
		{"other.example", "/anywhere", "y /anywhere"},
		{"other.example", "/foo", "503"},
	} {
		a.answered(url+test.path, test.host, test.want)
	}
}

// answered waits until a request has this answer: what the member says, or another status than OK.
func (a *account) answered(url, host, want string) {
	a.t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	a.eventually(host+" "+url+" is answered by "+want, func() string {
		request, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, url, nil)
		if err != nil {
			a.t.Fatal(err)
		}
		request.Host = host
		response, err := client.Do(request)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		got := string(body)
		if response.StatusCode != http.StatusOK {
			got = fmt.Sprint(response.StatusCode)
		}
		if got != want {
			return "answered: " + got
		}
		return ""
	})
}

// Rules that the Service asks for act beside forwarded headers, and members get these whichever rule leads to them.
func TestForwardedHeadersBesideRules(t *testing.T) { eachEvaluation(t, forwardedHeadersBesideRules) }

func forwardedHeadersBesideRules(t *testing.T, rules haproxy.RuleEvaluation) {
	a := newTrafficAccount(t, rules)
	ip := a.addLocalNode("n1", a.CreateNetwork(t, "nodes", zone, "127.77.0.0/24"))
	a.answer(ip, 30083, "web")
	l := a.balancers()
	s := example.Annotated(example.Service("http 18491 30083"), "mode", "http", "forwarded-headers", "true", "config", `{"frontends": [{"name": "http", "rules": [
		{"name": "no-admin", "priority": 50, "matchers": [{"type": "path", "match_path": {"method": "starts", "value": "/admin"}}],
		 "actions": [{"type": "http_return", "action_http_return": {"status": 403, "content_type": "text/plain", "payload": "bm8K"}}]},
		{"name": "old", "priority": 40, "matchers": [{"type": "path", "match_path": {"method": "starts", "value": "/old"}}],
		 "actions": [{"type": "http_rewrite_path", "action_http_rewrite_path": {"match_pattern": "^/old(.*)$", "rewrite_to": "/new\\1"}}]}]}]}`)
	s.Spec.LoadBalancerSourceRanges = []string{"127.0.0.0/8"}
	url := "http://" + a.address(l, a.addService(s), 18491)
	a.answered(url+"/", "web.example", "web / forwarded")
	a.answered(url+"/admin", "web.example", "403")
	a.answered(url+"/old/page", "web.example", "web /new/page forwarded")
}

// So do the routes of shared load balancers.
func TestForwardedHeadersOfRoutes(t *testing.T) { eachEvaluation(t, forwardedHeadersOfRoutes) }

func forwardedHeadersOfRoutes(t *testing.T, rules haproxy.RuleEvaluation) {
	a := newTrafficAccount(t, rules)
	ip := a.addLocalNode("n1", a.CreateNetwork(t, "nodes", zone, "127.77.0.0/24"))
	a.answer(ip, 30084, "web")
	l := a.balancers()
	s := a.addService(sharingService("web", "create/saas", []string{"http 18492 30084"}, settings.RoutesName, `[{path: /api, rewrite: /v2}, {path: /}]`,
		"forwarded-headers", "true"))
	url := "http://" + a.address(l, s, 18492)
	a.answered(url+"/api/users", "web.example", "web /v2/users forwarded")
	a.answered(url+"/other", "web.example", "web /other forwarded")
}
