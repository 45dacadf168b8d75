package simulator_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func TestStaleAnswersShowTheStateOfThen(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Clock: clock})
	remove := sim.Inject(simulator.Fault{Operation: "GET /storage/private", Stale: 30 * time.Second})
	for second := range 4 {
		sim.Do(t, "POST", "/storage", fmt.Sprintf(`{"storage":{"size":"10","title":"at %d0 s","zone":"fi-hel1"}}`, second), nil)
		clock.Advance(10 * time.Second)
	}
	clock.Advance(5 * time.Second)
	// 45 s: the list is of 15 s, when the third storage was not there yet
	if n := storages(t, sim); n != 2 {
		t.Errorf("%d storages 30 s ago, want 2", n)
	}
	clock.Advance(10 * time.Second)
	if n := storages(t, sim); n != 3 {
		t.Errorf("%d storages 10 s later, want 3", n)
	}
	clock.Advance(time.Minute)
	if n := storages(t, sim); n != 4 {
		t.Errorf("%d storages when nothing changed for longer than that, want 4", n)
	}
	var all struct{ Storages struct{ Storage []any } }
	sim.Do(t, "POST", "/storage", createBody, nil)
	sim.Do(t, "GET", "/storage/normal", "", &all)
	if n := len(all.Storages.Storage); n != 5 {
		t.Errorf("%d storages in a list that is not stale, want 5", n)
	}
	remove()
	if n := storages(t, sim); n != 5 {
		t.Errorf("%d storages without the fault, want 5", n)
	}
}

// A storage, a server and a load balancer of long ago must be as they were, not as they are.
func TestStaleAnswersShowFormerFields(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Clock: clock})
	lb := createLoadBalancer(t, sim, "web")
	server := sim.CreateServer(t, "node-1", "fi-hel1")
	sim.Inject(simulator.Fault{Stale: time.Minute})
	clock.Advance(time.Second)
	sim.Do(t, "PUT", "/server/"+server, `{"server":{"title":"renamed"}}`, nil)
	sim.Do(t, "PATCH", "/load-balancer/"+lb.UUID+"/backends/be-1", `{"members":[]}`, nil)
	_, body := sim.Raw(t, "GET", "/server/"+server, "")
	if strings.Contains(string(body), "renamed") || !strings.Contains(string(body), "node-1") {
		t.Errorf("the server is not as it was: %s", body)
	}
	_, body = sim.Raw(t, "GET", "/load-balancer/"+lb.UUID, "")
	if !strings.Contains(string(body), `"m-1"`) {
		t.Errorf("the load balancer is not as it was: %s", body)
	}
	clock.Advance(2 * time.Minute)
	_, body = sim.Raw(t, "GET", "/server/"+server, "")
	if !strings.Contains(string(body), "renamed") {
		t.Errorf("two minutes later it still is as it was: %s", body)
	}
}

func TestOperationsEndInError(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	var source struct{ Storage struct{ UUID string } }
	sim.Do(t, "POST", "/storage", createBody, &source)
	server := sim.CreateServer(t, "node-1", "fi-hel1")
	lb := createLoadBalancer(t, sim, "web")
	sim.Inject(simulator.Fault{Operation: "POST /storage/{uuid}/clone", EndsInError: true, Count: 1})
	sim.Inject(simulator.Fault{Operation: "POST /server/{uuid}/stop", EndsInError: true, Count: 1})
	sim.Inject(simulator.Fault{Operation: "POST /load-balancer/{uuid}/backends", EndsInError: true, Count: 1})

	var clone struct{ Storage struct{ UUID, State string } }
	sim.Do(t, "POST", "/storage/"+source.Storage.UUID+"/clone", `{"storage":{"title":"c","zone":"fi-hel1"}}`, &clone)
	if clone.Storage.State != "maintenance" {
		t.Errorf("the clone's first state is %s", clone.Storage.State)
	}
	state := func(path string) string {
		t.Helper()
		_, body := sim.Raw(t, "GET", path, "")
		var answer struct {
			Server, Storage  struct{ State string }
			OperationalState string `json:"operational_state"`
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			t.Fatal(err)
		}
		return answer.Server.State + answer.Storage.State + answer.OperationalState
	}
	if got := state("/storage/" + clone.Storage.UUID); got != "error" {
		t.Errorf("the clone ends as %s", got)
	}
	if got := state("/storage/" + source.Storage.UUID); got != "online" {
		t.Errorf("its source ends as %s", got)
	}
	sim.Do(t, "POST", "/server/"+server+"/stop", "", nil)
	if got := state("/server/" + server); got != "error" {
		t.Errorf("the server ends as %s", got)
	}
	sim.Do(t, "POST", "/load-balancer/"+lb.UUID+"/backends", `{"name":"be-2","members":[]}`, nil)
	if got := state("/load-balancer/" + lb.UUID); got != "failing" {
		t.Errorf("the load balancer ends as %s", got)
	}
	sim.Do(t, "DELETE", "/load-balancer/"+lb.UUID+"/backends/be-2", "", nil)
	if got := state("/load-balancer/" + lb.UUID); got != "running" {
		t.Errorf("after a change that went well the load balancer is %s", got)
	}
}

func TestFaultsInShortForm(t *testing.T) {
	got, err := simulator.ParseFault("operation=POST /storage/{uuid}/clone,status=503,after_effect,count=2,rate=0.5,retry_after=2s")
	want := simulator.Fault{Operation: "POST /storage/{uuid}/clone", Status: 503, AfterEffect: true, Count: 2, Rate: 0.5,
		RetryAfter: 2 * time.Second}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := simulator.ParseFault(`{"stale":"30s"}`); err != nil || got.Stale != 30*time.Second {
		t.Errorf("%+v, %v", got, err)
	}
	for text, contains := range map[string]string{
		"status=many":              "is not a number",
		"latenzy=1s":               "latenzy",
		"latency=long":             `latency "long" is not a duration`,
		"operation=GET /zone":      "nothing goes wrong",
		"ends_in_error,status=500": "after_effect",
		"ends_in_error,stale=10s":  "stale",
		"drop=perhaps":             "drop",
	} {
		if _, err := simulator.ParseFault(text); err == nil || !strings.Contains(err.Error(), contains) {
			t.Errorf("%s: %v, want one that contains %s", text, err, contains)
		}
	}
}

func TestClockIsSteppedOverHTTP(t *testing.T) {
	step := func(sim *simulatortest.Server, body string) (int, string) {
		resp, err := http.Post(sim.URL+"/_simulator/clock", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	sim := simulatortest.Start(t, simulator.Config{Profile: simulator.Realistic, Clock: simulator.NewManualClock()})
	lb := createLoadBalancer(t, sim, "web")
	if status, body := step(sim, `{"advance":"147s"}`); status != 200 || !strings.Contains(body, `"now": "2026-01-05T09:02:27Z"`) {
		t.Errorf("%d %s", status, body)
	}
	var now lbAnswer
	sim.Do(t, "GET", "/load-balancer/"+lb.UUID, "", &now)
	if now.OperationalState != "running" {
		t.Errorf("after 147 s the load balancer is %s", now.OperationalState)
	}
	if status, body := step(sim, `{"advance":"soon"}`); status != 400 || !strings.Contains(body, "147s") {
		t.Errorf("a step that is none: %d %s", status, body)
	}
	if status, body := step(simulatortest.Start(t, simulator.Config{}), `{"advance":"1s"}`); status != 409 || !strings.Contains(body, "manual clock") {
		t.Errorf("a clock that runs: %d %s", status, body)
	}
}
