package cloud

import (
	"errors"
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
