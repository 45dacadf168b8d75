package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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
	if n := sim.Requests().Total(); n != 1 {
		t.Errorf("%d requests, want 1: %v", n, sim.Requests())
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
	const odd, sound = "00000000-0000-4000-8000-0000000000bb", "00000000-0000-4000-8000-0000000000aa"
	answers := map[string]string{
		"/1.3/server": `{"servers":{"server":[{"uuid":"` + sound + `","hostname":"n1","title":"n1"},{"hostname":"none"},
			{"uuid":"` + odd + `","labels":null,"host":"7","extra":{"a":[1]}}]}}`,
		"/1.3/ip_address": `{"ip_addresses":{"ip_address":[{"address":"","access":"public","server":"` + odd + `"},
			{"address":"10.0.0.1/22","access":"utility","server":"` + odd + `"},
			{"address":"94.237.0.1","access":"public","server":"` + sound + `"},
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
	if _, ok := set.Server(sound); !ok || set.Len() != 2 {
		t.Errorf("%d servers, %v", set.Len(), ok)
	}
	ids, err := c.ServersWithPublicAddress(t.Context(), netip.MustParseAddr("94.237.0.1"))
	if err != nil || !slices.Equal(ids, []string{sound}) {
		t.Errorf("servers with the address: %v, %v", ids, err)
	}
}

// No recording shows a list of servers that is cut. Should one be, what follows is read too.
func TestServersOfManyPages(t *testing.T) {
	const total = 250
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
		var entries []string
		for i := offset; i < min(offset+100, total); i++ {
			entries = append(entries, fmt.Sprintf(`{"uuid":"00000000-0000-4000-8000-%012d"}`, i))
		}
		_, _ = io.WriteString(w, `{"servers":{"server":[`+strings.Join(entries, ",")+`]}}`)
	}))
	t.Cleanup(api.Close)
	c, err := New(Config{Token: "t", BaseURL: api.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	set, err := c.Servers(t.Context())
	if err != nil || set.Len() != total {
		t.Errorf("%d servers, %v, want %d", set.Len(), err, total)
	}
}

func TestServerAddressesAreThoseOfTheInterfaces(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	id := sim.CreateServer(t, "n1", "fi-hel1")
	c := connectTo(t, sim)
	sim.ResetRequests()
	for range 3 {
		addresses, err := c.ServerAddresses(t.Context(), id)
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
	if n := sim.Requests().Of("GET /server/{uuid}"); n != 1 {
		t.Errorf("the server was asked %d times, want once: %v", n, sim.Requests())
	}
}

// A change of a server's interfaces shows in the lists; then, and only then, the server is asked again.
func TestServerIsAskedAgainWhenListsDisagree(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	id := sim.CreateServer(t, "n1", "fi-hel1")
	c := connectTo(t, sim)
	read := func() []Address {
		t.Helper()
		addresses, err := c.ServerAddresses(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return addresses
	}
	read()
	if _, err := c.addressLists(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	sim.ResetRequests()
	before := read()
	if n := sim.Requests().Total(); n != 0 {
		t.Errorf("%d requests although nothing changed: %v", n, sim.Requests())
	}
	second := sim.CreateNetwork(t, "second", "fi-hel1", "10.20.0.0/24")
	var stopped struct{ Server struct{ State string } }
	sim.Do(t, http.MethodPost, "/server/"+id+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
	for deadline := time.Now().Add(time.Minute); stopped.Server.State != "stopped" && time.Now().Before(deadline); {
		sim.Do(t, http.MethodGet, "/server/"+id, "", &stopped)
	}
	sim.Do(t, http.MethodPost, "/server/"+id+"/networking/interface",
		`{"interface":{"type":"private","network":"`+second+`","ip_addresses":{"ip_address":[{"family":"IPv4"}]}}}`, nil)
	if _, err := c.addressLists(t.Context(), time.Now()); err != nil { // as if the lists had aged
		t.Fatal(err)
	}
	after := read()
	if len(after) != len(before)+1 || !slices.ContainsFunc(after, func(a Address) bool { return a.NetworkID == second }) {
		t.Errorf("addresses %v, before %v", after, before)
	}
}

// A list that goes on saying something else than the server itself is wrong, and costs one question, not one each time.
func TestWrongListCostsOneQuestion(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	sim.Inject(simulator.Fault{Operation: "GET /ip_address", Stale: time.Hour}) // as it was before there were any servers
	id := sim.CreateServer(t, "n1", "fi-hel1")
	c := connectTo(t, sim)
	sim.ResetRequests()
	for range 5 {
		addresses, err := c.ServerAddresses(t.Context(), id)
		if err != nil || len(addresses) != 3 {
			t.Fatal(addresses, err)
		}
		if _, err := c.addressLists(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if n := sim.Requests().Of("GET /server/{uuid}"); n != 2 {
		t.Errorf("the server was asked %d times, want when it came and when the list contradicted it", n)
	}
}

// A server is found by any address by its private network, and by a public one without.
func TestServersWithAnAddress(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	sim.CreateServer(t, "n1", "fi-hel1")
	id := sim.CreateServer(t, "n2", "fi-hel1")
	c := connectTo(t, sim)
	addresses, err := c.ServerAddresses(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		for _, test := range []struct {
			find   func(context.Context, netip.Addr) ([]string, error)
			access string
		}{
			{c.ServersWithPublicAddress, "public"},
			{func(ctx context.Context, ip netip.Addr) ([]string, error) {
				return c.ServersWithPrivateAddress(ctx, ip)
			}, "private"},
		} {
			ids, err := test.find(t.Context(), address.IP)
			if err != nil || slices.Equal(ids, []string{id}) != (address.Access == test.access) {
				t.Errorf("servers with %s address %s, by those that are %s: %v, %v", address.Access, address.IP, test.access, ids, err)
			}
		}
	}
	if ids, err := c.ServersWithPrivateAddress(t.Context(), netip.MustParseAddr("172.16.200.200")); err != nil || len(ids) > 0 {
		t.Errorf("servers with an address that is no server's: %v, %v", ids, err)
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
