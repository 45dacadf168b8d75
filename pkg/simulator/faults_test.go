package simulator_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const createBody = `{"storage":{"size":"10","title":"x","zone":"fi-hel1"}}`

func storages(t *testing.T, sim *simulatortest.Server) int {
	t.Helper()
	var list struct{ Storages struct{ Storage []any } }
	sim.Do(t, "GET", "/storage/private", "", &list)
	return len(list.Storages.Storage)
}

func TestFaultBeforeAndAfterTheEffect(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	sim.Inject(simulator.Fault{Operation: "POST /storage", Status: 503, Count: 1})
	if status, _ := sim.Raw(t, "POST", "/storage", createBody); status != 503 || storages(t, sim) != 0 {
		t.Errorf("before the effect: %d, %d storages", status, storages(t, sim))
	}
	sim.Inject(simulator.Fault{Operation: "POST /storage", Status: 500, AfterEffect: true, Count: 1})
	if status, _ := sim.Raw(t, "POST", "/storage", createBody); status != 500 || storages(t, sim) != 1 {
		t.Errorf("after the effect: %d, %d storages", status, storages(t, sim))
	}
	if status, _ := sim.Raw(t, "POST", "/storage", createBody); status != 201 {
		t.Errorf("after both: %d", status)
	}
}

func TestDroppedConnectionAfterTheEffect(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	sim.Inject(simulator.Fault{Operation: "POST /storage", Drop: true, AfterEffect: true, Count: 1})
	req, err := http.NewRequest("POST", sim.URL+"/1.3/storage", strings.NewReader(createBody))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(sim.Username, sim.Password)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("an answer came: %d", resp.StatusCode)
	}
	if n := storages(t, sim); n != 1 {
		t.Errorf("%d storages, want the one whose creation was not answered", n)
	}
}

func TestFaultPatternSkipAndRemoval(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	remove := sim.Inject(simulator.Fault{Operation: "GET /*", Skip: 1, Status: 429, RetryAfter: 1500 * time.Millisecond})
	statuses := func() (out []int) {
		for range 3 {
			status, _ := sim.Raw(t, "GET", "/zone", "")
			out = append(out, status)
		}
		return out
	}
	if got := statuses(); got[0] != 200 || got[1] != 429 || got[2] != 429 {
		t.Errorf("statuses %v", got)
	}
	req, _ := http.NewRequest("GET", sim.URL+"/1.3/zone", nil)
	req.SetBasicAuth(sim.Username, sim.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q, want 2", got)
	}
	remove()
	remove()
	if got := statuses(); got[2] != 200 {
		t.Errorf("after the removal: %v", got)
	}
}

func TestControlEndpoints(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	control := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequest(method, sim.URL+"/_simulator"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b strings.Builder
		buffer := make([]byte, 4096)
		for {
			n, err := resp.Body.Read(buffer)
			b.Write(buffer[:n])
			if err != nil {
				return resp.StatusCode, b.String()
			}
		}
	}
	if status, body := control("POST", "/faults", `{"operation":"GET /zone","status":418}`); status != 201 || !strings.Contains(body, `"id": 1`) {
		t.Errorf("POST faults: %d %s", status, body)
	}
	if status, _ := sim.Raw(t, "GET", "/zone", ""); status != 418 {
		t.Errorf("with the fault: %d", status)
	}
	if status, body := control("POST", "/faults", `{"operation":"GET /zone"}`); status != 400 || !strings.Contains(body, "nothing goes wrong") {
		t.Errorf("a fault that does nothing: %d %s", status, body)
	}
	if status, _ := control("DELETE", "/faults/1", ""); status != 204 {
		t.Errorf("DELETE faults: %d", status)
	}
	if status, _ := sim.Raw(t, "GET", "/zone", ""); status != 200 {
		t.Errorf("without the fault: %d", status)
	}
	if _, body := control("GET", "/requests", ""); !strings.Contains(body, `"GET /zone": {`) || !strings.Contains(body, `"failed": 1`) {
		t.Errorf("requests: %s", body)
	}
	control("DELETE", "/requests", "")
	if n := sim.Requests().Total(); n != 0 {
		t.Errorf("%d requests counted after the reset", n)
	}
}

func TestLatencyEndsWithTheClient(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	sim.Inject(simulator.Fault{Operation: "POST /storage", Latency: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	svc := service.New(client.New(sim.Username, sim.Password, client.WithBaseURL(sim.URL)))
	done := make(chan error)
	go func() {
		_, err := svc.CreateStorage(ctx, &request.CreateStorageRequest{Size: 10, Title: "x", Zone: zone, Tier: "maxiops"})
		done <- err
	}()
	cancel()
	if err := <-done; err == nil {
		t.Error("the request was answered")
	}
	if n := storages(t, sim); n != 0 {
		t.Errorf("%d storages", n)
	}
}

func TestCredentials(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{Username: "user", Password: "secret", Token: "ucat_x"})
	for name, c := range map[string]struct {
		config client.ConfigFn
		user   string
		secret string
		ok     bool
	}{
		"user":           {nil, "user", "secret", true},
		"wrong password": {nil, "user", "wrong", false},
		"token":          {client.WithBearerAuth("ucat_x"), "", "", true},
		"wrong token":    {client.WithBearerAuth("ucat_y"), "", "", false},
	} {
		options := []client.ConfigFn{client.WithBaseURL(sim.URL)}
		if c.config != nil {
			options = append(options, c.config)
		}
		_, err := service.New(client.New(c.user, c.secret, options...)).GetAccount(t.Context())
		var problem *upcloud.Problem
		if (err == nil) != c.ok || err != nil && (!errors.As(err, &problem) || problem.Status != 401 || problem.ErrorCode() != "AUTHENTICATION_FAILED") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{Profile: simulator.Realistic, Clock: simulator.NewManualClock()})
	sim.Inject(simulator.Fault{Operation: "GET /zone", Latency: time.Hour})
	done := make(chan error)
	go func() {
		req, _ := http.NewRequest("GET", sim.URL+"/1.3/zone", nil)
		req.SetBasicAuth(sim.Username, sim.Password)
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	if err := sim.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("the waiting request was answered")
	}
}
