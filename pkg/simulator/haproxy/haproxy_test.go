package haproxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/haproxy"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const testZone = "fi-hel1"

// bench is a simulator whose load balancers carry traffic.
type bench struct {
	*simulatortest.Server
	network string
}

// newPlane makes load balancers run, where there is HAProxy.
func newPlane(t *testing.T, config haproxy.Config) simulator.LoadBalancerPlane {
	t.Helper()
	plane, err := haproxy.New(config)
	if errors.Is(err, haproxy.ErrNoProgram) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return plane
}

func start(t *testing.T) *bench {
	t.Helper()
	return startWith(t, simulator.Config{})
}

func startWith(t *testing.T, config simulator.Config) *bench {
	t.Helper()
	return startOn(t, config, haproxy.Config{})
}

func startOn(t *testing.T, config simulator.Config, balancers haproxy.Config) *bench {
	t.Helper()
	balancers.Dir = t.TempDir()
	plane := newPlane(t, balancers)
	config.LoadBalancers = plane
	sim := simulatortest.Start(t, config)
	return &bench{Server: sim, network: sim.CreateNetwork(t, "private", testZone, "172.20.0.0/24")}
}

// balance makes a load balancer with one frontend and one backend, and returns its UUID and public address.
func (b *bench) balance(t *testing.T, port int, mode, properties string, members ...string) (uuid, address string) {
	t.Helper()
	var lb struct{ UUID string }
	b.Do(t, "POST", "/load-balancer", fmt.Sprintf(`{"name":"lb-%d","plan":"development","zone":%q,
		"networks":[{"name":"public","type":"public","family":"IPv4"},{"name":"private","type":"private","family":"IPv4","uuid":%q}],
		"frontends":[{"name":"fe","mode":%q,"port":%d,"default_backend":"be","networks":[{"name":"public"}]}],
		"backends":[{"name":"be","members":[%s],"properties":%s}]}`,
		port, testZone, b.network, mode, port, strings.Join(members, ","), properties), &lb)
	b.running(t, lb.UUID)
	return lb.UUID, net.JoinHostPort(b.publicAddress(t, lb.UUID), fmt.Sprint(port))
}

type service struct {
	OperationalState string `json:"operational_state"`
	Nodes            []struct {
		OperationalState string `json:"operational_state"`
		Networks         []struct {
			Type        string
			IPAddresses []struct{ Address string } `json:"ip_addresses"`
		}
	}
}

func (b *bench) get(t *testing.T, uuid string) service {
	t.Helper()
	var lb service
	b.Do(t, "GET", "/load-balancer/"+uuid, "", &lb)
	return lb
}

func (b *bench) running(t *testing.T, uuid string) {
	t.Helper()
	until(t, "the load balancer runs", func() error {
		lb := b.get(t, uuid)
		if lb.OperationalState == "failing" { // its nodes may be, while a change is under way
			t.Fatal("the load balancer is failing")
		}
		if lb.OperationalState != "running" {
			return fmt.Errorf("%+v", lb)
		}
		return nil
	})
}

func (b *bench) publicAddress(t *testing.T, uuid string) string {
	t.Helper()
	for _, n := range b.get(t, uuid).Nodes[0].Networks {
		if n.Type == "public" {
			return n.IPAddresses[0].Address
		}
	}
	t.Fatal("no public address")
	return ""
}

func until(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s: %v", what, err)
		}
	}
}

// web is a member that says its name.
func web(t *testing.T, name string) (member string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", name, r.Header.Get("X-Forwarded-For"))
	}))
	t.Cleanup(server.Close)
	return memberAt(name, server.Listener.Addr().String())
}

func memberAt(name, address string) string {
	host, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf(`{"name":%q,"ip":%q,"port":%s,"weight":100,"max_sessions":1000,"enabled":true,"type":"static"}`, name, host, port)
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	status, body, err := tryGet(url)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

// answersTenTimes says what else than that member's name was answered in ten requests, or went wrong.
func answersTenTimes(address, member string) error {
	for range 10 {
		_, body, err := tryGet("http://" + address)
		if err != nil {
			return err
		}
		if strings.TrimSpace(body) != member {
			return errors.New(body + " answered")
		}
	}
	return nil
}

func tryGet(url string) (status int, body string, err error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func TestTCPIsSpreadOverMembersAndFollowsChanges(t *testing.T) {
	b := start(t)
	uuid, address := b.balance(t, 18081, "tcp", "{}", web(t, "one"), web(t, "two"))
	seen := map[string]bool{}
	for range 4 {
		_, body := get(t, "http://"+address)
		seen[strings.TrimSpace(body)] = true
	}
	if !seen["one"] || !seen["two"] {
		t.Errorf("members that answered: %v", seen)
	}
	b.Do(t, "PATCH", "/load-balancer/"+uuid+"/backends/be", `{"members":[`+web(t, "three")+`]}`, nil)
	b.running(t, uuid)
	for range 4 {
		if _, body := get(t, "http://"+address); strings.TrimSpace(body) != "three" {
			t.Errorf("after the change %q answered", body)
		}
	}
}

func TestChangeKeepsOpenConnections(t *testing.T) {
	b := start(t)
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() { // ends when the listener is closed
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	uuid, address := b.balance(t, 18082, "tcp", "{}", memberAt("echo", echo.Addr().String()))
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	say := func(text string) {
		t.Helper()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintln(conn, text)
		got, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || got != text+"\n" {
			t.Fatalf("said %q, heard %q, %v", text, got, err)
		}
	}
	say("before the change")
	b.Do(t, "POST", "/load-balancer/"+uuid+"/backends/be/members", web(t, "more"), nil)
	b.running(t, uuid)
	say("after the change")
}

func TestHTTPRulesDecide(t *testing.T) {
	b := start(t)
	uuid, address := b.balance(t, 18083, "http", "{}", web(t, "default"))
	service := "/load-balancer/" + uuid
	b.Do(t, "POST", service+"/backends", `{"name":"other","members":[`+web(t, "other")+`]}`, nil)
	for _, rule := range []string{
		`{"name":"teapot","priority":90,"matchers":[{"type":"path","match_path":{"method":"exact","value":"/teapot"}}],
			"actions":[{"type":"http_return","action_http_return":{"status":418,"content_type":"text/plain","payload":"SSdtIGEgdGVhcG90"}}]}`,
		`{"name":"moved","priority":80,"matchers":[{"type":"path","match_path":{"method":"starts","value":"/old"}}],
			"actions":[{"type":"http_redirect","action_http_redirect":{"location":"https://example.com/it's new","status":301}}]}`,
		`{"name":"other","priority":70,"matchers":[{"type":"path","match_path":{"method":"starts","value":"/other"}},
			{"type":"http_method","match_http_method":{"value":"POST"},"inverse":true}],
			"actions":[{"type":"set_forwarded_headers","action_set_forwarded_headers":{}},{"type":"use_backend","action_use_backend":{"backend":"other"}}]}`,
	} {
		b.Do(t, "POST", service+"/frontends/fe/rules", rule, nil)
	}
	b.running(t, uuid)
	for path, want := range map[string]string{"/": "200 default", "/teapot": "418 I'm a teapot", "/old/page": "301", "/other/x": "200 other 127.0.0.1"} {
		status, body := get(t, "http://"+address+path)
		if got := strings.TrimSpace(fmt.Sprint(status, " ", body)); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestProxyProtocolTellsTheClient(t *testing.T) {
	b := start(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	lines := make(chan string, 16)
	go func() { // ends when the listener is closed
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			conn.Close()
			if !strings.Contains(line, "UNKNOWN") { // health checks
				lines <- line
			}
		}
	}()
	_, address := b.balance(t, 18084, "tcp", `{"outbound_proxy_protocol":"v1"}`, memberAt("listener", listener.Addr().String()))
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "hello")
	local := conn.LocalAddr().(*net.TCPAddr)
	want := fmt.Sprintf("PROXY TCP4 %s ", local.IP)
	for {
		select {
		case line := <-lines:
			if strings.HasPrefix(line, want) && strings.Contains(line, fmt.Sprintf(" %d ", local.Port)) {
				return
			}
		case <-time.After(time.Minute):
			t.Fatalf("no line begins with %q", want)
		}
	}
}

func TestUnhealthyMembersGetNoTraffic(t *testing.T) {
	b := start(t)
	sick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			w.WriteHeader(503)
		}
		_, _ = io.WriteString(w, "sick")
	}))
	defer sick.Close()
	_, address := b.balance(t, 18085, "tcp",
		`{"health_check_type":"http","health_check_url":"/health","health_check_interval":1,"health_check_fall":1}`,
		web(t, "well"), memberAt("sick", sick.Listener.Addr().String()))
	until(t, "ten requests in a row reach the healthy member", func() error { return answersTenTimes(address, "well") })
}

func TestDeletionEndsTheListener(t *testing.T) {
	b := start(t)
	uuid, address := b.balance(t, 18086, "tcp", "{}", web(t, "one"))
	get(t, "http://"+address)
	b.Do(t, "DELETE", "/load-balancer/"+uuid, "", nil)
	until(t, "the load balancer is gone", func() error {
		if status, body := b.Raw(t, "GET", "/load-balancer/"+uuid, ""); status != 404 {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("the address still answers")
	}
}

func TestRefusedConfigurationLeavesTheFormerRunning(t *testing.T) {
	plane := newPlane(t, haproxy.Config{Dir: t.TempDir()})
	defer plane.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "one") }))
	defer server.Close()
	member := netip.MustParseAddrPort(server.Listener.Addr().String())
	listen, err := plane.Listen(netip.MustParseAddr("198.18.0.9"))
	if err != nil {
		t.Fatal(err)
	}
	frontend := simulator.Frontend{Name: "fe", Mode: "http", Port: 18087, DefaultBackend: "be",
		Networks:   []simulator.FrontendNetwork{{Name: "public"}},
		Properties: simulator.FrontendProperties{TimeoutClient: 10}}
	spec := simulator.LoadBalancerSpec{
		Addresses: map[string][]netip.Addr{"public": {listen}},
		LoadBalancer: simulator.LoadBalancer{UUID: "0a000000-0000-4000-8000-000000000001", ConfiguredStatus: "started",
			Frontends: []simulator.Frontend{frontend},
			Backends: []simulator.Backend{{Name: "be", Members: []simulator.Member{{Name: "m", IP: member.Addr().String(),
				Port: int(member.Port()), Weight: 1, Enabled: true}},
				Properties: simulator.BackendProperties{TimeoutServer: 10, TimeoutTunnel: 10, HealthCheckInterval: 1,
					HealthCheckFall: 1, HealthCheckRise: 1}}}},
	}
	if err := plane.Apply(context.Background(), spec); err != nil {
		t.Fatal(err)
	}
	broken := spec
	frontend.Rules = []simulator.Rule{{Name: "r", Matchers: []simulator.Matcher{simulator.Matcher(`{"type":"path","match_path":{"method":"regexp","value":"("}}`)},
		Actions: []simulator.Action{simulator.Action(`{"type":"tcp_reject","action_tcp_reject":{}}`)}}}
	broken.LoadBalancer.Frontends = []simulator.Frontend{frontend}
	if err := plane.Apply(context.Background(), broken); err == nil {
		t.Error("a regular expression that is none was accepted")
	}
	if status, body := get(t, fmt.Sprintf("http://%s:18087", listen)); status != 200 || body != "one" {
		t.Errorf("after the refusal: %d %s", status, body)
	}
}

// As with externalTrafficPolicy Local: each node tells on a port of its own whether it has an endpoint.
func TestHealthCheckOnAnotherPort(t *testing.T) {
	b := start(t)
	health := http.NewServeMux()
	health.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(404)
		}
	})
	checks := httptest.NewServer(health)
	defer checks.Close()
	_, port, _ := net.SplitHostPort(checks.Listener.Addr().String())
	away := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "no endpoint") }))
	listener, err := net.Listen("tcp", "127.0.0.2:0") // where nothing answers on the health check port
	if err != nil {
		t.Skip("no second loopback address: ", err)
	}
	away.Listener.Close()
	away.Listener = listener
	away.Start()
	defer away.Close()
	for i, url := range []string{"http://:" + port + "/healthz", "http://:" + port} {
		_, address := b.balance(t, 18088+i, "tcp",
			fmt.Sprintf(`{"health_check_type":"http","health_check_url":%q,"health_check_expected_status":%d,"health_check_interval":1,
				"health_check_fall":1,"health_check_rise":1,"outbound_proxy_protocol":""}`, url, 200+204*i),
			web(t, "well"), memberAt("away", away.Listener.Addr().String()))
		until(t, "ten requests in a row reach the member whose other port answers", func() error {
			return answersTenTimes(address, "well")
		})
	}
}

// HAProxy listens beside another one that has the port already, and each gets a part of the connections.
func TestTwoSimulatorsDoNotShareAddresses(t *testing.T) {
	one, two := start(t), start(t)
	_, first := one.balance(t, 18090, "tcp", "{}", web(t, "one"))
	_, second := two.balance(t, 18090, "tcp", "{}", web(t, "two"))
	if first == second {
		t.Errorf("both listen on %s", first)
	}
	for range 8 {
		for address, want := range map[string]string{first: "one", second: "two"} {
			if _, body := get(t, "http://"+address); strings.TrimSpace(body) != want {
				t.Errorf("%s: %q answered, want %q", address, body, want)
			}
		}
	}
}

// An address that is given up, by a load balancer or with the whole plane, is anybody's again.
func TestAddressesAreGivenUp(t *testing.T) {
	planes := make([]simulator.LoadBalancerPlane, 2)
	for i := range planes {
		plane := newPlane(t, haproxy.Config{Dir: t.TempDir()})
		defer plane.Close()
		planes[i] = plane
	}
	listen := func(plane int, proposed netip.Addr) netip.Addr {
		t.Helper()
		address, err := planes[plane].Listen(proposed)
		if err != nil {
			t.Fatal(err)
		}
		return address
	}
	// Far from what the simulators of other tests take that run at this moment.
	first := listen(0, netip.AddrFrom4([4]byte{127, 127, byte(os.Getpid() >> 8), byte(os.Getpid())}))
	if got := listen(1, first); got == first {
		t.Errorf("both have %s", got)
	}
	if err := planes[0].Unlisten(first); err != nil {
		t.Fatal(err)
	}
	for _, giveUp := range []func() error{func() error { return planes[0].Unlisten(first) }, planes[0].Close} {
		if got := listen(0, first); got != first {
			t.Errorf("%s is free, and %s taken", first, got)
		}
		if err := giveUp(); err != nil {
			t.Fatal(err)
		}
		if got := listen(1, first); got != first {
			t.Errorf("%s was given up, and %s taken", first, got)
		}
		if err := planes[1].Unlisten(first); err != nil {
			t.Fatal(err)
		}
	}
}
