package simulator_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

type lbAnswer struct {
	UUID             string
	OperationalState string `json:"operational_state"`
	Nodes            []struct {
		Networks []struct {
			IPAddresses []struct {
				Address string
				Listen  bool
			} `json:"ip_addresses"`
		}
	}
}

func createLoadBalancer(t *testing.T, sim *simulatortest.Server, name string) lbAnswer {
	t.Helper()
	network := sim.CreateNetwork(t, name+"-net", "fi-hel1", "172.20.0.0/24")
	var lb lbAnswer
	sim.Do(t, "POST", "/load-balancer", `{"name":"`+name+`","plan":"development","zone":"fi-hel1","configured_status":"started",
		"networks":[{"name":"public","type":"public","family":"IPv4"},{"name":"private","type":"private","family":"IPv4","uuid":"`+network+`"}],
		"frontends":[{"name":"fe-1","mode":"tcp","port":80,"default_backend":"be-1"}],
		"backends":[{"name":"be-1","members":[{"name":"m-1","ip":"172.20.0.10","port":30080}]}],"resolvers":[]}`, &lb)
	return lb
}

func TestLoadBalancerPassesThroughItsStates(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	lb := createLoadBalancer(t, sim, "web")
	states := []string{lb.OperationalState}
	watch := func(done func(status int) bool) {
		for range 2500 {
			status, body := sim.Raw(t, "GET", "/load-balancer/"+lb.UUID, "")
			var now lbAnswer
			_ = json.Unmarshal(body, &now)
			if now.OperationalState != "" && now.OperationalState != states[len(states)-1] {
				states = append(states, now.OperationalState)
			}
			if lb = now; done(status) {
				return
			}
			lb.UUID = strings.Clone(now.UUID)
			clock.Advance(100 * time.Millisecond)
		}
	}
	uuid := lb.UUID
	watch(func(int) bool { return states[len(states)-1] == "running" })
	if got := strings.Join(states, " "); got != "pending setup-agent setup-server setup-network setup-lb setup-dns checkup running" {
		t.Errorf("states: %s", got)
	}
	if len(lb.Nodes) != 1 || len(lb.Nodes[0].Networks) != 2 || !lb.Nodes[0].Networks[0].IPAddresses[0].Listen {
		t.Errorf("nodes of a running load balancer: %+v", lb.Nodes)
	}
	lb.UUID = uuid
	sim.Do(t, "DELETE", "/load-balancer/"+uuid, "", nil)
	states = states[:1]
	watch(func(status int) bool { return status == 404 })
	if got := strings.Join(states, " "); got != "pending delete-dns delete-network delete-server delete-service" {
		t.Errorf("states of the deletion: %s", got)
	}
}

func TestChangeMakesALoadBalancerPendingForAMoment(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	lb := createLoadBalancer(t, sim, "web")
	state := func() string {
		var now lbAnswer
		sim.Do(t, "GET", "/load-balancer/"+lb.UUID, "", &now)
		return now.OperationalState
	}
	clock.Advance(300e9)
	if s := state(); s != "running" {
		t.Fatalf("after the setup: %s", s)
	}
	sim.Do(t, "POST", "/load-balancer/"+lb.UUID+"/backends/be-1/members", `{"name":"m-2","ip":"172.20.0.11","port":30080}`, nil)
	if s := state(); s != "pending" {
		t.Errorf("after the change: %s, want pending", s)
	}
	clock.Advance(60e9)
	if s := state(); s != "running" {
		t.Errorf("a minute later: %s, want running", s)
	}
}

func TestLoadBalancerRefusals(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	lb := createLoadBalancer(t, sim, "web")
	service := "/load-balancer/" + lb.UUID
	for _, test := range []struct {
		what, method, path, body string
		status                   int
		contains                 string
	}{
		{"unknown service", "GET", "/load-balancer/0a000000-0000-4000-8000-000000000000", "", 404, "#ERROR_RESOURCE_NOT_FOUND"},
		{"name in use", "POST", "/load-balancer", `{"name":"web","plan":"development","zone":"fi-hel1"}`, 400, `"name":"networks"`},
		{"component name in use", "POST", service + "/backends", `{"name":"be-1"}`, 409, "#ERROR_RESOURCE_ALREADY_EXISTS"},
		{"port in use", "POST", service + "/frontends", `{"name":"fe-2","mode":"tcp","port":80,"default_backend":"be-1"}`, 400, "frontends.1.port"},
		{"unknown backend", "POST", service + "/frontends", `{"name":"fe-2","mode":"tcp","port":81,"default_backend":"x"}`, 400, "frontends.1.default_backend"},
		{"HTTP/2 without TLS", "PATCH", service + "/frontends/fe-1", `{"properties":{"http2_enabled":true}}`, 400,
			`[{"name":"frontends.0.properties.http2_enabled","reason":"At least one certificate bundle must be attached to enable HTTP/2."}]`},
		{"backend in use", "DELETE", service + "/backends/be-1", "", 400, "frontends.0.default_backend"},
		{"weight", "PATCH", service + "/backends/be-1/members/m-1", `{"weight":101}`, 400, "backends.0.members.0.weight"},
		{"unknown member", "DELETE", service + "/backends/be-1/members/x", "", 404, "Member not found."},
		{"matcher", "POST", service + "/frontends/fe-1/rules", `{"name":"r","priority":1,"matchers":[{"type":"src_ip","match_src_ip":{"value":"x"}}],
			"actions":[{"type":"tcp_reject","action_tcp_reject":{}}]}`, 400, "frontends.0.rules.0.matchers.0"},
	} {
		status, body := sim.Raw(t, test.method, test.path, test.body)
		if status != test.status || !strings.Contains(string(body), test.contains) {
			t.Errorf("%s: %d %s, want %d and %s", test.what, status, body, test.status, test.contains)
		}
	}
	var after map[string]any
	sim.Do(t, "GET", service, "", &after)
	if n := len(after["frontends"].([]any)); n != 1 {
		t.Errorf("%d frontends after requests that were all refused", n)
	}
}

func TestPatchKeepsWhatItLeavesOutAndPutDoesNot(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	lb := createLoadBalancer(t, sim, "web")
	path := "/load-balancer/" + lb.UUID + "/backends/be-1"
	var got struct {
		Members    []struct{ Name string }
		Properties struct {
			TimeoutServer       int `json:"timeout_server"`
			HealthCheckInterval int `json:"health_check_interval"`
		}
	}
	sim.Do(t, "PATCH", path, `{"properties":{"timeout_server":33}}`, nil)
	sim.Do(t, "PATCH", path, `{"properties":{"health_check_interval":5}}`, &got)
	if got.Properties.TimeoutServer != 33 || got.Properties.HealthCheckInterval != 5 || len(got.Members) != 1 {
		t.Errorf("after two patches: %+v", got)
	}
	got.Members = nil
	sim.Do(t, "PATCH", path, `{"members":[{"name":"a","ip":"10.0.0.1","port":1},{"name":"b","ip":"10.0.0.2","port":2}]}`, &got)
	if len(got.Members) != 2 || got.Members[0].Name != "a" {
		t.Errorf("members are replaced as a whole: %+v", got.Members)
	}
	got.Members = nil
	sim.Do(t, "PUT", path, `{"name":"be-1","members":[]}`, &got)
	if got.Properties.TimeoutServer != 10 || len(got.Members) != 0 {
		t.Errorf("after the replacement: %+v", got)
	}
}
