package cloud

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func connectTo(t *testing.T, sim *simulatortest.Server) *Cloud {
	t.Helper()
	c, err := New(Config{Token: sim.Token, BaseURL: sim.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Many who ask at one moment share one reading; who asks for a newer one gets it.
func TestServersAreReadOnceForAll(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	id := sim.CreateServer(t, "n1", "fi-hel1")
	c := connectTo(t, sim)
	sim.Inject(simulator.Fault{Operation: "GET /server", Latency: 100 * time.Millisecond})
	sim.ResetRequests()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			set, err := c.Servers(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if server, ok := set.Server(id); !ok || server.Hostname != "n1" || len(set.Named("n1")) != 1 || set.Len() != 1 {
				t.Errorf("server %+v, %v", server, ok)
			}
		})
	}
	all.Wait()
	for _, operation := range []string{"GET /server", "GET /ip_address", "GET /network"} {
		if n := sim.Requests().Of(operation); n != 1 {
			t.Errorf("%s: %d requests, want 1", operation, n)
		}
	}
	before, err := c.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after, err := c.ServersSince(t.Context(), before.Taken.Add(time.Nanosecond))
	if err != nil || !after.Taken.After(before.Taken) {
		t.Errorf("a set since %s was taken at %s, %v", before.Taken, after.Taken, err)
	}
}

// What is odd about one server of the account is not every server's trouble.
func TestOddAnswersHideNoOtherServer(t *testing.T) {
	answers := map[string]string{
		"/1.3/server": `{"servers":{"server":[{"uuid":"00aa","hostname":"n1","title":"n1"},{"hostname":"none"},
			{"uuid":"00bb","labels":null,"host":"7","extra":{"a":[1]}}]}}`,
		"/1.3/ip_address": `{"ip_addresses":{"ip_address":[{"address":"","access":"public","server":"00bb"},
			{"address":"10.0.0.1/22","access":"utility","server":"00bb"},{"address":"94.237.0.1","access":"public","server":"00aa"},
			{"address":"94.237.0.2","access":"public","server":"00cc"}]}}`,
		"/1.3/network/": `{"networks":{"network":[{"uuid":"03","type":"private","servers":null,"ip_networks":{"ip_network":
			[{"address":"x"}]}}]}}`,
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, answers[r.URL.Path])
	}))
	t.Cleanup(api.Close)
	c, err := New(Config{Token: "t", BaseURL: api.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	set, err := c.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server, ok := set.Server("00aa")
	if !ok || set.Len() != 2 || len(server.Addresses) != 1 || server.Addresses[0].IP.String() != "94.237.0.1" {
		t.Errorf("%d servers, 00aa: %+v", set.Len(), server)
	}
}

func TestServerAddressesAreThoseOfTheInterfaces(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	id := sim.CreateServer(t, "n1", "fi-hel1")
	c := connectTo(t, sim)
	set, err := c.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server, _ := set.Server(id)
	sim.ResetRequests()
	for range 3 {
		addresses, err := c.ServerAddresses(t.Context(), server)
		if err != nil {
			t.Fatal(err)
		}
		var access []string
		for _, address := range addresses {
			access = append(access, address.Access)
			if address.NetworkID == "" || address.Interface == 0 {
				t.Errorf("address %+v", address)
			}
		}
		if len(access) != 3 || access[0] != "public" || access[1] != "utility" || access[2] != "private" {
			t.Errorf("addresses: %v", access)
		}
	}
	if n := sim.Requests().Total(); n != 1 {
		t.Errorf("%d requests, want 1: %v", n, sim.Requests())
	}
}

func TestServerThatIsGone(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	c := connectTo(t, sim)
	const gone = "00ffffff-ffff-4fff-bfff-ffffffffffff"
	if _, err := c.Server(t.Context(), gone); !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
	// A proxy, or a path that is none, says "not found" too, and means nothing by it.
	sim.Inject(simulator.Fault{Operation: "GET /server/{uuid}", Status: 404, Code: "NOT_FOUND"})
	if _, err := c.Server(t.Context(), gone); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("error %v, want one that is not ErrNotFound", err)
	}
}
