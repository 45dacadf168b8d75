package haproxy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// forwarded is a rule that tells the member who asks.
const forwarded = `{"name":"forwarded","priority":1,"actions":[{"type":"set_forwarded_headers","action_set_forwarded_headers":{}}]}`

func TestProxyProtocolIn(t *testing.T) {
	b := start(t)
	uuid, address := b.balance(t, 18200, "http", "{}", web(t, "member"))
	b.Do(t, "PATCH", "/load-balancer/"+uuid+"/frontends/fe", `{"properties":{"inbound_proxy_protocol":true},"rules":[`+forwarded+`]}`, nil)
	b.running(t, uuid)
	v2 := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11"), 0, 12, 203, 0, 113, 7, 10, 0, 0, 1)
	v2 = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(v2, 4242), 80)
	for version, header := range map[string]string{"v1": "PROXY TCP4 203.0.113.7 10.0.0.1 4242 80\r\n", "v2": string(v2)} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%sGET / HTTP/1.0\r\n\r\n", header)
		answer, err := io.ReadAll(conn)
		conn.Close()
		if err != nil || !strings.HasSuffix(string(answer), "member 203.0.113.7") {
			t.Errorf("%s: %q, %v", version, answer, err)
		}
	}
	if resp, err := http.Get("http://" + address); err == nil {
		resp.Body.Close()
		t.Errorf("without the header: %d", resp.StatusCode)
	}
}

func TestProxyProtocolV2Out(t *testing.T) {
	b := start(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	heads := make(chan []byte, 64)
	go func() { // ends when the listener is closed
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			head := make([]byte, 28)
			n, _ := io.ReadFull(conn, head)
			conn.Close()
			heads <- head[:n]
		}
	}()
	_, address := b.balance(t, 18201, "tcp", `{"outbound_proxy_protocol":"v2"}`, memberAt("listener", listener.Addr().String()))
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "hello")
	local := conn.LocalAddr().(*net.TCPAddr)
	for deadline := time.After(time.Minute); ; {
		select {
		case head := <-heads: // health checks send one without addresses
			if bytes.HasPrefix(head, []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11")) && bytes.Equal(head[16:20], local.IP.To4()) &&
				int(binary.BigEndian.Uint16(head[24:])) == local.Port {
				return
			}
		case <-deadline:
			t.Fatal("no header tells the client's address")
		}
	}
}

func TestStickySessionsStay(t *testing.T) {
	b := start(t)
	_, address := b.balance(t, 18202, "http", `{"sticky_session_cookie_name":"where","sticky_session_cookie_attributes":"SameSite=Lax; HttpOnly"}`,
		web(t, "one"), web(t, "two"), web(t, "three"))
	resp, first := ask(t, "GET", "http://"+address, nil)
	if len(resp.Cookies()) != 1 || resp.Cookies()[0].Name != "where" || !resp.Cookies()[0].HttpOnly ||
		resp.Cookies()[0].SameSite != http.SameSiteLaxMode {
		t.Fatalf("cookies %v", resp.Cookies())
	}
	for range 6 {
		if _, body := ask(t, "GET", "http://"+address, func(r *http.Request) { r.AddCookie(resp.Cookies()[0]) }); body != first {
			t.Errorf("%q answered, first %q", body, first)
		}
	}
}

func TestTimeoutsEndWhatWaits(t *testing.T) {
	b := start(t)
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer slow.Close()
	defer close(release)
	_, address := b.balance(t, 18203, "http", `{"timeout_server":1}`, memberAt("slow", slow.Listener.Addr().String()))
	if resp, _ := ask(t, "GET", "http://"+address, nil); resp.StatusCode != 504 {
		t.Errorf("a member that does not answer: %d, want 504", resp.StatusCode)
	}
}

func TestBackupMembersWaitForTheOthersToFail(t *testing.T) {
	b := start(t)
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "first") }))
	defer first.Close()
	backup := strings.Replace(web(t, "backup"), `"enabled"`, `"backup":true,"enabled"`, 1)
	_, address := b.balance(t, 18204, "tcp", `{"health_check_interval":1,"health_check_fall":1}`,
		memberAt("first", first.Listener.Addr().String()), backup)
	for range 4 {
		if _, body := get(t, "http://"+address); body != "first" {
			t.Errorf("%q answered while the first is up", body)
		}
	}
	first.Close()
	until(t, "the backup answers", func() error {
		resp, err := http.Get("http://" + address)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && !strings.HasPrefix(string(body), "backup") {
			err = fmt.Errorf("%q answered", body)
		}
		return err
	})
}

// nameServer answers every question for an IPv4 address with 127.0.0.1, when the name is the one given.
func nameServer(t *testing.T, name string) (address string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var question []byte
	for _, label := range strings.Split(name, ".") {
		question = append(append(question, byte(len(label))), label...)
	}
	question = append(question, 0, 0, 1, 0, 1) // the root, A, IN
	go func() {                                // ends when the socket is closed
		packet := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(packet)
			if err != nil {
				return
			}
			answer := append([]byte{packet[0], packet[1], 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0}, packet[12:n]...)
			if bytes.HasPrefix(bytes.ToLower(packet[12:n]), question) {
				answer = append([]byte{packet[0], packet[1], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0}, question...)
				answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1)
			} else if end := bytes.IndexByte(packet[12:n], 0); end >= 0 {
				answer = answer[:12+end+5] // without what comes after the question
			}
			_, _ = conn.WriteTo(answer, from)
		}
	}()
	return conn.LocalAddr().String()
}

func TestDynamicMembersAreFoundByTheResolver(t *testing.T) {
	b := start(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "found") }))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	uuid, address := b.balance(t, 18205, "tcp", `{"health_check_interval":1,"health_check_rise":1}`)
	b.Do(t, "POST", "/load-balancer/"+uuid+"/resolvers", fmt.Sprintf(`{"name":"dns","nameservers":[%q],"retries":3,"timeout":1,
		"timeout_retry":1,"cache_valid":1,"cache_invalid":1}`, nameServer(t, "web.internal.example")), nil)
	b.Do(t, "PATCH", "/load-balancer/"+uuid+"/backends/be", `{"resolver":"dns","members":[{"name":"web.internal.example","port":`+port+`,
		"weight":100,"max_sessions":100,"type":"dynamic","enabled":true}]}`, nil)
	b.running(t, uuid)
	until(t, "the member is found", func() error {
		resp, err := http.Get("http://" + address)
		if err != nil {
			return err
		}
		resp.Body.Close()
		return nil
	})
}

func TestLoadBalancerThatDiedIsStartedAgain(t *testing.T) {
	clock := simulator.NewManualClock()
	b := startWith(t, simulator.Config{Clock: clock})
	pause := simulatortest.PassTime(t, clock, 100*time.Millisecond)
	defer func() { pause() }()
	uuid, address := b.balance(t, 18206, "tcp", "{}", web(t, "member"))
	pause() // before it is started again
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	killed := false
	for _, path := range paths {
		dir := filepath.Dir(path)
		command, _ := os.ReadFile(path) // other processes end meanwhile
		cwd, err := os.Readlink(dir + "/cwd")
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if err != nil || !strings.HasSuffix(cwd, uuid) || !strings.Contains(string(command), "haproxy") {
			continue
		}
		status, _ := os.ReadFile(dir + "/status")
		if strings.Contains(string(status), fmt.Sprintf("PPid:\t%d\n", os.Getpid())) {
			process, err := os.FindProcess(pid)
			if err != nil {
				t.Fatal(err)
			}
			killed = process.Kill() == nil
		}
	}
	if !killed {
		t.Fatal("no process of the load balancer is there")
	}
	until(t, "the API shows it", func() error {
		if lb := b.get(t, uuid); lb.OperationalState != "failing" || lb.Nodes[0].OperationalState != "not-responding" {
			return fmt.Errorf("%+v", lb)
		}
		return nil
	})
	pause = simulatortest.PassTime(t, clock, 100*time.Millisecond)
	until(t, "it runs again", func() error {
		if lb := b.get(t, uuid); lb.OperationalState != "running" {
			return fmt.Errorf("%+v", lb)
		}
		return nil
	})
	if _, body := get(t, "http://"+address); strings.TrimSpace(body) != "member" {
		t.Errorf("%q answered", body)
	}
}

func TestLoadBalancerThatCannotBeConfiguredIsFailing(t *testing.T) {
	b := start(t)
	uuid, address := b.balance(t, 18207, "http", "{}", web(t, "member"))
	rules := "/load-balancer/" + uuid + "/frontends/fe/rules"
	b.Do(t, "POST", rules, `{"name":"bad","priority":1,"matchers":[{"type":"path","match_path":{"method":"regexp","value":"(?<"}}],
		"actions":[{"type":"tcp_reject","action_tcp_reject":{}}]}`, nil)
	until(t, "the load balancer is failing", func() error {
		if lb := b.get(t, uuid); lb.OperationalState != "failing" || lb.Nodes[0].OperationalState != "failing" {
			return fmt.Errorf("%+v", lb)
		}
		return nil
	})
	if _, body := get(t, "http://"+address); strings.TrimSpace(body) != "member" {
		t.Errorf("the former configuration does not go on: %q answered", body)
	}
	b.Do(t, "DELETE", rules+"/bad", "", nil)
	b.running(t, uuid)
	b.Do(t, "PATCH", "/load-balancer/"+uuid, `{"configured_status":"stopped"}`, nil)
	until(t, "the load balancer is stopped", func() error {
		if lb := b.get(t, uuid); lb.OperationalState != "stopped" {
			return fmt.Errorf("%+v", lb)
		}
		return nil
	})
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("a stopped load balancer listens")
	}
}

func TestEveryNodeOfAPlanListens(t *testing.T) {
	b := start(t)
	uuid, _ := b.balance(t, 18208, "tcp", "{}", web(t, "member"))
	public := func() (out []string) {
		for _, node := range b.get(t, uuid).Nodes {
			for _, n := range node.Networks {
				if n.Type == "public" {
					out = append(out, n.IPAddresses[0].Address)
				}
			}
		}
		return out
	}
	for _, plan := range []struct {
		name  string
		nodes int
	}{{"production-small", 2}, {"development", 1}} {
		before := public()
		b.Do(t, "PATCH", "/load-balancer/"+uuid, `{"plan":"`+plan.name+`"}`, nil)
		b.running(t, uuid)
		now := public()
		if len(now) != plan.nodes || now[0] != before[0] {
			t.Fatalf("%s: addresses %v, before %v", plan.name, now, before)
		}
		for _, a := range now {
			if _, body := get(t, "http://"+a+":18208"); strings.TrimSpace(body) != "member" {
				t.Errorf("%s: %q answered at %s", plan.name, body, a)
			}
		}
	}
}
